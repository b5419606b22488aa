"""The settings references: of the service from `Settings`, of a training from its dataclasses."""

import ast
import inspect
import re
import sys
import typing
from collections.abc import Iterator
from dataclasses import fields, is_dataclass
from typing import Any

from json_schema import bounds_of, table, type_of
from pydantic import TypeAdapter

from app.settings import Settings
from sapnet.config.presets import PRESETS
from sapnet.config.resolve import bounds_in_words
from sapnet.config.schema import Config

_UNITS = ((2**30, "GiB"), (2**20, "MiB"), (2**10, "KiB"))
SERVICE = """# Settings of the service

Environment variables, or lines of a file `.env` in the folder in which the service starts. Made
from `app/settings.py`. `sapnet-service doctor` says which are wrong; with none, everything is
below `./var`.
"""
TRAINING = """# Settings of a training

Any of these names goes into `overrides` of `POST /jobs/train`, into `--set` of the commands, and
into `overrides=` of the client: `{"train.epochs": 6}`. Made from `sapnet/config/`. Defaults are
those of the papers (`paper_r50_1x`); the last column says where a preset has another value. A
method, and proposals other than the default ones, switch some of them on or off
(`sapnet/config/methods.py`).
"""


def service_page() -> str:
    """Return the page of the service's settings, in the order and the groups of their class."""
    schema = Settings.model_json_schema()
    parts = [SERVICE]
    for title, names in _groups():
        rows = []
        for name, meaning in names:
            one = schema["properties"][name]
            kind = type_of(one, lambda reference: reference.rsplit("/", 1)[1])
            default = _default(name, Settings.model_fields[name].default)
            bounds = bounds_of(one)
            rows.append([f"`SAPNET_{name.upper()}`", kind, default, bounds, meaning])
        parts += [f"## {title}\n", table(["variable", "type", "default", "range", "meaning"], rows)]
    return "\n".join(parts)


def service_meanings() -> dict[str, str]:
    """Return what each setting of the service means, by its name; empty where it is not said."""
    return {name: meaning for _, names in _groups() for name, meaning in names}


def _groups() -> Iterator[tuple[str, list[tuple[str, str]]]]:
    """Settings with their docstrings; a group begins with a comment that is its title."""
    source = inspect.getsource(Settings)
    titles = {
        number: match[1]
        for number, line in enumerate(source.splitlines(), start=1)
        if (match := re.match(r"    # (.+)", line))
    }
    (tree,) = ast.parse(source).body
    assert isinstance(tree, ast.ClassDef)
    title, names, start = "Others", [], 0
    for index, node in enumerate(tree.body):
        if not isinstance(node, ast.AnnAssign) or not isinstance(node.target, ast.Name):
            continue
        found = [text for number, text in titles.items() if start < number < node.lineno]
        if found:
            if names:
                yield title, names
            title, names = found[-1], []
        after = tree.body[index + 1] if index + 1 < len(tree.body) else None
        is_text = isinstance(after, ast.Expr) and isinstance(after.value, ast.Constant)
        names.append((node.target.id, str(after.value.value) if is_text else ""))
        start = node.lineno
    yield title, names


def _default(name: str, value: Any) -> str:
    if value is None or value in ((), {}):
        return ""
    if isinstance(value, tuple):
        value = ["python" if part == sys.executable else part for part in value]
        return f"`{' '.join(value)}`"
    if name.endswith("_bytes") and isinstance(value, int):
        for size, unit in _UNITS:
            if value and value % size == 0:
                return f"`{value}` ({value // size} {unit})"
    return f"`{str(value).lower() if isinstance(value, bool) else value}`"


def training_page() -> str:
    """Return the page of a training's settings, a table for each stage."""
    presets = {name: make() for name, make in PRESETS.items()}
    parts = [TRAINING]
    for stage in fields(Config):
        made = typing.get_type_hints(Config)[stage.name]
        if not is_dataclass(made):
            continue
        described, meanings = meanings_of(made)
        schema = TypeAdapter(made).json_schema()["properties"]
        rows = []
        for one in fields(made):
            default = getattr(getattr(Config(), stage.name), one.name)
            name = f"{stage.name}.{one.name}"
            kind = type_of(schema[one.name])
            numbers = "integer" in kind or "number" in kind
            others: dict[str, list[str]] = {}
            for preset, config in presets.items():
                value = getattr(getattr(config, stage.name), one.name)
                if value != default:
                    others.setdefault(_written(value), []).append(preset)
            elsewhere = "; ".join(f"{value}: {', '.join(names)}" for value, names in others.items())
            bounds = bounds_in_words(name) if numbers else ""
            meaning = meanings.get(one.name, "")
            rows.append([f"`{name}`", kind, _written(default), bounds, meaning, elsewhere])
        parts += [f"## {stage.name}\n", f"{described}\n"]
        head = ["name", "type", "default", "range", "meaning", "presets with another value"]
        parts.append(table(head, rows))
    return "\n".join(parts)


def _written(value: Any) -> str:
    if isinstance(value, tuple):
        return f"`[{', '.join(_written(part).strip('`') for part in value)}]`"
    if isinstance(value, float):
        return f"`{value:.4g}`"
    return "`null`" if value is None else f"`{str(value).lower()}`"


def meanings_of(made: type) -> tuple[str, dict[str, str]]:
    """Return a dataclass's description, and the meaning of each field, from its docstring."""
    described, _, attributes = inspect.cleandoc(made.__doc__ or "").partition("\nAttributes:\n")
    meanings: dict[str, str] = {}
    names: list[str] = []
    for line in attributes.splitlines():
        if match := re.match(r"    (\w+(?:, \w+)*): (.*)", line):
            names = match[1].split(", ")
            meanings |= dict.fromkeys(names, match[2])
        elif line.strip():
            for name in names:
                meanings[name] += f" {line.strip()}"
    return described.strip(), meanings
