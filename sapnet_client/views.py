"""Masks as the arrays and tables of other libraries."""

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from sapnet_client.extras import NOTEBOOK, needed

_NOT_IN_TABLES = ("segmentation", "candidates", "delivered", "selected", "refined", "mask")
_PARTS = {"bbox": ("x", "y", "width", "height"), "point": ("point_x", "point_y")}


def to_numpy(masks: Sequence[Any]) -> Any:
    """Return masks of one image as a boolean array (masks, height, width).

    Raises:
        ValueError: they are of images of different sizes.
    """
    import numpy

    arrays = [mask.segmentation.array() for mask in masks]
    if len({array.shape for array in arrays}) > 1:
        raise ValueError("the masks are of images of different sizes: take those of one image")
    return numpy.stack(arrays) if arrays else numpy.zeros((0, 0, 0), bool)


def to_pandas(things: Iterable[Any], names: Mapping[int, str] | None = None) -> Any:
    """Return a `pandas.DataFrame` with a row for each of some masks, annotations or images.

    Boxes and points are columns of numbers, in pixels; masks themselves are left out.

    Args:
        names: of classes by category id, for a column `category`.

    Raises:
        MissingPackage: pandas is not installed.
    """
    pandas = needed("pandas", NOTEBOOK)
    return pandas.DataFrame([_row(_values(thing), names) for thing in things])


def _values(thing: Any) -> dict[str, Any]:
    return {entry.name: getattr(thing, entry.name) for entry in dataclasses.fields(thing)}


def _row(values: Mapping[str, Any], names: Mapping[int, str] | None) -> dict[str, Any]:
    row: dict[str, Any] = {}
    for name, value in values.items():
        if name in _PARTS:
            parts = value or [None] * len(_PARTS[name])
            row |= dict(zip(_PARTS[name], parts, strict=False))
        elif name not in _NOT_IN_TABLES:
            row[name] = value
        if name == "category_id" and names is not None:
            row["category"] = names.get(value)
    return row


def to_supervision(masks: Sequence[Any], names: Mapping[int, str] | None = None) -> Any:
    """Return `supervision.Detections` of masks or predictions of one image.

    `confidence` is a mask's quality or a prediction's score, `class_id` your category id; in `data`
    are `class_name` where `names` are given, `id` and `status` of masks.

    Raises:
        MissingPackage: supervision is not installed.
        ValueError: they are of images of different sizes.
    """
    supervision = needed("supervision", NOTEBOOK)
    import numpy

    if not masks:
        return supervision.Detections.empty()
    boxes = numpy.array([mask.bbox for mask in masks], float)
    boxes[:, 2:] += boxes[:, :2]
    quality = [getattr(mask, "quality", getattr(mask, "score", None)) for mask in masks]
    data = {
        name: numpy.array([getattr(mask, name) for mask in masks])
        for name in ("id", "status")
        if hasattr(masks[0], name)
    }
    if names is not None:
        data["class_name"] = numpy.array([names.get(m.category_id, "") for m in masks])
    return supervision.Detections(
        xyxy=boxes,
        mask=to_numpy(masks),
        confidence=numpy.array(quality, float),
        class_id=numpy.array([mask.category_id for mask in masks], int),
        data=data,
    )
