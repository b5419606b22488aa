"""What a bag is where its object has a box: masks cut to the box, and the ellipse in it."""

from collections.abc import Sequence

import numpy as np

from sapnet.data.masks import area, merge, placed
from sapnet.types import BoolArray, Box, Rle

ELLIPSE_SOURCE = "ellipse"
ELLIPSE_CONFIDENCE = 0.6  # about its IoU with an object, of photographs and micrographs
MARGIN, MARGIN_SHARE = 2.0, 0.03
"""A mask may go beyond its box by so many pixels, or this share of the box's side."""
INSIDE_SHARE = 0.5
"""A mask of which less is within that margin is of another object."""


def grown(box: Box) -> Box:
    """The box with its margin."""
    left, top, right, bottom = box
    across = max(MARGIN, MARGIN_SHARE * (right - left))
    down = max(MARGIN, MARGIN_SHARE * (bottom - top))
    return left - across, top - down, right + across, bottom + down


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


def clipped(rles: Sequence[Rle], box: Box, size: tuple[int, int]) -> tuple[list[Rle], list[float]]:
    """Masks within a box with its margin, and the share of each that lies there.

    Args:
        rles: of an image of (h, w).
    """
    window = box_mask(grown(box), size)
    masks = [merge([rle, window], intersect=True) for rle in rles]
    shares = [area(mask) / max(area(rle), 1) for mask, rle in zip(masks, rles, strict=True)]
    return masks, shares
