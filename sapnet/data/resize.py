"""Sizes: of the network's input, and of its masks back in the image.

Numpy alone, no torch, so that a deployed model needs none either (`sapnet.segmenters.onnx`).
"""

import numpy as np
import numpy.typing as npt

from sapnet.types import BoolArray, FloatArray

PAD_TO = 64  # the coarsest stride, so that every level halves evenly
MASK_STRIDE = 4  # of the maps that masks are predicted on


def input_size(size: tuple[int, int], short_side: int, max_long_side: int) -> tuple[int, int]:
    """(h, w) of the network's input: short side as given unless the long one would be too long."""
    h, w = size
    scale = min(short_side / min(h, w), max_long_side / max(h, w))
    return max(round(h * scale), 1), max(round(w * scale), 1)


def resize_mask(
    probs: FloatArray, content: tuple[int, int], original: tuple[int, int], threshold: float
) -> tuple[BoolArray, int, int]:
    """Bilinear enlargement to the original image, thresholded, of the part that can be inside.

    Args:
        probs: (h, w) at stride 4 of a content of (h, w) pixels.

    Returns:
        That part's mask, and its top and left in the original; all outside of it is False. Without
        a pixel above: an empty (0, 0).
    """
    above: BoolArray = probs > threshold
    if not above.any():
        return np.zeros((0, 0), dtype=np.bool_), 0, 0
    top, y0, y1, wy = _taps(above.max(1), content[0], original[0])
    left, x0, x1, wx = _taps(above.max(0), content[1], original[1])
    rows = probs[y0] * (1 - wy[:, None]) + probs[y1] * wy[:, None]
    return rows[:, x0] * (1 - wx) + rows[:, x1] * wx > threshold, top, left


IndexArray = npt.NDArray[np.int64]


def _taps(
    above: BoolArray, content: int, original: int
) -> tuple[int, IndexArray, IndexArray, FloatArray]:
    """Taps of bilinear interpolation along one axis.

    Pixel centres are at .5 on every scale; values go on beyond the border.

    Returns:
        The first pixel to compute; and for each pixel from it on, (n,) each: the two cells that it
        lies between, and the weight of the second.
    """
    scale = content / original / MASK_STRIDE  # cells per pixel
    (set_cells,) = above.nonzero()
    # a value above the threshold reaches less than one cell beyond the centres of the set cells
    first = max(int((set_cells[0] - 0.5) / scale - 0.5), 0)
    if set_cells[0] == 0:
        first = 0
    last = min(int((set_cells[-1] + 1.5) / scale - 0.5) + 1, original - 1)
    if set_cells[-1] == len(above) - 1:
        last = original - 1
    centres = (np.arange(first, last + 1) + 0.5) * scale - 0.5
    centres = centres.clip(0, len(above) - 1)
    low = np.floor(centres).astype(np.int64)
    high = np.minimum(low + 1, len(above) - 1)
    return first, low, high, (centres - low).astype(np.float32)
