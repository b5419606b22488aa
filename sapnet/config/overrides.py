"""Change one setting by its dotted name; the value is checked against the setting's type."""

import difflib
import math
from collections.abc import Iterable, Iterator
from dataclasses import fields, is_dataclass, replace
from types import UnionType
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

import msgspec

from sapnet.config.schema import Config
from sapnet.errors import InvalidConfig


def override_names(config: Config) -> list[str]:
    """Every name that `override` accepts, such as `train.epochs`."""
    return [
        f"{stage.name}.{setting.name}"
        for stage in fields(config)
        if is_dataclass(getattr(config, stage.name))
        for setting in fields(getattr(config, stage.name))
    ]


def override(config: Config, name: str, value: Any) -> Config:
    """Return `config` with one setting changed.

    Args:
        name: dotted, one of `override_names`.
        value: as JSON has it; a whole number will do for a float, a list for a tuple.

    Raises:
        InvalidConfig: no such setting (the message names near ones), or a value of another type,
            NaN or infinite (the message says what it may be).
    """
    names = override_names(config)
    if name not in names:
        near = difflib.get_close_matches(name, names, n=3, cutoff=0.4)
        hint = f"; did you mean {quoted(near)}?" if near else ""
        raise InvalidConfig(f"override {name!r} does not exist{hint}")
    stage_name, setting = name.split(".")
    stage = getattr(config, stage_name)
    expected = get_type_hints(type(stage))[setting]
    wrong = InvalidConfig(f"override {name!r} must be {_allowed(expected)}, not {value!r}")
    try:
        converted = msgspec.convert(value, expected)
    except msgspec.ValidationError:
        raise wrong from None
    if not is_finite(converted):
        raise wrong
    return replace(config, **{stage_name: replace(stage, **{setting: converted})})


def numbers(value: Any) -> Iterator[int | float]:
    """The numbers of a setting's value, those inside of nested tuples too."""
    if isinstance(value, tuple):
        for entry in value:
            yield from numbers(entry)
    elif isinstance(value, int | float):
        yield value


def is_finite(value: Any) -> bool:
    """Whether none of the `numbers` of a value is NaN or infinite."""
    return all(abs(number) < math.inf for number in numbers(value))


def quoted(names: Iterable[Any]) -> str:
    """Names for a message: 'cpu', 'demo'."""
    return ", ".join(repr(name) for name in names)


def _allowed(expected: Any) -> str:
    """A type in words: "a whole number", "'sgd' or 'adamw'"."""
    origin, arguments = get_origin(expected), get_args(expected)
    if origin is Literal:
        return " or ".join(map(repr, arguments))
    if origin in (UnionType, Union):
        return " or ".join(map(_allowed, arguments))
    if origin is tuple:
        many = "" if arguments[-1] is Ellipsis else f"{len(arguments)} entries, each "
        return f"a list of {many}{_allowed(arguments[0])}"
    words = {int: "a whole number", float: "a finite number", bool: "true or false"}
    return words.get(expected, "null")
