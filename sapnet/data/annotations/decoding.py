"""Decode a COCO-style document into typed records, and say everything that is wrong on the way.

The document comes in pieces of some thousand records (`sapnet.data.annotations.json_stream`), so
that its size does not matter. Usually a piece is decoded by msgspec at once. Only where that fails
is it read again by the tolerant standard decoder, record by record and field by field, so that one
answer lists every issue. A field that could not be read is `INVALID` in its record; the checks that
follow skip it.
"""

import json
import math
import unicodedata
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Annotated, Any, TypeVar

import msgspec

from sapnet.data.annotations.json_stream import (
    NoObject,
    Piece,
    Unreadable,
    line_and_column,
    opened,
    pieces,
)
from sapnet.errors import ValidationIssue

INVALID: Any = msgspec.UNSET
MAX_ISSUES = 1000

Id = Annotated[int, msgspec.Meta(ge=-(2**63), le=2**63 - 1)]
Side = Annotated[int, msgspec.Meta(ge=1, le=2**31 - 1)]


class ImageEntry(msgspec.Struct, gc=False):
    """An image as the document has it."""

    id: Id
    file_name: str
    width: Side | None = None
    height: Side | None = None
    coco_url: Any = None
    url: Any = None
    subset: Any = None
    group: Any = None

    @property
    def address(self) -> str | None:
        """Where the image may be fetched from, where that is said."""
        return next((u for u in (self.coco_url, self.url) if u and isinstance(u, str)), None)


class CategoryEntry(msgspec.Struct, gc=False):
    """A category as the document has it."""

    id: Id
    name: str
    supercategory: Any = None


class RunLengths(msgspec.Struct, gc=False):
    """An RLE, compressed (a text) or not (a list)."""

    size: tuple[Side, Side]
    counts: str | list[int]


class AnnotationEntry(msgspec.Struct, gc=False):
    """An annotation as the document has it: its point in one of four forms."""

    id: Id
    image_id: Id
    category_id: Id
    point: tuple[float, float] | None = None
    keypoints: list[float] | None = None
    bbox: list[float] | None = None
    points: Any = None
    group_id: Any = None
    iscrowd: int | bool = 0
    mask: RunLengths | None = None
    segmentation: msgspec.Raw = msgspec.Raw()  # not read, only known to be there

    @property
    def has_segmentation(self) -> bool:
        """Whether there is ground truth; it is not read here."""
        nothing = (b"", b"null", b"[]")
        return self.segmentation is not INVALID and bytes(self.segmentation) not in nothing


EXPECTED = {
    "id": "a whole number",
    "image_id": "a whole number, the id of an image",
    "category_id": "a whole number, the id of a category",
    "file_name": "a text, the name of the image file",
    "width": "a whole number of pixels, at least 1",
    "height": "a whole number of pixels, at least 1",
    "name": "a text",
    "point": "two numbers [x, y] in pixels",
    "keypoints": "a list of numbers [x, y, visible]",
    "bbox": "a list of numbers [x, y, width, height]",
    "iscrowd": "0 or 1",
    "mask": "an RLE {size: [height, width], counts}",
    "area": "a number of pixels",
    "segmentation": "polygons [[x, y, ...], ...] or an RLE {size, counts}",
}


class Issues:
    """Collects what is wrong; keeps the first `MAX_ISSUES` and counts the others."""

    def __init__(self) -> None:
        self.total = 0
        self._kept: list[ValidationIssue] = []

    def add(self, pointer: str, problem: str, hint: str) -> None:
        """Note one issue, see `ValidationIssue`."""
        self.total += 1
        if self.total <= MAX_ISSUES:
            self._kept.append(ValidationIssue(pointer, problem, hint))

    def listed(self) -> list[ValidationIssue]:
        """What was found, in order; past the cap, a last issue says how many more there are."""
        if self.total <= MAX_ISSUES:
            return list(self._kept)
        more = self.total - MAX_ISSUES
        return [
            *self._kept,
            ValidationIssue("", f"{more} more problems are not listed", "fix these first"),
        ]


# What decoders raise on text that they refuse; wrong UTF-8 is a ValueError.
REFUSED = (msgspec.MsgspecError, ValueError, RecursionError)

S = TypeVar("S", bound=msgspec.Struct)

ReadProgress = Callable[[int], object]
"""Called now and then with how many bytes of a file were read. What it raises ends the reading."""


def ignore_progress(_: int) -> None:
    """Nobody looks on."""


class NoDocument(Exception):
    """The text is not a JSON object at all; why not is the last of the issues."""


def read_lists(
    source: bytes | Path,
    kinds: Mapping[str, type[msgspec.Struct]],
    deferred: Collection[str],
    issues: Issues,
) -> dict[str, Any]:
    """The short lists of a document, whole; all of its text is checked but for the long ones.

    Args:
        kinds: the record type of each list.
        deferred: the names of the long lists, which `read_list` is to read; they are empty here.

    Returns:
        Lists by name; `INVALID` for what is missing or no list. Records that are partly unreadable
        keep their place, with `INVALID` in the fields concerned. With them "info", as it is, where
        the document has one.

    Raises:
        NoDocument: the text is no JSON object.
    """
    lists: dict[str, Any] = {}
    with _unreadable_as_issue(source, issues), opened(source) as file:
        for piece in pieces(file, deferred.__contains__):
            name = piece.key
            if name not in kinds and name not in deferred:
                _check_other(piece, issues)
                if name == "info" and not piece.listed:
                    lists[name] = _loads(piece.text, "/info", Issues())
            elif piece.first and name in lists:
                raise Unreadable(piece.offset, f'the list "{name}" comes a second time')
            elif not piece.listed:
                lists[name] = INVALID
                if (value := _loads(piece.text, f"/{name}", issues)) is not INVALID:
                    problem = f"should be a list, but is {shown(value)}"
                    issues.add(f"/{name}", problem, "use [...]")
            else:
                so_far = lists.setdefault(name, [])
                if name in kinds:
                    so_far += _records(piece, kinds[name], len(so_far), issues)
    for name in (*kinds, *deferred):
        if name not in lists:
            issues.add("", f'the list "{name}" is missing', f'add "{name}": [...]')
            lists[name] = INVALID
    return lists


def read_list(
    source: bytes | Path, name: str, kind: type[S], issues: Issues, progress: ReadProgress
) -> Iterator[tuple[int, list[S]]]:
    """A long list of a document that `read_lists` has looked over.

    Yields:
        Some thousand records at a time, with the index of the first of them in the list.

    Raises:
        NoDocument: the text is no JSON object.
    """
    start = 0
    with _unreadable_as_issue(source, issues), opened(source) as file:
        for piece in pieces(file, lambda other: other != name):
            if piece.key == name and piece.listed:
                progress(piece.offset)
                records = _records(piece, kind, start, issues)
                yield start, records
                start += len(records)


@contextmanager
def _unreadable_as_issue(source: bytes | Path, issues: Issues) -> Iterator[None]:
    """What cannot be read at all becomes an issue, with line and column."""
    try:
        yield
    except NoObject as error:
        if (value := _loads(error.text, "", issues)) is not INVALID:
            hint = 'wrap it: {"images": [...], "annotations": [...], "categories": [...]}'
            issues.add("", f"the document is {shown(value)}, not an object", hint)
        raise NoDocument from None
    except Unreadable as error:
        line, column = line_and_column(source, error.offset)
        where = f"no valid JSON at line {line}, column {column}: "
        hint = "check the file at this place; was it cut off?"
        issues.add("", (where if error.offset else "") + error.problem, hint)
        raise NoDocument from None


def _records(piece: Piece, kind: type[S], start: int, issues: Issues) -> list[S]:
    """The records of a piece, the first of which is the `start`-th of its list."""
    try:
        return _decoder(kind).decode(piece.text)
    except REFUSED as error:
        before, name = issues.total, piece.key
        records = [
            _read_record(value, kind, f"/{name}/{index}", issues)
            for index, value in enumerate(_values(piece, start, issues), start)
        ]
        _never_let_pass(error, f"/{name}", before, issues)
        return records


def _values(piece: Piece, start: int, issues: Issues) -> list[Any]:
    """The elements of a piece: as Raw where it is JSON, else as Python reads it, NaN and all."""
    try:
        return msgspec.json.decode(piece.text, type=list[msgspec.Raw])
    except REFUSED:
        values: list[Any] = _parsed(piece)
        for index, value in enumerate(values, start):
            _note_non_finite(value, f"/{_escaped(piece.key)}/{index}", issues)
        return values


def _check_other(piece: Piece, issues: Issues) -> None:
    """A member that is none of the wanted lists must be JSON all the same."""
    try:
        msgspec.json.decode(piece.text, type=msgspec.Raw)
    except REFUSED as error:
        before, pointer = issues.total, f"/{_escaped(piece.key)}"
        _note_non_finite(_parsed(piece), pointer, issues)
        _never_let_pass(error, pointer, before, issues)


def _never_let_pass(error: Exception, pointer: str, before: int, issues: Issues) -> None:
    """What the strict decoder refused is wrong, whatever the tolerant one says."""
    if issues.total == before:
        issues.add(pointer, f"cannot be read: {error}", "write it as plain JSON")


def _parsed(piece: Piece) -> Any:
    """By the standard decoder, which tells the place and reads NaN.

    Raises:
        Unreadable: the text is no JSON.
    """
    try:
        return json.loads(piece.text.decode())
    except json.JSONDecodeError as error:
        offset = len(error.doc[: error.pos].encode("utf-8", "surrogatepass"))
        raise Unreadable(piece.offset + offset, error.msg) from None
    except UnicodeDecodeError as error:
        raise Unreadable(piece.offset + error.start, "the text is not UTF-8") from None
    except RecursionError:
        raise Unreadable(piece.offset, "the text is nested too deeply") from None
    except ValueError as error:  # absurd numbers
        raise Unreadable(piece.offset, str(error)) from None


def _loads(data: bytes | msgspec.Raw, pointer: str, issues: Issues) -> Any:
    """A value that stands for itself, by the standard decoder; `INVALID` if it cannot."""
    try:
        value = json.loads(bytes(data))
    except (ValueError, RecursionError) as error:
        issues.add(pointer, f"no valid JSON: {error}", "write the file as UTF-8 JSON")
        return INVALID
    _note_non_finite(value, pointer, issues)
    return value


@cache
def _decoder(kind: type[S]) -> "msgspec.json.Decoder[list[S]]":
    return msgspec.json.Decoder(list[kind])  # type: ignore[valid-type]


def _read_record(value: Any, record: type[S], pointer: str, issues: Issues) -> S:
    if isinstance(value, msgspec.Raw):
        try:
            return msgspec.json.decode(value, type=record)
        except REFUSED:
            value = _loads(value, pointer, issues)
    return record(**_read_fields(value, msgspec.structs.fields(record), pointer, issues))


def _read_fields(
    value: Any, fields: tuple[msgspec.structs.FieldInfo, ...], pointer: str, issues: Issues
) -> dict[str, Any]:
    if not isinstance(value, dict):
        if value is not INVALID:
            issues.add(pointer, f"should be an object, but is {shown(value)}", "use {...}")
        return dict.fromkeys((field.name for field in fields), INVALID)
    read = {}
    for field in fields:
        if field.type is msgspec.Raw:
            read[field.name] = _raw(value.get(field.name), f"{pointer}/{field.name}", issues)
        elif field.name in value:
            read[field.name] = _read_field(value[field.name], field, pointer, issues)
        elif field.required:
            hint = f"add {EXPECTED[field.name]}"
            issues.add(pointer, f'"{field.name}" is missing', hint)
            read[field.name] = INVALID
    return read


def _raw(value: Any, pointer: str, issues: Issues) -> msgspec.Raw:
    try:
        return msgspec.Raw(msgspec.json.encode(value))
    except UnicodeEncodeError:
        issues.add(pointer, "holds characters that are no text", "write it anew")
        return msgspec.Raw(b"null")


def _read_field(value: Any, field: msgspec.structs.FieldInfo, pointer: str, issues: Issues) -> Any:
    if any(True for _ in _non_finite(value, "")):  # said by the walk over the document
        return INVALID
    try:
        read = msgspec.convert(value, field.type)
    except (msgspec.ValidationError, UnicodeEncodeError):  # or a lone surrogate
        problem = f"should be {EXPECTED[field.name]}, but is {shown(value)}"
        issues.add(f"{pointer}/{field.name}", problem, "write it in this form")
        return INVALID
    if isinstance(read, str) and not is_text(read):
        issues.add(f"{pointer}/{field.name}", "holds characters that are no text", "rename it")
        return INVALID
    return read


def is_text(value: str) -> bool:
    """No control characters, which databases and file systems refuse, and no lone surrogates."""
    return value.isprintable() or not any(unicodedata.category(c) in ("Cc", "Cs") for c in value)


def _note_non_finite(value: Any, pointer: str, issues: Issues) -> None:
    for place, number in _non_finite(value, pointer):
        issues.add(place, f"{number} is not a number that JSON knows", "replace or remove it")


def _escaped(key: str) -> str:
    return key.replace("~", "~0").replace("/", "~1")


def _non_finite(value: Any, pointer: str) -> Iterator[tuple[str, float]]:
    """Every NaN and infinity in the tree, with its RFC 6901 pointer."""
    if isinstance(value, float):
        if not math.isfinite(value):
            yield pointer, value
    elif isinstance(value, dict):
        for key, item in value.items():
            if isinstance(item, float | dict | list):
                yield from _non_finite(item, f"{pointer}/{_escaped(str(key))}")
    elif isinstance(value, list):
        for index, item in enumerate(value):
            if isinstance(item, float | dict | list):
                yield from _non_finite(item, f"{pointer}/{index}")


def shown(value: object) -> str:
    """A value in few words, for a message."""
    if isinstance(value, dict):
        return "an object"
    if value is None:
        return "null"
    text = json.dumps(value, ensure_ascii=True) if isinstance(value, list) else repr(value)
    return text if len(text) <= 40 else f"{text[:37]}..."


def first_of_each(values: Iterable[Any], pointer: str, what: str, issues: Issues) -> dict[Any, int]:
    """{value: index of its first use}; each later use is an issue.

    `INVALID` values are left out.

    Args:
        pointer: the JSON pointer with {} for the index, such as "/images/{}/id".
    """
    first: dict[Any, int] = {}
    for index, value in enumerate(values):
        if value is not INVALID and first.setdefault(value, index) != index:
            issues.add(
                pointer.format(index),
                f"{what} {value!r} was used before, at {pointer.format(first[value])}",
                f"give each its own {what}",
            )
    return first
