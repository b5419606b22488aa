"""The user's own masks as proposals: RLE or polygons per annotation.

Two forms of the document (a dict, a list, or the path of a JSON file that holds one):
`{"<annotation id>": [{"segmentation": ..., "score": 0.9}, ...]}`, or COCO-style annotations
`[{"annotation_id": ..., "segmentation": ..., "score": 0.9}, ...]`. The score is 0.5 where left out.
"""

import hashlib
import json
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from sapnet.data.annotations.decoding import Issues, shown
from sapnet.data.annotations.json_stream import Unreadable, opened, pieces
from sapnet.data.depth import parse
from sapnet.data.masks import (
    MAX_PIXELS,
    Size,
    check_polygons,
    check_rle,
    check_size,
    checked_rle,
    decode,
)
from sapnet.errors import InvalidDataset, InvalidGeometry, ValidationIssue
from sapnet.types import ByteArray, ImageInfo, PointAnnotation, PointSet, RawProposals

Document = dict[str, Any] | list[Any]
Entry = tuple[str, Any, Any]
"""JSON pointer, annotation id as written, and one of its masks."""
DEFAULT_SCORE = 0.5
MAX_ANNOTATIONS = 10_000_000
_BATCH = 500  # masks that are checked together
_UNKNOWN = (MAX_PIXELS, MAX_PIXELS)  # the size of an image that is not known yet
_FORMS = 'use {"<annotation id>": [{"segmentation": ...}]} or a list with "annotation_id"'


class GivenGenerator:
    """Hands out masks that the user brings."""

    name = "given"
    calibrated = False

    def __init__(
        self, document: Document | str | os.PathLike[str], points: PointSet | None = None
    ) -> None:
        """Reads and checks the whole document.

        Args:
            points: the dataset; with it, unknown ids and masks of a wrong size are found here
                rather than at the image.

        Raises:
            InvalidDataset: lists all issues.
        """
        parsed = document if isinstance(document, dict | list) else _read(Path(document))
        self._masks, issues = _checked(parsed, _sizes(points) if points is not None else None)
        if issues:
            raise InvalidDataset(issues)

    def fingerprint(self) -> str:
        """sha256 hex of the masks and their scores."""
        content = json.dumps([self.name, 1, sorted(self._masks.items())], sort_keys=True)
        return hashlib.sha256(content.encode()).hexdigest()

    def propose(
        self, image: ByteArray, info: ImageInfo, annotations: Sequence[PointAnnotation]
    ) -> Iterator[RawProposals]:
        """The masks given for each annotation; none where the document names none."""
        for annotation in annotations:
            given = self._masks.get(annotation.id, [])
            masks = np.zeros((len(given), info.height, info.width), bool)
            for place, (segmentation, _) in enumerate(given):
                masks[place] = _decode(segmentation, annotation.id, info)
            scores = np.array([score for _, score in given], np.float32)
            yield RawProposals(masks, scores, (self.name,) * len(given))


def check_given(
    text: bytes, sizes_of: Callable[[set[int]], Mapping[int, Size]]
) -> list[ValidationIssue]:
    """Return what is wrong with masks, as a run with them would find it.

    Args:
        text: of the document, of which a part at a time is read.
        sizes_of: called with some ids of annotations; gives the (h, w) of the images of those that
            there are, by the annotation's id.
    """
    issues = Issues()
    entries = _entries_of_text(text, issues)
    while batch := list(islice(entries, _BATCH)):
        ids = (_integer(key) for _, key, _ in batch)
        sizes = sizes_of({id_ for id_ in ids if id_ is not None})
        for entry in batch:
            _check(*entry, sizes, issues)
    return issues.listed()


def _checked(
    document: Document, sizes: Mapping[int, Size] | None
) -> tuple[dict[int, list[tuple[Any, float]]], list[ValidationIssue]]:
    """Segmentations and scores by annotation id, and all that is wrong."""
    issues = Issues()
    masks: dict[int, list[tuple[Any, float]]] = {}
    for pointer, key, entry in _entries(document, issues):
        checked = _check(pointer, key, entry, sizes, issues)
        if checked:
            annotation_id, segmentation, score = checked
            masks.setdefault(annotation_id, []).append((segmentation, score))
    return masks, issues.listed()


def _read(path: Path) -> Document:
    try:
        parsed = parse(path.read_bytes())
    except FileNotFoundError:
        raise InvalidDataset(
            [ValidationIssue("", f"{path} is not there", "give the path of a file")]
        ) from None
    except ValueError as error:
        raise InvalidDataset([ValidationIssue("", f"not JSON: {error}", _FORMS)]) from error
    if not isinstance(parsed, dict | list):
        raise InvalidDataset([ValidationIssue("", "neither an object nor a list", _FORMS)])
    return parsed


def _sizes(points: PointSet) -> dict[int, Size]:
    image_size = {image.id: image.size for image in points.images}
    return {a.id: image_size[a.image_id] for a in points.annotations}


def _entries(document: Document, issues: Issues) -> Iterator[Entry]:
    """(pointer, annotation id as written, entry) of every mask, in either form."""
    if isinstance(document, list):
        for index, entry in enumerate(document):
            yield f"/{index}", _key_of(entry), entry
        return
    for key, entries in document.items():
        pointer = _pointer(key)
        if isinstance(entries, list):
            for index, entry in enumerate(entries):
                yield f"{pointer}/{index}", key, entry
        else:
            issues.add(pointer, "not a list of masks", _FORMS)


def _entries_of_text(text: bytes, issues: Issues) -> Iterator[Entry]:
    """`_entries` of a document that is read in pieces."""
    is_list = text.lstrip().startswith(b"[")
    with opened(b'{"":%b}' % text if is_list else text) as file:
        pointer, index = "", 0
        try:
            for piece in pieces(file, most_members=MAX_ANNOTATIONS):
                if piece.first:
                    pointer, index = "" if is_list else _pointer(piece.key), 0
                if not piece.listed:
                    issues.add(pointer, "not a list of masks", _FORMS)
                    continue
                for entry in parse(piece.text):
                    key = _key_of(entry) if is_list else piece.key
                    yield f"{pointer}/{index}", key, entry
                    index += 1
        except (Unreadable, ValueError) as error:
            issues.add("", f"not JSON: {error}", _FORMS)


def _key_of(entry: Any) -> Any:
    return entry.get("annotation_id") if isinstance(entry, dict) else None


def _pointer(key: str) -> str:
    return "/" + key.replace("~", "~0").replace("/", "~1")


def _check(
    pointer: str,
    key: Any,
    entry: Any,
    sizes: Mapping[int, Size] | None,
    issues: Issues,
) -> tuple[int, Any, float] | None:
    """(annotation id, segmentation, score), or None and an issue for each thing that is wrong."""
    if not isinstance(entry, dict):
        issues.add(pointer, "not an object", _FORMS)
        return None
    before = issues.total
    annotation_id = _integer(key)
    if annotation_id is None:
        issues.add(pointer, f"annotation id {shown(key)} is not an integer", _FORMS)
    elif sizes is not None and annotation_id not in sizes:
        hint = "use the ids of the points document"
        issues.add(pointer, f"no annotation has the id {shown(annotation_id)}", hint)
    score = entry.get("score", DEFAULT_SCORE)
    if isinstance(score, bool) or not isinstance(score, int | float) or not 0 <= score <= 1:
        issues.add(f"{pointer}/score", f"{shown(score)} is no score", "a number from 0 to 1")
    segmentation = entry.get("segmentation")
    size = sizes.get(annotation_id) if sizes and annotation_id is not None else None
    try:
        _check_segmentation(segmentation, size)
    except InvalidGeometry as error:
        issues.add(f"{pointer}/segmentation", str(error), error.hint)
    if issues.total > before or annotation_id is None:
        return None
    return annotation_id, segmentation, float(score)


def _integer(key: Any) -> int | None:
    if isinstance(key, bool) or not isinstance(key, int | str):
        return None
    try:
        return int(key)
    except ValueError:
        return None


def _check_segmentation(segmentation: Any, image: tuple[int, int] | None) -> None:
    """Refuse what is no mask of the image.

    Args:
        segmentation: an RLE or polygons.
        image: (h, w); None where it is not known: then an RLE is checked against its own size, and
            polygons only when there is an image.

    Raises:
        InvalidGeometry: says why.
    """
    if isinstance(segmentation, dict):
        size = check_size(segmentation.get("size"))
        check_rle(segmentation["size"], segmentation.get("counts"), image or size)
    else:
        check_polygons(segmentation, image or _UNKNOWN)


def _decode(segmentation: Any, annotation_id: int, info: ImageInfo) -> np.ndarray:
    """(H, W) bool. Raises InvalidDataset where it is no mask of the image."""
    try:
        return decode(checked_rle(segmentation, info.size))
    except InvalidGeometry as error:
        issue = ValidationIssue(f"/{annotation_id}", f"{error} (image {info.id})", error.hint)
        raise InvalidDataset([issue]) from error
