"""A mask at stride 4 to the RLE of the original image, without a mask of that size in between."""

import math

import numpy as np
import numpy.typing as npt
from numba import njit

from sapnet.data.resize import MASK_STRIDE
from sapnet.data.run_lengths import compressed, turn
from sapnet.types import BoolArray, FloatArray, Rle

IntArray = npt.NDArray[np.int64]


def resize_to_rle(
    probs: FloatArray, content: tuple[int, int], original: tuple[int, int], threshold: float
) -> tuple[Rle, tuple[int, int, int, int]] | None:
    """Resize bilinearly to the original image and threshold; as RLE with its tight box (xyxy).

    None where no pixel is above. Pixel centres are at .5 on every scale; values go on beyond the
    border. What lies between four cells that are all above, or all below, is not computed.

    Args:
        probs: (h, w) float32 in [0, 1] at stride 4 of the content.
        content: (h, w) of the image in the network's input.
        original: (h, w) of the image.
        threshold: of the probabilities.
    """
    above: BoolArray = probs > threshold
    rows, columns = np.flatnonzero(above.any(1)), np.flatnonzero(above.any(0))
    if not len(rows):
        return None
    top, y0, wy = _taps(rows, probs.shape[0], content[0], original[0])
    left, x0, wx = _taps(columns, probs.shape[1], content[1], original[1])
    runs, box = _runs(probs, above, y0, wy, x0, wx, top, left, original[0], original[1], threshold)
    if not len(runs):  # a speck may fall between the pixels of a smaller original
        return None
    counts = compressed(runs).tobytes().decode("ascii")
    return {"size": list(original), "counts": counts}, (box[0], box[1], box[2], box[3])


def _taps(
    set_cells: IntArray, cells: int, content: int, original: int
) -> tuple[int, IntArray, FloatArray]:
    """Taps of bilinear interpolation along one axis.

    Args:
        set_cells: those with a value above the threshold.
        cells: how many there are.
        content: pixels of the network's input that the cells cover.
        original: pixels of the image.

    Returns:
        The first pixel that can be above; and for each pixel from there to the last that can, (n,)
        each: the cell before it, and the weight of the next cell.
    """
    scale = content / original / MASK_STRIDE  # cells per pixel
    # a value above the threshold reaches less than one cell beyond the centres of the set cells
    first = max(math.floor((set_cells[0] - 0.5) / scale - 0.5), 0) if set_cells[0] else 0
    last = original - 1
    if set_cells[-1] < cells - 1:
        last = min(math.ceil((set_cells[-1] + 1.5) / scale - 0.5), last)
    centres = ((np.arange(first, last + 1) + 0.5) * scale - 0.5).clip(0, cells - 1)
    low = centres.astype(np.int64)
    return first, low, (centres - low).astype(np.float32)


@njit(cache=True, nogil=True)
def _runs(
    probs: FloatArray,
    above: BoolArray,
    y0: IntArray,
    wy: FloatArray,
    x0: IntArray,
    wx: FloatArray,
    top: int,
    left: int,
    height: int,
    width: int,
    threshold: float,
) -> tuple[IntArray, tuple[int, int, int, int]]:
    """Lengths of the runs of zeros and ones in turns, column by column; none for an empty mask."""
    limit = np.float32(threshold)
    one = np.float32(1)
    bottom, right = len(probs) - 1, probs.shape[1] - 1
    starts = np.flatnonzero(np.append(True, y0[1:] != y0[:-1]))  # a pixel row for each row of cells
    runs = np.empty(len(y0) * len(x0) + 3, dtype=np.int64)  # an untouched page costs nothing
    count, begun = 0, 0
    x_min, y_min, x_max, y_max = width, height, 0, 0
    for column in range(len(x0)):
        a = x0[column]
        b = min(a + 1, right)
        share = wx[column]
        base = (left + column) * height + top
        inside = False
        for k in range(len(starts)):
            c = y0[starts[k]]
            d = min(c + 1, bottom)
            corners = above[c, a] + above[c, b] + above[d, a] + above[d, b]
            start = starts[k]
            end = start + 1  # one pixel speaks for all of them
            if 0 < corners < 4:
                end = starts[k + 1] if k + 1 < len(starts) else len(y0)
            for row in range(start, end):
                if corners == 0 or corners == 4:
                    now = corners == 4
                else:
                    before = probs[c, a] * (one - wy[row]) + probs[d, a] * wy[row]
                    after = probs[c, b] * (one - wy[row]) + probs[d, b] * wy[row]
                    now = before * (one - share) + after * share > limit
                if now != inside:
                    if now:
                        x_min, x_max = min(x_min, left + column), left + column + 1
                        y_min = min(y_min, top + row)
                    else:
                        y_max = max(y_max, top + row)
                    inside = now
                    count, begun = turn(runs, count, begun, base + row)
        if inside:
            y_max = max(y_max, top + len(y0))
            count, begun = turn(runs, count, begun, base + len(y0))
    if count and begun < height * width:
        runs[count] = height * width - begun
        count += 1
    return runs[:count], (x_min, y_min, x_max, y_max)
