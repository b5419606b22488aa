"""Settings of a run: schema, presets, methods, overrides. Imports no torch."""
