"""COCO results as a file has them, checked and matched with the ground truth that they are of."""

from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sapnet.data.annotations.decoding import shown
from sapnet.data.annotations.frames import NAMED, ImageFrame, frames_of
from sapnet.data.annotations.ground_truth import Orientations, Warn
from sapnet.data.depth import parse
from sapnet.data.exif import AS_STORED
from sapnet.data.file_names import FileNames
from sapnet.data.masks import Size, check_box, checked_rle, tight_box
from sapnet.data.orientation import exchanged, stored_box, stored_mask, upright_size
from sapnet.errors import InvalidGeometry, ValidationIssue
from sapnet.types import Rle

_LISTED = 3  # issues in a message
_REQUIRED = ("category_id", "segmentation", "score")
_HIGHEST_SCORE = 1e9


def read_results(
    path: Path,
    truth: Mapping[str, Any],
    warn: Warn,
    orientations: Orientations | None = None,
) -> list[dict[str, Any]]:
    """COCO results of the images and classes of a ground truth.

    A result names its image by `image_id` or `file_name`. Its mask is an RLE, compressed or not, or
    polygons; it comes back as a compressed RLE. A box that is left out is that of the mask.

    Args:
        truth: as `read_truth` gives it.
        warn: called with what was left out, since the truth has no such image or class, and with
            what was mapped.
        orientations: image id -> EXIF orientation, where the images are at hand. Masks of the
            upright image are then mapped to stored pixels (`sapnet.data.annotations.frames`).

    Raises:
        OSError: the file cannot be read.
        ValueError: it holds no results, results that cannot be read, or none that fits the truth.
    """
    try:
        results = parse(path.read_bytes())
    except ValueError as error:
        raise ValueError(f"{path.name} is no JSON: {error}") from error
    if not isinstance(results, list):
        hint = ""
        if isinstance(results, dict) and "annotations" in results:
            hint = ': give its "annotations" alone, each with a score'
        raise ValueError(f"{path.name} is no list of COCO results{hint}")
    if not results:
        raise ValueError(f"{path.name} holds no results: there is nothing to measure")
    reader = _Reader(truth)
    fitting = [entry for index, result in enumerate(results) if (entry := reader(index, result))]
    reader.raise_issues(path.name, len(results))
    checked = _in_stored_pixels(fitting, reader, orientations, warn)
    reader.raise_issues(path.name, len(results))
    skipped = reader.skipped(len(results))
    if not checked:
        reasons = "; ".join(issue.problem for issue in skipped)
        raise ValueError(f"{path.name}: no result fits the ground truth: {reasons}")
    for issue in skipped:
        warn(issue)
    return checked


Entry = tuple[int, dict[str, Any]]
"""A result that fits an image and a class of the truth, after its place in the file."""


class _Reader:
    """Says of one result after the other what it is of, and collects what is wrong."""

    def __init__(self, truth: Mapping[str, Any]) -> None:
        self.images = {image["id"]: image for image in truth["images"]}
        self.sizes: dict[int, Size] = {
            id_: (image["height"], image["width"]) for id_, image in self.images.items()
        }
        self._by_name = {image["file_name"]: image["id"] for image in truth["images"]}
        self._file_names = FileNames(self._by_name)
        self._names = {category["id"]: category["name"] for category in truth["categories"]}
        self._issues: list[ValidationIssue] = []
        self._unknown_images: Counter[Any] = Counter()
        self._unknown_classes: Counter[int] = Counter()

    def __call__(self, index: int, result: Any) -> Entry | None:
        """The result, with its image's id; None where it is wrong or does not fit the truth."""
        if not isinstance(result, dict):
            self.note(f"/{index}", f"a result is an object, not {shown(result)}", "")
            return None
        missing = [name for name in _REQUIRED if name not in result]
        if "image_id" not in result and "file_name" not in result:
            missing.insert(0, "image_id")
        if missing:
            self.note(f"/{index}", f"it lacks {', '.join(missing)}", "")
            return None
        before = len(self._issues)
        image_id = self._image_of(index, result)
        category_id = self._category_of(index, result["category_id"])
        score = result["score"]
        if type(score) not in (int, float) or not abs(score) <= _HIGHEST_SCORE:
            self.note(f"/{index}/score", f"{shown(score)} is no score", "give a number")
        if len(self._issues) > before or image_id is None or category_id is None:
            return None
        return index, {**result, "image_id": image_id}

    def _image_of(self, index: int, result: Mapping[str, Any]) -> int | None:
        if "image_id" not in result:
            return self._image_named(index, result["file_name"])
        image_id = result["image_id"]
        if type(image_id) is not int:
            hint = "give the id of the ground truth's image as a whole number"
            if isinstance(image_id, str) and self._file_names.match(image_id):
                hint = 'a name belongs into "file_name"'
            self.note(f"/{index}/image_id", f"{shown(image_id)} is no whole number", hint)
            return None
        if image_id not in self.sizes:
            self._unknown_images[image_id] += 1
            return None
        return image_id

    def _image_named(self, index: int, name: Any) -> int | None:
        """Of the image whose file the truth calls so, by the rule of all documents."""
        if not isinstance(name, str):
            self.note(f"/{index}/file_name", f"{shown(name)} is no text", "name the image's file")
            return None
        match = self._file_names.match(name)
        if match is None:
            self._unknown_images[name] += 1
            return None
        if len(match.names) > 1:
            problem = f"{shown(name)} could be any of {_few([shown(n) for n in match.names])}"
            self.note(f"/{index}/file_name", problem, "name it as the ground truth does")
            return None
        return self._by_name[match.names[0]]

    def _category_of(self, index: int, category_id: Any) -> int | None:
        if type(category_id) is not int:
            ids = [id_ for id_, name in self._names.items() if name == category_id]
            hint = f"give the id of the class as a whole number: {ids[0]}" if ids else self._classes
            self.note(f"/{index}/category_id", f"{shown(category_id)} is no whole number", hint)
            return None
        if category_id not in self._names:
            self._unknown_classes[category_id] += 1
            return None
        return category_id

    @property
    def _classes(self) -> str:
        return f"the ground truth has {_few([f'{i} ({n})' for i, n in self._names.items()])}"

    def note(self, pointer: str, problem: str, hint: str) -> None:
        """Something is wrong with a result."""
        self._issues.append(ValidationIssue(pointer, problem, hint))

    def raise_issues(self, name: str, total: int) -> None:
        """Raise ValueError where anything is wrong."""
        if not self._issues:
            return
        wrong = len({issue.pointer.split("/")[1] for issue in self._issues})
        listed = "; ".join(
            f"result {issue.pointer[1:]}: {issue.problem}"
            + (f" ({issue.hint})" if issue.hint else "")
            for issue in self._issues[:_LISTED]
        )
        more = f"; and {len(self._issues) - _LISTED} more" if len(self._issues) > _LISTED else ""
        raise ValueError(f"{name}: {wrong} of {total} results cannot be used: {listed}{more}")

    def skipped(self, total: int) -> list[ValidationIssue]:
        """What fits no image or no class of the ground truth."""
        reasons = []
        if self._unknown_images:
            few = _few([shown(name) for name in self._unknown_images])
            count = self._unknown_images.total()
            problem = f"{count} of {total} results are of images that the ground truth lacks: {few}"
            reasons.append(ValidationIssue("", problem, "name images as the ground truth does"))
        if self._unknown_classes:
            few = _few([shown(id_) for id_ in self._unknown_classes])
            count = self._unknown_classes.total()
            problem = f"{count} of {total} results are of classes that it lacks: {few}"
            reasons.append(ValidationIssue("", f"{problem}; {self._classes}", self._classes))
        return reasons


def _in_stored_pixels(
    entries: list[Entry], reader: _Reader, orientations: Orientations | None, warn: Warn
) -> list[dict[str, Any]]:
    """The results with masks and boxes in pixels as stored; what is wrong goes to the reader."""
    upright: dict[int, int] = {}
    if orientations is not None:
        frames = frames_of(_frames(entries, reader, orientations), "stored")
        upright = frames.upright
        for warning in frames.warnings:
            warn(warning)
    checked = []
    for index, result in entries:
        id_ = result["image_id"]
        try:
            checked.append(_checked(result, reader.sizes[id_], upright.get(id_, AS_STORED)))
        except InvalidGeometry as error:
            hint = error.hint
            if _size_of(result) == exchanged(reader.sizes[id_]) and orientations is None:
                hint = "if its EXIF has the image turned, give --images: masks are then mapped"
            reader.note(f"/{index}/segmentation", str(error), hint)
    return checked


def _frames(entries: list[Entry], reader: _Reader, orientations: Orientations) -> list[ImageFrame]:
    """Of each image that has results: the first size that one of its RLEs states."""
    declared: dict[int, Size | None] = {}
    for _, result in entries:
        id_ = result["image_id"]
        declared[id_] = declared.get(id_) or _size_of(result)
    return [
        ImageFrame(id_, reader.images[id_]["file_name"], size, reader.sizes[id_], orientations(id_))
        for id_, size in declared.items()
    ]


def _size_of(result: Mapping[str, Any]) -> Size | None:
    """(h, w) that a result's RLE states."""
    segmentation = result["segmentation"]
    size = segmentation.get("size") if isinstance(segmentation, dict) else None
    if not isinstance(size, list) or len(size) != 2 or any(type(side) is not int for side in size):
        return None
    return size[0], size[1]


def _checked(result: dict[str, Any], stored: Size, orientation: int) -> dict[str, Any]:
    """A result in stored pixels, which is drawn on the image as its orientation has it shown."""
    size = upright_size(stored, orientation)
    rle: Rle = checked_rle(result["segmentation"], size)
    box = result.get("bbox")
    if box is not None:
        check_box(box, size)
    if orientation != AS_STORED:
        rle = stored_mask(rle, orientation)
        box = box if box is None else stored_box(box, orientation, stored)
    return {**result, "segmentation": rle, "bbox": tight_box(rle) if box is None else box}


def _few(names: list[str]) -> str:
    more = f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
    return ", ".join(names[:NAMED]) + more
