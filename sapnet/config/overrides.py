"""Change one setting of nested dataclasses by its dotted name; the value is checked by its type."""

import difflib
import sys
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import fields, is_dataclass, replace
from types import UnionType
from typing import TYPE_CHECKING, Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from sapnet.errors import InvalidConfig

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

C = TypeVar("C", bound="DataclassInstance")


def override_names(config: Any) -> list[str]:
    """Every name that `override` understands, such as `train.epochs`."""
    return [
        f"{stage.name}.{setting.name}"
        for stage in fields(config)
        if is_dataclass(getattr(config, stage.name))
        for setting in fields(getattr(config, stage.name))
    ]


def override(config: C, name: str, value: Any) -> C:
    """`config`, a dataclass of dataclasses, with one setting changed. InvalidConfig says what is
    wrong with the name (and which are near) or with the value (and what it must be)."""
    names = override_names(config)
    if name not in names:
        near = difflib.get_close_matches(name, names, n=3, cutoff=0.4)
        hint = f"; did you mean {in_words(near)}?" if near else ""
        raise InvalidConfig(f"override {name!r} does not exist{hint}")
    stage_name, setting = name.split(".")
    stage = getattr(config, stage_name)
    kind = get_type_hints(type(stage))[setting]
    changed = replace(stage, **{setting: _coerce(name, value, kind)})
    return replace(config, **{stage_name: changed})


def _coerce(name: str, value: Any, kind: Any) -> Any:
    """`value` as `kind`, one of the forms that the settings use, or InvalidConfig."""
    wrong = InvalidConfig(f"override {name!r} must be {_kind_name(kind)}, not {value!r}")
    origin, arguments = get_origin(kind), get_args(kind)
    if origin is Literal:
        if value in arguments:
            return value
    elif origin in (UnionType, Union):
        for choice in arguments:
            with suppress(InvalidConfig):
                return _coerce(name, value, choice)
    elif origin is tuple and isinstance(value, list | tuple):
        kinds = [arguments[0]] * len(value) if arguments[-1] is Ellipsis else arguments
        if len(kinds) == len(value):
            return tuple(_coerce(name, v, k) for v, k in zip(value, kinds, strict=True))
    elif kind is float and isinstance(value, int | float) and not isinstance(value, bool):
        if abs(value) <= sys.float_info.max:  # neither NaN nor infinite nor a huge integer
            return float(value)
    elif type(value) is kind:
        return value
    raise wrong


def _kind_name(kind: Any) -> str:
    """A kind in words: "a whole number", "'sgd' or 'adamw'"."""
    origin, arguments = get_origin(kind), get_args(kind)
    if origin is Literal:
        return " or ".join(repr(choice) for choice in arguments)
    if origin in (UnionType, Union):
        return " or ".join(_kind_name(choice) for choice in arguments)
    if origin is tuple:
        many = "" if arguments[-1] is Ellipsis else f"{len(arguments)} entries, each "
        return f"a list of {many}{_kind_name(arguments[0])}"
    words = {int: "a whole number", float: "a number", bool: "true or false", type(None): "null"}
    return words.get(kind, kind.__name__)


def in_words(names: Iterable[Any]) -> str:
    return ", ".join(repr(name) for name in names)
