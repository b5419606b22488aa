"""Read ground truth in COCO's form, checked so far that pycocotools cannot crash on it."""

from array import array
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import msgspec
import numpy as np
import numpy.typing as npt

from sapnet.data.annotations.decoding import (
    INVALID,
    CategoryEntry,
    Id,
    Issues,
    NoDocument,
    ReadProgress,
    RunLengths,
    Side,
    first_of_each,
    ignore_progress,
    read_list,
    read_lists,
)
from sapnet.data.annotations.document import repeats
from sapnet.data.annotations.frames import ImageFrame, frames_of, stated_frame
from sapnet.data.annotations.skipped import Lacking, TolerantIssues
from sapnet.data.exif import AS_STORED
from sapnet.data.masks import (
    Size,
    area,
    check_area,
    check_box,
    check_polygons,
    check_rle,
    check_size,
    checked_rle,
    from_polygons,
    tight_box,
)
from sapnet.data.orientation import (
    stored_box,
    stored_mask,
    stored_polygon,
    upright_size,
)
from sapnet.errors import InvalidDataset, InvalidGeometry, ValidationIssue
from sapnet.types import Rle


class TruthImage(msgspec.Struct, gc=False):
    """An image as the file has it."""

    id: Id
    width: Side
    height: Side
    file_name: str = ""


class TruthAnnotation(msgspec.Struct, gc=False):
    """An object as the file has it."""

    id: Id
    image_id: Id
    category_id: Id
    segmentation: list[list[float]] | RunLengths | None = None
    bbox: tuple[float, float, float, float] | None = None
    area: float | None = None
    iscrowd: int | bool = 0


Warn = Callable[[ValidationIssue], None]
Sizes = Mapping[int, Size]
"""Image id -> (h, w) of the image itself, in pixels."""


Orientations = Callable[[int], int]
"""Image id -> EXIF orientation of the image file."""


def read_truth(
    source: bytes | Path,
    sizes: Sizes | None = None,
    orientations: Orientations | None = None,
    warn: Warn | None = None,
) -> dict[str, Any]:
    """COCO instances as plain dicts, without the annotations that are wrong.

    The dict has "images", "annotations", "categories", "incomplete" and "left_out".

    Every annotation comes back with segmentation (polygons, or compressed RLE), bbox (xywh,
    pixels), area (pixels) and iscrowd; bbox and area are worked out where the file leaves them out.
    Polygons of fewer than three points cover nothing and are left out, as is every annotation that
    has no segmentation or is wrong; "incomplete" are the ids of the images of which an object was
    left out, and "left_out" says why, as a list of ValidationIssue.

    Args:
        sizes: of the images of the dataset that it is the ground truth of; an image that the file
            declares with another size is an issue. Of images that are not there, and without
            `sizes`, the declared size counts.
        orientations: of the images in `sizes`; what was drawn on the upright image
            (`sapnet.data.annotations.frames`) comes back in stored pixels. It is called where a
            declared size is exchanged, and for all images where `warn` is given or the document is
            stated to be upright.
        warn: called with what was mapped, assumed, or left out.

    Raises:
        InvalidDataset: lists every issue of images and categories, and ids used twice; also where
            no object is left.
    """
    truth = _Truth(source, sizes, orientations, warn)
    annotations = list(truth.annotations())
    truth.end()
    return {
        "images": [truth.described(image) for image in truth.images.values()],
        "annotations": [truth.completed(record) for record in annotations],
        "categories": [{"id": c.id, "name": c.name} for c in truth.categories.values()],
        "incomplete": sorted(truth.incomplete),
        "left_out": truth.left_out,
    }


def check_truth(
    source: bytes | Path,
    progress: ReadProgress = ignore_progress,
    sizes: Sizes | None = None,
    orientations: Orientations | None = None,
    warn: Warn | None = None,
) -> npt.NDArray[np.int64]:
    """The ids of a file's annotations, (N,), where `read_truth` would take it: in little memory.

    Args:
        progress: as `read_points` has it.
        sizes: as `read_truth` has it; `orientations` and `warn` too.

    Raises:
        InvalidDataset: as `read_truth`.
    """
    truth = _Truth(source, sizes, orientations, warn, progress)
    for _ in truth.annotations():
        pass
    truth.end()
    return np.asarray(truth.ids)


class _Truth:
    """A document that is being read: images and categories first, then annotations."""

    def __init__(
        self,
        source: bytes | Path,
        sizes: Sizes | None,
        orientations: Orientations | None,
        warn: Warn | None,
        progress: ReadProgress = ignore_progress,
    ) -> None:
        self._source, self._progress, self._warn = source, progress, warn
        self._issues = TolerantIssues()
        self._lacking, self._thin = Lacking(), Issues()
        self._objects = 0
        self.incomplete: set[int] = set()
        self.left_out: list[ValidationIssue] = []
        self.ids = array("q")
        self._id_places = array("q")
        kinds: dict[str, Any] = {"images": TruthImage, "categories": CategoryEntry}
        try:
            self._lists = read_lists(source, kinds, ("annotations",), self._issues)
        except NoDocument:
            self.end()
        self.images = _by_id(self._lists["images"], "images", "image id", self._issues)
        self.categories = _by_id(
            self._lists["categories"], "categories", "category id", self._issues
        )
        self._known_categories = {INVALID, *self.categories}
        self._actual = sizes or {}
        self._upright = self._drawn_upright(orientations, warn)
        self._sizes = self._image_sizes()

    def _drawn_upright(
        self, orientations: Orientations | None, warn: Warn | None
    ) -> dict[int, int]:
        """The orientation of the images whose coordinates are on the upright image."""
        sized = [
            (image, self._actual[id_])
            for id_, image in self.images.items()
            if id_ in self._actual and INVALID not in (image.width, image.height)
        ]
        swapped = any((i.width, i.height) == size != (i.height, i.width) for i, size in sized)
        stated = stated_frame(self._lists.get("info"))
        if orientations is None or not (swapped or warn or stated == "upright"):
            return {}
        frames = frames_of(
            (
                ImageFrame(i.id, i.file_name, (i.height, i.width), size, orientations(i.id))
                for i, size in sized
            ),
            stated,
        )
        for warning in frames.warnings:
            if warn:
                warn(warning)
        return frames.upright

    def described(self, image: TruthImage) -> dict[str, Any]:
        """An image of the document, with the size of the stored image."""
        record = msgspec.structs.asdict(image)
        if image.id in self._upright:
            record["height"], record["width"] = self._actual[image.id]
        return record

    def completed(self, record: TruthAnnotation) -> dict[str, Any]:
        """A checked annotation as `read_truth` gives it, in stored pixels."""
        image = self.images[record.image_id]
        result = _completed(record, image)
        orientation = self._upright.get(image.id)
        if orientation is not None:
            _move(result, orientation, self._actual[image.id])
        return result

    def _image_sizes(self) -> dict[int, Size]:
        """(h, w) that the coordinates of the images are in, of those whose size is right."""
        sizes: dict[int, Size] = {}
        records = () if self._lists["images"] is INVALID else self._lists["images"]
        for index, image in enumerate(records):
            if INVALID in (image.id, image.width, image.height):
                continue
            try:
                size = check_size((image.height, image.width))
            except InvalidGeometry as error:
                self._issues.add(f"/images/{index}", str(error), error.hint)
                continue
            height, width = self._actual.get(image.id, size)
            expected = upright_size((height, width), self._upright.get(image.id, AS_STORED))
            if size == expected:
                sizes.setdefault(image.id, size)
            else:
                declared = f"declared {image.width}×{image.height} pixels"
                problem = f"{declared}, but the dataset's image {image.id} has {width}×{height}"
                hint = (
                    "give masks for the images as they were sent, or as their EXIF has them shown"
                )
                self._issues.add(f"/images/{index}", problem, hint)
        return sizes

    def annotations(self) -> Iterator[TruthAnnotation]:
        """Each that is not left out, as it comes; what is wrong is raised by `end`."""
        if self._lists["annotations"] is INVALID:
            return
        issues = self._issues
        try:
            for start, records in read_list(
                self._source, "annotations", TruthAnnotation, issues, self._progress
            ):
                for index, record in enumerate(records, start):
                    self._check(record, index)
                    if index not in issues.indices:
                        self._objects += not record.iscrowd
                        yield record
                    elif record.image_id is not INVALID and record.iscrowd in (0, INVALID):
                        self.incomplete.add(record.image_id)
                issues.forget()
        except NoDocument:
            return

    def end(self) -> None:
        """Raises InvalidDataset where nothing can be used, and tells what was left out."""
        for again, first in repeats(np.arange(len(self.ids)), np.asarray(self.ids)):
            pointers = [f"/annotations/{self._id_places[i]}/id" for i in (again, first)]
            problem = f"annotation id {self.ids[again]} was used before, at {pointers[1]}"
            self._issues.refuse(pointers[0], problem, "give each its own annotation id")
        skipped = self._issues.skipped.listed()
        if self._lacking.total:
            hint = "figures are of the others; draw the masks of these too"
            skipped.append(self._lacking.issue("{} without a segmentation", hint))
        if issues := self._issues.listed():
            raise InvalidDataset(issues)
        if skipped and not self._objects:
            raise InvalidDataset(skipped)
        for issue in self._thin.listed():
            self._tell(issue)
        self.left_out = [replace(issue, problem=f"left out: {issue.problem}") for issue in skipped]
        for issue in self.left_out:
            self._tell(issue)

    def _tell(self, issue: ValidationIssue) -> None:
        if self._warn is not None:
            self._warn(issue)

    def _check(self, record: TruthAnnotation, index: int) -> None:
        pointer, issues, images = f"/annotations/{index}", self._issues, self.images
        if images and record.image_id is not INVALID and record.image_id not in images:
            issues.add(
                f"{pointer}/image_id", f"there is no image with id {record.image_id}", "list it"
            )
        if self.categories and record.category_id not in self._known_categories:
            what = f"there is no category with id {record.category_id}"
            issues.add(f"{pointer}/category_id", what, "list it")
        self._drop_thin(record, index)
        if record.id is not INVALID and index not in issues.indices:
            self.ids.append(record.id)
            self._id_places.append(index)
        size = self._sizes.get(record.image_id)  # of an image at fault nothing more is checked
        if size is None or index in issues.indices:
            return
        for name, check in _CHECKS.items():
            value = getattr(record, name)
            try:
                if value is not INVALID and value is not None:
                    check(value, size)
            except InvalidGeometry as error:
                issues.add(f"{pointer}/{name}", str(error), error.hint)

    def _drop_thin(self, record: TruthAnnotation, index: int) -> None:
        """Leave out polygons that cover nothing, and the annotation where there are no others."""
        polygons, pointer = record.segmentation, f"/annotations/{index}/segmentation"
        if polygons is None or polygons == []:
            self._issues.indices.add(index)
            self._lacking.add(pointer)
        elif isinstance(polygons, list):
            thin = [place for place, polygon in enumerate(polygons) if len(polygon) in (0, 2, 4)]
            hint = "draw it anew, or remove it"
            if len(thin) == len(polygons):
                problem = "a polygon needs at least three points, as a flat list [x, y, x, y, ...]"
                self._issues.skip(index, pointer, problem, hint)
            elif thin:
                for place in thin:
                    problem = "left out: a polygon of fewer than three points covers nothing"
                    self._thin.add(f"{pointer}/{place}", problem, hint)
                record.segmentation = [p for p in polygons if len(p) not in (0, 2, 4)]


def _by_id(records: list[Any], name: str, what: str, issues: Issues) -> dict[int, Any]:
    if records is INVALID:
        return {}
    if not records:
        issues.add(f"/{name}", f"there are no {name}", "list at least one")
    first = first_of_each((r.id for r in records), f"/{name}/{{}}/id", what, issues)
    return {id_: records[index] for id_, index in first.items()}


def _check_segmentation(segmentation: list[list[float]] | RunLengths, size: Size) -> None:
    if isinstance(segmentation, RunLengths):
        check_rle(segmentation.size, segmentation.counts, size)
    else:
        check_polygons(segmentation, size)


_CHECKS: dict[str, Callable[[Any, Size], object]] = {
    "segmentation": _check_segmentation,
    "bbox": check_box,
    "area": check_area,
}


def _completed(record: TruthAnnotation, image: TruthImage) -> dict[str, Any]:
    size = image.height, image.width
    segmentation: list[list[float]] | Rle
    if isinstance(record.segmentation, RunLengths):
        segmentation = checked_rle(msgspec.structs.asdict(record.segmentation), size)
    else:
        segmentation = record.segmentation or []
    bbox = None if record.bbox is None else list(record.bbox)
    pixels = record.area
    if bbox is None or pixels is None:
        rle = as_rle(segmentation, *size)
        bbox = bbox or tight_box(rle)
        pixels = float(area(rle)) if pixels is None else pixels
    return {
        "id": record.id,
        "image_id": record.image_id,
        "category_id": record.category_id,
        "segmentation": segmentation,
        "bbox": bbox,
        "area": pixels,
        "iscrowd": int(bool(record.iscrowd)),
    }


def _move(annotation: dict[str, Any], orientation: int, size: Size) -> None:
    """From the upright image to stored pixels. size: as stored."""
    drawn = annotation["segmentation"]
    annotation["segmentation"] = (
        stored_mask(cast(Rle, drawn), orientation)
        if isinstance(drawn, dict)
        else [stored_polygon(polygon, orientation, size) for polygon in drawn]
    )
    annotation["bbox"] = stored_box(annotation["bbox"], orientation, size)


def as_rle(segmentation: list[list[float]] | Rle, height: int, width: int) -> Rle:
    """A checked segmentation, polygons or compressed RLE, as one compressed RLE."""
    if isinstance(segmentation, dict):
        return segmentation
    return from_polygons(segmentation, height, width)
