"""SAM's logits to RLEs at image size, and which of them are the same mask, seen while small.

SAM enlarges bilinearly to its input frame, cuts its padding off, and resizes bilinearly to the
image; SAM 2 resizes once, without padding. Both steps are linear and separable, so they are one:
three weights a row, three a column. A column of the image is made, cut into runs and forgotten; no
mask of the image's size exists.
"""

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from numba import njit

from sapnet.data.run_lengths import compressed, turn
from sapnet.types import BoolArray, FloatArray, Rle
from sapnet.utils.threads import pool

IntArray = npt.NDArray[np.int64]
SURELY_THE_SAME = 0.97  # IoU at low resolution; the bag's own rule, at full size, is 0.95


@dataclass(frozen=True, slots=True)
class Frame:
    """The place of an image in the square that a model sees, and in the one that it draws.

    Attributes:
        content: (h, w) of the image in the model's input, pixels.
        cells: logits along the side of the square.
        canvas: side of the square that logits are enlarged to before the image is cut out of it,
            pixels; `cells` where they are not enlarged.
        cut: (h, w) of the image within the canvas.
    """

    content: tuple[int, int]
    cells: int
    canvas: int
    cut: tuple[int, int]

    @property
    def used(self) -> tuple[int, int]:
        """Rows and columns of logits that lie on the image."""
        h, w = (math.ceil(side * self.cells / self.canvas) for side in self.cut)
        return h, w

    @property
    def reach(self) -> tuple[int, int]:
        """Rows and columns of logits that have a part in the image's masks."""
        last = _taps(self.cells, self.canvas)[1]
        return int(last[self.cut[0] - 1]) + 1, int(last[self.cut[1] - 1]) + 1


def rles_of(logits: FloatArray, frame: Frame, size: tuple[int, int], level: float) -> list[Rle]:
    """(M, h, w) float32 logits -> M RLEs of `size` (H, W) where they are above `level`.

    Logits beyond the frame's `reach` may lack.
    """
    y0, wy = _weights(frame.cells, frame.canvas, frame.cut[0], size[0])
    x0, wx = _weights(frame.cells, frame.canvas, frame.cut[1], size[1])

    def rle_of(one: FloatArray) -> Rle:
        runs = _runs(np.ascontiguousarray(one.T), y0, wy, x0, wx, np.float32(level))
        return Rle(size=[size[0], size[1]], counts=compressed(runs).tobytes().decode("ascii"))

    return list(pool().map(rle_of, logits))


def distinct(masks: BoolArray, confidence: FloatArray) -> list[int]:
    """Indices in order, without those masks that surely are one of higher confidence.

    Args:
        masks: (M, h, w) at low resolution.
        confidence: (M,).
    """
    flat = masks.reshape(len(masks), -1).astype(np.float32)
    both = flat @ flat.T
    area = both.diagonal()
    same = both > SURELY_THE_SAME * (area[:, None] + area - both)
    kept: list[int] = []
    for i in np.argsort(-confidence, kind="stable").tolist():
        if not same[i, kept].any():
            kept.append(i)
    return sorted(kept)


def _weights(cells: int, canvas: int, cut: int, size: int) -> tuple[IntArray, FloatArray]:
    """Along one axis, per pixel of the image: the first of three cells, and weights (size, 3).

    Pixel centres are at .5, and values go on beyond the border, as torch's bilinear has them.
    """
    low, high, share = _taps(cut, size)
    first, second, part = _taps(cells, canvas)
    start = first[low]
    weights = np.zeros((size, 3))
    pixels = np.arange(size)
    for cell, weight in (
        (first[low], (1 - share) * (1 - part[low])),
        (second[low], (1 - share) * part[low]),
        (first[high], share * (1 - part[high])),
        (second[high], share * part[high]),
    ):
        np.add.at(weights, (pixels, cell - start), weight)
    return start, weights.astype(np.float32)


def _taps(cells: int, size: int) -> tuple[IntArray, IntArray, npt.NDArray[np.float64]]:
    """Of a bilinear resize from `cells` to `size`: the cell before, the one after, its weight."""
    centres = ((np.arange(size) + 0.5) * (cells / size) - 0.5).clip(0)
    low = np.minimum(centres.astype(np.int64), cells - 1)
    return low, np.minimum(low + 1, cells - 1), centres - low


@njit(cache=True, nogil=True)
def _runs(
    columns: FloatArray,
    y0: IntArray,
    wy: FloatArray,
    x0: IntArray,
    wx: FloatArray,
    level: np.float32,
) -> IntArray:
    """Lengths of the runs of zeros and ones in turns, column by column. columns: (w, h)."""
    cells = columns.shape[1]
    right, bottom = len(columns) - 1, cells - 1
    height, width = len(y0), len(x0)
    starts = np.flatnonzero(np.append(True, y0[1:] != y0[:-1]))
    least = np.array([column.min() for column in columns])
    most = np.array([column.max() for column in columns])
    runs = np.empty(height * width + 3, dtype=np.int64)  # an untouched page costs nothing
    values = np.empty(cells, dtype=np.float32)
    count, begun = 0, 0
    inside = False
    for x in range(width):
        a, b, c = x0[x], min(x0[x] + 1, right), min(x0[x] + 2, right)
        base = x * height
        lowest = min(least[a], least[b], least[c])
        if max(most[a], most[b], most[c]) <= level or lowest > level:
            if inside != (lowest > level):
                inside = not inside
                count, begun = turn(runs, count, begun, base)
            continue
        p, q, r = wx[x]
        values[:] = p * columns[a] + q * columns[b] + r * columns[c]
        for k in range(len(starts)):
            d = y0[starts[k]]
            e, f = min(d + 1, bottom), min(d + 2, bottom)
            above = (values[d] > level) + (values[e] > level) + (values[f] > level)
            start = starts[k]
            end = start + 1  # one pixel speaks for all of them
            if 0 < above < 3:
                end = starts[k + 1] if k + 1 < len(starts) else height
            for row in range(start, end):
                now = above == 3
                if 0 < above < 3:
                    weight = wy[row]
                    value = weight[0] * values[d] + weight[1] * values[e] + weight[2] * values[f]
                    now = value > level
                if now != inside:
                    inside = now
                    count, begun = turn(runs, count, begun, base + row)
    if begun < height * width:
        runs[count] = height * width - begun
        count += 1
    return runs[:count]
