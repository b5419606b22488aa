"""A point well inside of a mask, as somebody would click it. No scipy: the API finds some too."""

import numpy as np

from sapnet.data.masks import decode, outline, tight_box
from sapnet.types import Rle

MOST = 256
"""Longest side of the raster in which the point is looked for, in pixels."""


def inner_point(rle: Rle) -> tuple[float, float]:
    """The centre (x, y) of a pixel of the mask that is about as deep inside of it as any.

    Outlines are taken off one after the other; of what was left last it is the pixel that is
    nearest to the middle. A large mask is looked at in a coarser raster.

    Raises:
        ValueError: the mask is empty.
    """
    left, top, width, height = (int(value) for value in tight_box(rle))
    whole = decode(rle)[top : top + height, left : left + width]
    if not whole.any():
        raise ValueError("an empty mask has no point")
    step = -(-max(width, height) // MOST)
    mask = whole[step // 2 :: step, step // 2 :: step]
    offset = step // 2
    if not mask.any():  # it is thinner than the raster
        mask, step, offset = whole, 1, 0
    while (inner := mask & ~outline(mask)).any():
        mask = inner
    rows, columns = np.nonzero(mask)
    nearest = int(np.hypot(rows - rows.mean(), columns - columns.mean()).argmin())
    x, y = columns[nearest] * step + offset, rows[nearest] * step + offset
    return float(left + x) + 0.5, float(top + y) + 0.5
