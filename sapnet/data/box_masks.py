"""Masks of boxes: what of an image is in a box, and the ellipse in it."""

import numpy as np

from sapnet.data.masks import area, merge, placed
from sapnet.types import BoolArray, Box, Rle


def pixels_of(box: Box, size: tuple[int, int]) -> tuple[slice, slice]:
    """Rows and columns of the pixels whose centres a box holds; at least that of its middle."""
    spans = []
    for low, high, side in ((box[1], box[3], size[0]), (box[0], box[2], size[1])):
        first, last = (int(np.clip(np.ceil(end - 0.5), 0, side)) for end in (low, high))
        if first >= last:
            first = int(np.clip(np.floor((low + high) / 2), 0, side - 1))
            last = first + 1
        spans.append(slice(first, last))
    return spans[0], spans[1]


def box_mask(box: Box, size: tuple[int, int]) -> Rle:
    """The pixels whose centres a box holds, at least one, as a mask of an image of (h, w)."""
    rows, columns = pixels_of(box, size)
    full = np.ones((rows.stop - rows.start, columns.stop - columns.start), bool)
    return placed(full, rows.start, columns.start, size)


def ellipse_mask(box: Box, size: tuple[int, int]) -> Rle:
    """The ellipse inscribed in a box, at least one pixel, as a mask of an image of (h, w)."""
    rows, columns = pixels_of(box, size)
    x, y = (box[0] + box[2]) / 2, (box[1] + box[3]) / 2
    across = (np.arange(columns.start, columns.stop) + 0.5 - x) / ((box[2] - box[0]) / 2)
    down = (np.arange(rows.start, rows.stop) + 0.5 - y) / ((box[3] - box[1]) / 2)
    inside: BoolArray = across[None] ** 2 + down[:, None] ** 2 <= 1
    if not inside.any():
        inside[len(down) // 2, len(across) // 2] = True
    return placed(inside, rows.start, columns.start, size)


def cut_to(rle: Rle, box: Box) -> Rle | None:
    """The part of a mask in a box; None where there is none."""
    height, width = rle["size"]
    part = merge([rle, box_mask(box, (height, width))], intersect=True)
    return part if area(part) else None
