"""Settings of a run: schema, presets, methods, overrides. Imports no torch."""

AUTO = "auto"
"""In place of a preset's name: let `sapnet.config.choice` find one."""
DEFAULT_PROPOSALS = "hierarchy+prompter"
"""The kind of generator where none is asked for: offline, on a CPU, without other weights."""
