"""The command lines, as Markdown: every command of `sapnet-service` and `sapnet`."""

import inspect
from collections.abc import Iterator
from typing import Any

import typer.main
from json_schema import table

from app.cli.main import app as service
from sapnet.cli.main import app as library

HEAD = """# Command lines

Made from the commands themselves; `--help` says the same. Both have `--version` and
`--install-completion`.
"""


def page() -> str:
    """Return the page."""
    parts = [HEAD]
    for name, app in (("sapnet-service", service), ("sapnet", library)):
        parts.append(f"## {name} {{ #{name} }}\n")
        parts += _commands(typer.main.get_command(app), name)
    return "\n".join(parts)


def _commands(command: Any, path: str) -> Iterator[str]:
    if commands := getattr(command, "commands", None):
        for name, one in sorted(commands.items()):
            if not one.hidden:
                yield from _commands(one, f"{path} {name}")
        return
    yield f"### `{path}` {{ #{path.replace(' ', '-')} }}\n"
    yield inspect.cleandoc(command.help or "") + "\n"
    rows = [row for parameter in command.params for row in _row(parameter)]
    if rows:
        yield table(["argument", "default", "meaning"], rows)


def _row(parameter: Any) -> Iterator[list[str]]:
    if parameter.name in ("help", "version", "install_completion", "show_completion"):
        return
    names = " ".join([*parameter.opts, *parameter.secondary_opts])
    if parameter.param_type_name == "argument":
        names = (parameter.metavar or parameter.name or "").upper().strip("[]")
    shown = getattr(parameter, "show_default", None)
    default = shown if isinstance(shown, str) else parameter.default
    written = "required" if parameter.required else _written(default)
    yield [f"`{names}`", written, getattr(parameter, "help", None) or ""]


def _written(default: object) -> str:
    is_unset = default is None or callable(default) or default in ((), [], False)
    return "" if is_unset or "UNSET" in repr(default) else f"`{default}`"
