"""Compressed COCO RLE read without decoding it to pixels: runs, checks, point tests.

The text holds the run lengths (background first, down the columns) as little-endian groups of 5
bits plus a continuation bit, offset by 48; from the fourth on each run is a difference to the one
two before. pycocotools writes and decodes it, but reads and writes past its buffers on damaged
text: `run_lengths` is the gate in front of it.
"""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from pycocotools import mask as coco_mask

from sapnet.types import BoolArray, Rle

IntArray = npt.NDArray[np.int64]


def run_lengths(counts: str | bytes) -> IntArray:
    """(R,) int64 run lengths in pixels, background first. ValueError on damaged text."""
    text = counts.encode() if isinstance(counts, str) else counts
    codes = np.frombuffer(text, dtype=np.uint8).astype(np.int64) - 48
    if codes.size == 0:
        return np.zeros(0, dtype=np.int64)
    if codes.min() < 0 or codes.max() > 63:
        raise ValueError("RLE counts hold a character that does not belong there")
    last = (codes & 32) == 0  # the last group of each number
    if not last[-1]:
        raise ValueError("RLE counts are cut off")
    ends = np.flatnonzero(last)
    starts = np.concatenate(([0], ends[:-1] + 1))
    if (ends - starts).max() > 6:
        raise ValueError("RLE counts hold a number that is too large")
    place = np.arange(codes.size) - np.repeat(starts, ends - starts + 1)
    values = np.add.reduceat((codes & 31) << (5 * place), starts)
    negative = (codes[ends] & 16) != 0
    values -= np.where(negative, np.int64(1) << (5 * (place[ends] + 1)), 0)
    # runs[i] = values[i] + runs[i-2] for i > 2: two interleaved cumulative sums.
    values[1::2] = np.cumsum(values[1::2])
    values[2::2] = np.cumsum(values[2::2])
    if values.min() < 0:
        raise ValueError("RLE counts hold a negative run")
    return values


def why_no_mask(size: Sequence[int], counts: str | Sequence[int], image: tuple[int, int]) -> str:
    """Why an RLE, compressed or not, cannot be a mask of an image of (h, w); "" where it can."""
    height, width = image
    if tuple(size) != image:
        return f"the RLE is for size {list(size)}, the image has [{height}, {width}]"
    try:
        runs = run_lengths(counts).tolist() if isinstance(counts, str) else counts
    except ValueError as error:
        return str(error)
    if min(runs, default=0) < 0 or sum(runs) != height * width:
        return f"the RLE's runs do not add up to the {height * width} pixels of its image"
    return ""


def compressed(size: Sequence[int], counts: str | Sequence[int]) -> Rle:
    """An RLE that `why_no_mask` lets pass, as a compressed one."""
    height, width = size
    if isinstance(counts, str):
        return {"size": [height, width], "counts": counts}
    rle = {"size": [height, width], "counts": list(counts)}
    packed = coco_mask.frPyObjects(rle, height, width)
    return {"size": [height, width], "counts": packed["counts"].decode("ascii")}


def holds_points(mask: Rle, xy: npt.NDArray[np.floating]) -> BoolArray:
    """Which points lie in the mask: (J,) bool for xy (J, 2), pixels with centres at .5.

    A point counts for the pixel that it lies in; one outside the image is in no mask.
    """
    height, width = mask["size"]
    column, row = np.floor(np.asarray(xy, dtype=np.float64).reshape(-1, 2)).astype(np.int64).T
    inside = (column >= 0) & (column < width) & (row >= 0) & (row < height)
    ends = np.cumsum(run_lengths(mask["counts"]))
    run = np.searchsorted(ends, column * height + row, side="right")
    return inside & (run < len(ends)) & (run % 2 == 1)
