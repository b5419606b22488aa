"""Decode a COCO-style document into typed records, and say everything that is wrong on the way.

The good path is one typed msgspec decode. Only when that fails is the document read again by the
tolerant standard decoder, record by record and field by field, so that one answer lists every
mistake. A field that could not be read is `BAD` in its record; the checks that follow leave it out.
"""

import json
import math
import unicodedata
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Annotated, Any, TypeVar

import msgspec

from sapnet.errors import Issue

BAD: Any = msgspec.UNSET
MAX_ISSUES = 1000

Id = Annotated[int, msgspec.Meta(ge=-(2**63), le=2**63 - 1)]
Size = Annotated[int, msgspec.Meta(ge=1, le=2**31 - 1)]


class ImageRecord(msgspec.Struct, gc=False):
    id: Id
    file_name: str
    width: Size | None = None
    height: Size | None = None


class CategoryRecord(msgspec.Struct, gc=False):
    id: Id
    name: str


class AnnotationRecord(msgspec.Struct, gc=False):
    id: Id
    image_id: Id
    category_id: Id
    point: tuple[float, float] | None = None
    keypoints: list[float] | None = None
    bbox: list[float] | None = None
    iscrowd: int | bool = 0
    segmentation: msgspec.Raw = msgspec.Raw()  # not read, only known to be there

    @property
    def has_segmentation(self) -> bool:
        return bytes(self.segmentation) not in (b"", b"null")


class Document(msgspec.Struct, gc=False):
    """The three lists of COCO; every other member of the file is skipped."""

    images: list[ImageRecord]
    annotations: list[AnnotationRecord]
    categories: list[CategoryRecord]


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
    "area": "a number of pixels",
    "segmentation": "polygons [[x, y, ...], ...] or an RLE {size, counts}",
}


class Issues:
    """Collects what is wrong; keeps the first `MAX_ISSUES` and counts the others."""

    def __init__(self) -> None:
        self.total = 0
        self._kept: list[Issue] = []

    def add(self, pointer: str, problem: str, hint: str) -> None:
        self.total += 1
        if self.total <= MAX_ISSUES:
            self._kept.append(Issue(pointer, problem, hint))

    def listed(self) -> list[Issue]:
        """What was found, in order; past the cap, a last issue says how many more there are."""
        if self.total <= MAX_ISSUES:
            return list(self._kept)
        more = self.total - MAX_ISSUES
        return [*self._kept, Issue("", f"{more} more problems are not listed", "mend these first")]


# What decoders raise on text that they refuse; wrong UTF-8 is a ValueError.
REFUSED = (msgspec.MsgspecError, ValueError, RecursionError)

S = TypeVar("S", bound=msgspec.Struct)


def decode(source: bytes | Path, kind: type[S], issues: Issues) -> S | None:
    """Decode into `kind`, whose fields are lists of records.

    None: the text is no JSON object at all (said in `issues`). Records that are partly unreadable
    keep their place in the list, with `BAD` in the fields concerned.
    """
    data = source.read_bytes() if isinstance(source, Path) else source
    data = data.removeprefix(b"\xef\xbb\xbf")
    try:
        return msgspec.json.decode(data, type=kind)
    except REFUSED as error:
        document = _decode_tolerantly(data, kind, issues)
        if not issues.total:  # never let pass what the strict decoder refused
            issues.add("", f"the document cannot be read: {error}", "write it as plain JSON")
        return document


def _decode_tolerantly(data: bytes, kind: type[S], issues: Issues) -> S | None:
    try:
        tree: Any = msgspec.json.decode(data, type=dict[str, msgspec.Raw])
    except REFUSED:  # not even JSON, or with a NaN somewhere
        tree = _loads(data, "", issues)
    if tree is BAD:
        return None
    if not isinstance(tree, dict):
        hint = 'wrap it: {"images": [...], "annotations": [...], "categories": [...]}'
        issues.add("", f"the document is {shown(tree)}, not an object", hint)
        return None
    lists = {
        field.name: _read_list(tree, field.name, field.type.__args__[0], issues)
        for field in msgspec.structs.fields(kind)
    }
    return kind(**lists)


def _loads(data: bytes | msgspec.Raw, pointer: str, issues: Issues) -> Any:
    """By the standard decoder, which tells line and column and reads NaN; `BAD` if it cannot."""
    text = bytes(data)
    try:
        tree = json.loads(text)
    except json.JSONDecodeError as error:
        place = f"line {error.lineno}, column {error.colno}"
        what = "the file is empty" if not text.strip() else f"no valid JSON at {place}: {error.msg}"
        issues.add(pointer, what, "check the file at this place; was it cut off?")
        return BAD
    except (ValueError, RecursionError) as error:  # not UTF-8, absurd numbers, absurd nesting
        issues.add(pointer, f"no valid JSON: {error}", "write the file as UTF-8 JSON")
        return BAD
    for place, value in _non_finite(tree, pointer):
        issues.add(place, f"{value} is not a number that JSON knows", "replace or remove it")
    return tree


def _read_list(tree: dict[str, Any], name: str, record: type[S], issues: Issues) -> list[S]:
    if name not in tree:
        issues.add("", f'the list "{name}" is missing', f'add "{name}": [...]')
        return BAD
    values = tree[name]
    if isinstance(values, msgspec.Raw):
        try:
            values = msgspec.json.decode(values, type=list[msgspec.Raw])
        except REFUSED:
            values = _loads(values, f"/{name}", issues)
    if values is BAD:
        return BAD
    if not isinstance(values, list):
        issues.add(f"/{name}", f"should be a list, but is {shown(values)}", "use [...]")
        return BAD
    return [
        _read_record(value, record, f"/{name}/{index}", issues)
        for index, value in enumerate(values)
    ]


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
        if value is not BAD:
            issues.add(pointer, f"should be an object, but is {shown(value)}", "use {...}")
        return dict.fromkeys((field.name for field in fields), BAD)
    read = {}
    for field in fields:
        if field.type is msgspec.Raw:
            read[field.name] = _raw(value.get(field.name), f"{pointer}/{field.name}", issues)
        elif field.name in value:
            read[field.name] = _read_field(value[field.name], field, pointer, issues)
        elif field.required:
            hint = f"add {EXPECTED[field.name]}"
            issues.add(pointer, f'"{field.name}" is missing', hint)
            read[field.name] = BAD
    return read


def _read_field(value: Any, field: msgspec.structs.FieldInfo, pointer: str, issues: Issues) -> Any:
    if any(True for _ in _non_finite(value, "")):  # said by the walk over the document
        return BAD
    try:
        read = msgspec.convert(value, field.type)
    except (msgspec.ValidationError, UnicodeEncodeError):  # or a lone surrogate
        problem = f"should be {EXPECTED[field.name]}, but is {shown(value)}"
        issues.add(f"{pointer}/{field.name}", problem, "write it in this form")
        return BAD
    if isinstance(read, str) and not is_text(read):
        issues.add(f"{pointer}/{field.name}", "holds characters that are no text", "rename it")
        return BAD
    return read


def is_text(value: str) -> bool:
    """No control characters, which databases and file systems refuse, and no lone surrogates."""
    return value.isprintable() or not any(unicodedata.category(c) in ("Cc", "Cs") for c in value)


def _non_finite(value: Any, pointer: str) -> Iterator[tuple[str, float]]:
    """Every NaN and infinity in the tree, with its RFC 6901 pointer."""
    if isinstance(value, float):
        if not math.isfinite(value):
            yield pointer, value
    elif isinstance(value, dict):
        for key, item in value.items():
            if isinstance(item, float | dict | list):
                escaped = str(key).replace("~", "~0").replace("/", "~1")
                yield from _non_finite(item, f"{pointer}/{escaped}")
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
    """{value: index of its first use}; each later use is an issue. `BAD` values are left out.

    pointer: the JSON pointer with {} for the index, such as "/images/{}/id".
    """
    first: dict[Any, int] = {}
    for index, value in enumerate(values):
        if value is not BAD and first.setdefault(value, index) != index:
            issues.add(
                pointer.format(index),
                f"{what} {value!r} was used before, at {pointer.format(first[value])}",
                f"give each its own {what}",
            )
    return first
def _raw(value: Any, pointer: str, issues: Issues) -> msgspec.Raw:
    try:
        return msgspec.Raw(msgspec.json.encode(value))
    except UnicodeEncodeError:
        issues.add(pointer, "holds characters that are no text", "write it anew")
        return msgspec.Raw(b"null")


