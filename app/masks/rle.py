"""Masks that users send: checked before anything decodes them."""

from typing import Any

import numpy as np
from pycocotools import mask as coco_mask

from app.errors import Fault, Invalid
from app.masks.schemas import SegmentationIn
from sapnet.data.rle import why_no_mask
from sapnet.types import Rle


def checked(sent: SegmentationIn, size: list[int], *, may_be_empty: bool = False) -> Rle:
    """A body's segmentation as pycocotools writes it. Raises Invalid where it is no mask of an
    image of this size [h, w], or empty."""
    height, width = size
    if why := why_no_mask(sent.size, sent.counts, (height, width)):
        hint = "send a compressed COCO RLE of the image as it was uploaded"
        raise Invalid([Fault("body", "/segmentation", why, hint)])
    pixels = coco_mask.decode({"size": sent.size, "counts": sent.counts})
    if not (may_be_empty or pixels.any()):
        hint = "reject the mask where there is no such object"
        raise Invalid([Fault("body", "/segmentation", "the mask is empty", hint)])
    return encoded(pixels)


def encoded(pixels: Any) -> Rle:
    """(H, W) bool or uint8 to compressed RLE."""
    rle = coco_mask.encode(np.asfortranarray(pixels, dtype=np.uint8))
    return {"size": [int(n) for n in rle["size"]], "counts": rle["counts"].decode("ascii")}


def measured(rle: Rle) -> dict[str, Any]:
    """bbox (x, y, width, height) and area in pixels."""
    return {"bbox": coco_mask.toBbox(rle).tolist(), "area": float(coco_mask.area(rle))}
