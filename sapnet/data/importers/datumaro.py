"""Datumaro's JSON: items with annotations, a file for each subset; read in pieces.

Points and boxes count; polygons are as in COCO, a box and ground truth. Places are
FILE#/items/3/annotations/2.
"""

import posixpath
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec

from sapnet.data.annotations.decoding import REFUSED, ReadProgress
from sapnet.data.annotations.json_stream import Unreadable, pieces
from sapnet.data.importers.base import Conversion
from sapnet.data.subsets import by_subset, subset_of_path

_AGAIN = "export it again, as Datumaro"
_ABSENT = 0  # of a point's visibility: absent, hidden, visible


def read(files: Sequence[tuple[str, Path]], conversion: Conversion, progress: ReadProgress) -> None:
    """Read Datumaro's files, one a subset, into the conversion."""
    done = 0
    for name, path in sorted(files, key=by_subset):
        try:
            _file(name, path, conversion)
        except (Unreadable, *REFUSED) as error:
            conversion.issues.add(f"{name}#", f"it cannot be read: {error}", _AGAIN)
        done += path.stat().st_size
        progress(done)


def _file(name: str, path: Path, conversion: Conversion) -> None:
    labels: list[str] = []
    with path.open("rb") as file:
        for piece in pieces(file):
            if piece.key == "categories":
                labels = _labels(msgspec.json.decode(piece.text))
    number = 0
    with path.open("rb") as file:
        for piece in pieces(file, lambda key: key != "items"):
            if piece.key != "items" or not piece.listed:
                continue
            for item in msgspec.json.decode(piece.text):
                _item(item, f"{name}#/items/{number}", name, labels, conversion)
                number += 1


def _labels(categories: Any) -> list[str]:
    label = categories.get("label") if isinstance(categories, dict) else None
    listed = label.get("labels") if isinstance(label, dict) else None
    entries = listed if isinstance(listed, list) else []
    return [str(e.get("name", "")) if isinstance(e, dict) else "" for e in entries]


def _item(item: Any, place: str, file: str, labels: list[str], conversion: Conversion) -> None:
    if not isinstance(item, dict) or not isinstance(item.get("id"), str) or not item["id"]:
        conversion.issues.add(place, "the item has no id", _AGAIN)
        return
    image = item["image"] if isinstance(item.get("image"), dict) else {}
    path = image.get("path")
    name = path if isinstance(path, str) and path else item["id"]
    size = image.get("size")
    sides = size if isinstance(size, list) and len(size) == 2 else []
    whole = len(sides) == 2 and all(type(side) is int and side > 0 for side in sides)
    stem = posixpath.splitext(posixpath.basename(file))[0]
    image_id = conversion.image(
        name,
        (sides[0], sides[1]) if whole else None,
        place,
        named_subset=subset_of_path(file),
        folder=stem,
    )
    annotations = item.get("annotations")
    if annotations is not None and not isinstance(annotations, list):
        conversion.issues.add(f"{place}/annotations", "it should be a list", _AGAIN)
        return
    for number, annotation in enumerate(annotations or []):
        own = f"{place}/annotations/{number}"
        _annotation(annotation, image_id, own, labels, conversion)


def _annotation(
    annotation: Any, image_id: int, place: str, labels: list[str], conversion: Conversion
) -> None:
    annotation = annotation if isinstance(annotation, dict) else {}
    kind, label = annotation.get("type"), annotation.get("label_id")
    if kind not in ("points", "bbox", "polygon"):
        conversion.left_out[str(kind)] += 1
        return
    if type(label) is not int or not 0 <= label < len(labels) or not labels[label]:
        conversion.skip(place, "it has no label that the file names", "give it one")
        return
    try:
        numbers = [float(n) for n in annotation["bbox" if kind == "bbox" else "points"]]
        pairs = list(zip(numbers[0::2], numbers[1::2], strict=True))
    except (KeyError, TypeError, ValueError, OverflowError):
        conversion.skip(place, f"its {kind} are no list of numbers", _AGAIN)
        return
    group = annotation.get("group")
    group = group if type(group) is int and group else None
    if kind == "points":
        shown = annotation.get("visibility")
        if isinstance(shown, list) and len(shown) == len(pairs):
            pairs = [pair for pair, state in zip(pairs, shown, strict=True) if state != _ABSENT]
        conversion.object(image_id, labels[label], pairs, place, group)
    elif kind == "polygon":
        conversion.polygon(image_id, labels[label], pairs, place)
    elif len(pairs) != 2:
        conversion.skip(place, "its bbox has not four numbers", _AGAIN)
    else:
        (x, y), (width, height) = pairs
        box = (x, y, x + width, y + height)
        conversion.object(image_id, labels[label], [], place, group, box)
