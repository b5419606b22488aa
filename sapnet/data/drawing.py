"""Masks and points drawn over images. Imports no torch."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from PIL import Image, ImageDraw
from pycocotools import mask as coco_mask

from sapnet.data.masks import decode, outline
from sapnet.types import ByteArray, Category, Rle

# told apart on light and dark grounds, and by most colour-blind eyes
PALETTE = (
    (230, 159, 0),
    (86, 180, 233),
    (0, 158, 115),
    (240, 228, 66),
    (0, 114, 178),
    (213, 94, 0),
    (204, 121, 167),
    (148, 103, 189),
    (23, 190, 207),
    (188, 189, 34),
)


def colour(index: int) -> tuple[int, int, int]:
    """RGB of the palette, 0 to 255 each; indices beyond its end start over."""
    return PALETTE[index % len(PALETTE)]


def paint(image: ByteArray, masks: Iterable[tuple[Rle, tuple[int, int, int]]]) -> ByteArray:
    """Masks half see-through with a solid outline.

    Args:
        image: (H, W, 3) uint8, left as it was.
    """
    out = image.copy()
    for rle, rgb in masks:
        x, y, w, h = coco_mask.toBbox(rle).astype(int)
        box = slice(y, y + h), slice(x, x + w)  # hundreds of masks on a large image take long else
        mask, part = decode(rle)[box], out[box]
        part[mask] = 0.55 * part[mask] + 0.45 * np.array(rgb, dtype=np.float32)
        part[outline(mask)] = rgb
    return out


def dots(image: ByteArray, points: Iterable[tuple[float, float]], radius: float = 3.0) -> ByteArray:
    """Annotated points as white discs with a dark rim.

    Args:
        points: xy pixels.
    """
    canvas = Image.fromarray(image)
    pen = ImageDraw.Draw(canvas)
    for x, y in points:
        box = (x - radius, y - radius, x + radius, y + radius)
        pen.ellipse(box, fill=(255, 255, 255), outline=(20, 20, 20))
    return np.asarray(canvas)


def overlay(
    image: ByteArray, results: Sequence[Mapping[str, Any]], categories: Sequence[Category]
) -> ByteArray:
    """Predictions over their image: one colour an instance, class and score beside it.

    Args:
        image: (H, W, 3) uint8 RGB.
        results: COCO results with RLE masks.

    Returns:
        (H, W, 3) uint8.
    """
    names = {category.id: category.name for category in categories}
    canvas = Image.fromarray(
        paint(image, [(r["segmentation"], colour(i)) for i, r in enumerate(results)])
    )
    pen = ImageDraw.Draw(canvas)
    for index, result in enumerate(results):
        x, y = result["bbox"][:2]
        text = f"{names.get(result['category_id'], result['category_id'])} {result['score']:.2f}"
        left, top, right, bottom = pen.textbbox((x + 2, max(y - 12, 0)), text)
        pen.rectangle((left - 2, top - 1, right + 2, bottom + 1), fill=colour(index))
        pen.text((x + 2, max(y - 12, 0)), text, fill=(0, 0, 0))
    return np.asarray(canvas)
