"""Read ground truth in COCO's form, checked so far that pycocotools cannot crash on it."""

from pathlib import Path
from typing import Any

import msgspec
from pycocotools import mask as coco_mask

from sapnet.data.records import (
    BAD,
    CategoryRecord,
    Id,
    Issues,
    Size,
    decode,
    first_of_each,
)
from sapnet.data.rle import run_lengths
from sapnet.errors import InvalidDataset
from sapnet.types import Rle


class RunLengths(msgspec.Struct, gc=False):
    size: tuple[Size, Size]
    counts: str | list[int]


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


class TruthDocument(msgspec.Struct, gc=False):
    images: list[TruthImage]
    annotations: list[TruthAnnotation]
    categories: list[CategoryRecord]


def read_truth(source: bytes | Path) -> dict[str, Any]:
    """COCO instances as plain dicts: {"images", "annotations", "categories"}.

    Every annotation comes back with segmentation (polygons, or compressed RLE), bbox (xywh,
    pixels), area (pixels) and iscrowd; bbox and area are worked out where the file leaves them
    out. Ids are tied to nothing outside the file. InvalidDataset lists every issue.
    """
    issues = Issues()
    document = decode(source, TruthDocument, issues)
    if document is None:
        raise InvalidDataset(issues.listed())
    images = _by_id(document.images, "images", "image id", issues)
    categories = _by_id(document.categories, "categories", "category id", issues)
    annotations = [] if document.annotations is BAD else document.annotations
    first_of_each((r.id for r in annotations), "/annotations/{}/id", "annotation id", issues)
    for index, record in enumerate(annotations):
        at = f"/annotations/{index}"
        if images and record.image_id is not BAD and record.image_id not in images:
            issues.add(f"{at}/image_id", f"there is no image with id {record.image_id}", "list it")
        if categories and record.category_id is not BAD and record.category_id not in categories:
            what = f"there is no category with id {record.category_id}"
            issues.add(f"{at}/category_id", what, "list it")
        image = images.get(record.image_id)
        if image is not None and BAD not in (record.segmentation, image.width, image.height):
            problem = _problem(record.segmentation, image.height, image.width)
            if problem:
                issues.add(f"{at}/segmentation", problem, "mend or remove the annotation")
    if issues.total:
        raise InvalidDataset(issues.listed())
    return {
        "images": [msgspec.structs.asdict(image) for image in images.values()],
        "annotations": [_completed(record, images[record.image_id]) for record in annotations],
        "categories": [msgspec.structs.asdict(category) for category in categories.values()],
    }


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
    if segmentation.size != (height, width):
        return f"the RLE is for size {list(segmentation.size)}, the image has [{height}, {width}]"
    try:
        counts = segmentation.counts
        runs = counts if isinstance(counts, list) else run_lengths(counts).tolist()
    except ValueError as error:
        return str(error)
    if min(runs, default=0) < 0 or sum(runs) != height * width:
        return f"the RLE's runs do not add up to the {height * width} pixels of its image"
    return ""


def _completed(record: TruthAnnotation, image: TruthImage) -> dict[str, Any]:
    segmentation: list[list[float]] | Rle
    if isinstance(record.segmentation, RunLengths):
        segmentation = _compressed(record.segmentation)
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


def _compressed(runs: RunLengths) -> Rle:
    if isinstance(runs.counts, str):
        return {"size": list(runs.size), "counts": runs.counts}
    height, width = runs.size
    packed = coco_mask.frPyObjects({"size": [height, width], "counts": runs.counts}, height, width)
    return {"size": [height, width], "counts": packed["counts"].decode("ascii")}


def as_rle(segmentation: list[list[float]] | Rle, height: int, width: int) -> Rle:
    """A checked segmentation, polygons or compressed RLE, as one compressed RLE."""
    if isinstance(segmentation, dict):
        return segmentation
    merged = coco_mask.merge(coco_mask.frPyObjects(segmentation, height, width))
    return {"size": [height, width], "counts": merged["counts"].decode("ascii")}
