"""Masks that users send: checked before anything decodes them."""

from typing import Any

from app.errors import Invalid, ValidationIssue
from app.masks.schemas import SegmentationIn
from sapnet.errors import InvalidGeometry
from sapnet.types import Rle


def checked(sent: SegmentationIn, size: list[int], *, may_be_empty: bool = False) -> Rle:
    """Return a body's segmentation as pycocotools writes it.

    Args:
        size: [h, w] of the image.

    Raises:
        Invalid: it is no mask of an image of this size, or it is empty.
    """
    from sapnet.data.masks import area, check_size, checked_rle, decode, encode  # loads numpy

    try:
        rle = checked_rle({"size": sent.size, "counts": sent.counts}, check_size(size))
    except InvalidGeometry as error:
        hint = "send a compressed COCO RLE of the image as it was uploaded"
        raise Invalid([ValidationIssue("body", "/segmentation", str(error), hint)]) from error
    if not (may_be_empty or area(rle)):
        hint = "reject the mask where there is no such object"
        raise Invalid([ValidationIssue("body", "/segmentation", "the mask is empty", hint)])
    return encode(decode(rle))


def measured(rle: Rle) -> dict[str, Any]:
    """Return the bounding box (x, y, width, height) and the area of a mask, in pixels."""
    from sapnet.data.masks import area, tight_box

    return {"bbox": tight_box(rle), "area": float(area(rle))}
