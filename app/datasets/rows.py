"""A checked data set as rows, in batches that a transaction may hold."""

from collections.abc import Iterator, Sequence
from itertools import islice
from typing import TYPE_CHECKING, Any

from app.db.columns import Base
from app.db.models import Annotation, Category, Image

if TYPE_CHECKING:
    from app.datasets.validation import ValidationResult

BATCH = 2_000
Row = dict[str, Any]


def bbox_of(box: Sequence[float]) -> list[float]:
    """COCO's x, y, width, height of a box as its row has it, x0, y0, x1, y1."""
    left, top, right, bottom = box
    return [left, top, right - left, bottom - top]


def count(checked: "ValidationResult") -> int:
    """Return the number of all rows."""
    document = checked.document
    return len(document.categories) + len(document.images) + len(document.kept)


def batches(dataset_id: str, checked: "ValidationResult") -> Iterator[tuple[type[Base], list[Row]]]:
    """Categories, then images, then annotations: the same batches each time."""
    tables = (
        (Category, _categories(dataset_id, checked)),
        (Image, _images(dataset_id, checked)),
        (Annotation, _annotations(dataset_id, checked)),
    )
    for table, rows in tables:
        while batch := list(islice(rows, BATCH)):
            yield table, batch


def _categories(dataset_id: str, checked: "ValidationResult") -> Iterator[Row]:
    of_class = checked.document.per_category()
    for category in checked.document.categories:
        yield {
            "dataset_id": dataset_id,
            "category_id": category.id,
            "name": category.name,
            "annotations": of_class[category.id],
        }


def _images(dataset_id: str, checked: "ValidationResult") -> Iterator[Row]:
    of_image = checked.document.per_image()
    for image in checked.images:
        yield {
            "dataset_id": dataset_id,
            "image_id": image.id,
            "file_name": image.file_name,
            "width": image.width,
            "height": image.height,
            "annotations": of_image[image.id],
            "sha256": checked.image_files.by_name[image.file_name].sha,
            "subset": image.subset,
            "split_group": image.group,
        }


def _annotations(dataset_id: str, checked: "ValidationResult") -> Iterator[Row]:
    for annotation in checked.document.annotations():
        yield {
            "dataset_id": dataset_id,
            "annotation_id": annotation.id,
            "image_id": annotation.image_id,
            "category_id": annotation.category_id,
            "x": annotation.x,
            "y": annotation.y,
            "segmentation": annotation.mask,
            "box": annotation.box,
            "pointed": annotation.pointed,
        }
