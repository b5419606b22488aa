"""Read ground truth in COCO's form, checked so far that pycocotools cannot crash on it."""

from array import array
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt
from pycocotools import mask as coco_mask

from sapnet.data.document import repeats
from sapnet.data.records import (
    BAD,
    CategoryRecord,
    Id,
    Issues,
    NoDocument,
    RunLengths,
    Size,
    Watch,
    first_of_each,
    read_list,
    read_lists,
    unwatched,
)
from sapnet.data.rle import compressed, why_no_mask
from sapnet.errors import InvalidDataset
from sapnet.types import Rle


class TruthImage(msgspec.Struct, gc=False):
    id: Id
    width: Size
    height: Size
    file_name: str = ""


class TruthAnnotation(msgspec.Struct, gc=False):
    id: Id
    image_id: Id
    category_id: Id
    segmentation: list[list[float]] | RunLengths
    bbox: tuple[float, float, float, float] | None = None
    area: float | None = None
    iscrowd: int | bool = 0


def read_truth(source: bytes | Path) -> dict[str, Any]:
    """COCO instances as plain dicts: {"images", "annotations", "categories"}.

    Every annotation comes back with segmentation (polygons, or compressed RLE), bbox (xywh,
    pixels), area (pixels) and iscrowd; bbox and area are worked out where the file leaves them
    out. Ids are tied to nothing outside the file. InvalidDataset lists every issue.
    """
    truth = _Truth(source)
    annotations = list(truth.annotations())
    truth.end()
    return {
        "images": [msgspec.structs.asdict(image) for image in truth.images.values()],
        "annotations": [_completed(r, truth.images[r.image_id]) for r in annotations],
        "categories": [msgspec.structs.asdict(c) for c in truth.categories.values()],
    }


def check_truth(source: bytes | Path, watch: Watch = unwatched) -> npt.NDArray[np.int64]:
    """The ids of a file's annotations, (N,), where `read_truth` would take it: in little memory.

    watch: as `read_points` has it. Raises InvalidDataset with every issue.
    """
    truth = _Truth(source, watch)
    for _ in truth.annotations():
        pass
    truth.end()
    return np.asarray(truth.ids)


class _Truth:
    """A truth document on its way: its images and categories first, then its annotations."""

    def __init__(self, source: bytes | Path, watch: Watch = unwatched) -> None:
        self._source, self._issues, self._watch = source, Issues(), watch
        self.ids = array("q")
        self._id_places = array("q")
        kinds: dict[str, Any] = {"images": TruthImage, "categories": CategoryRecord}
        try:
            self._lists = read_lists(source, kinds, ("annotations",), self._issues)
        except NoDocument:
            self.end()
        self.images = _by_id(self._lists["images"], "images", "image id", self._issues)
        self.categories = _by_id(
            self._lists["categories"], "categories", "category id", self._issues
        )

        self._known_categories = {BAD, *self.categories}

    def annotations(self) -> Iterator[TruthAnnotation]:
        """Each as it comes; what is wrong is said by `end`."""
        if self._lists["annotations"] is BAD:
            return
        try:
            for start, records in read_list(
                self._source, "annotations", TruthAnnotation, self._issues, self._watch
            ):
                for index, record in enumerate(records, start):
                    self._check(record, index)
                    yield record
        except NoDocument:
            return

    def end(self) -> None:
        """Raises InvalidDataset where anything was wrong."""
        for again, first in repeats(np.arange(len(self.ids)), np.asarray(self.ids)):
            at = [f"/annotations/{self._id_places[i]}/id" for i in (again, first)]
            problem = f"annotation id {self.ids[again]} was used before, at {at[1]}"
            self._issues.add(at[0], problem, "give each its own annotation id")
        if self._issues.total:
            raise InvalidDataset(self._issues.listed())

    def _check(self, record: TruthAnnotation, index: int) -> None:
        at, issues, images = f"/annotations/{index}", self._issues, self.images
        if record.id is not BAD:
            self.ids.append(record.id)
            self._id_places.append(index)
        if images and record.image_id is not BAD and record.image_id not in images:
            issues.add(f"{at}/image_id", f"there is no image with id {record.image_id}", "list it")
        if self.categories and record.category_id not in self._known_categories:
            what = f"there is no category with id {record.category_id}"
            issues.add(f"{at}/category_id", what, "list it")
        image = images.get(record.image_id)
        if image is not None and BAD not in (record.segmentation, image.width, image.height):
            problem = _problem(record.segmentation, image.height, image.width)
            if problem:
                issues.add(f"{at}/segmentation", problem, "mend or remove the annotation")


def _by_id(records: list[Any], name: str, what: str, issues: Issues) -> dict[int, Any]:
    if records is BAD:
        return {}
    if not records:
        issues.add(f"/{name}", f"there are no {name}", "list at least one")
    first = first_of_each((r.id for r in records), f"/{name}/{{}}/id", what, issues)
    return {id_: records[index] for id_, index in first.items()}


def _problem(segmentation: list[list[float]] | RunLengths, height: int, width: int) -> str:
    """Why a segmentation cannot be a mask of this image; "" where it can."""
    if not isinstance(segmentation, RunLengths):
        if not segmentation:
            return "the segmentation is empty"
        if any(len(polygon) < 6 or len(polygon) % 2 for polygon in segmentation):
            return "a polygon needs at least three points, as a flat list [x, y, x, y, ...]"
        # pycocotools walks along every edge: far-off corners would take memory without end.
        reach = 2 * max(height, width)
        if any(abs(value) > reach for polygon in segmentation for value in polygon):
            return "a polygon lies far outside its image"
        return ""
    return why_no_mask(segmentation.size, segmentation.counts, (height, width))


def _completed(record: TruthAnnotation, image: TruthImage) -> dict[str, Any]:
    segmentation: list[list[float]] | Rle
    if isinstance(record.segmentation, RunLengths):
        segmentation = compressed(record.segmentation.size, record.segmentation.counts)
    else:
        segmentation = record.segmentation
    bbox, area = record.bbox, record.area
    if bbox is None or area is None:
        rle = as_rle(segmentation, image.height, image.width)
        bbox = tuple(coco_mask.toBbox(rle).tolist()) if bbox is None else bbox
        area = float(coco_mask.area(rle)) if area is None else area
    return {
        "id": record.id,
        "image_id": record.image_id,
        "category_id": record.category_id,
        "segmentation": segmentation,
        "bbox": list(bbox),
        "area": area,
        "iscrowd": int(bool(record.iscrowd)),
    }


def as_rle(segmentation: list[list[float]] | Rle, height: int, width: int) -> Rle:
    """A checked segmentation, polygons or compressed RLE, as one compressed RLE."""
    if isinstance(segmentation, dict):
        return segmentation
    merged = coco_mask.merge(coco_mask.frPyObjects(segmentation, height, width))
    return {"size": [height, width], "counts": merged["counts"].decode("ascii")}
