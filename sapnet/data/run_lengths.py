"""Masks as runs of zeros and ones in turns, column by column: what COCO's RLE is made of."""

import numpy as np
import numpy.typing as npt
from numba import njit

IntArray = npt.NDArray[np.int64]


@njit(cache=True, nogil=True, inline="always")
def turn(runs: IntArray, count: int, begun: int, place: int) -> tuple[int, int]:
    """End the run that began at `begun`, at `place`.

    Where it has no length (a column that ends inside, and the next that begins inside), the run
    before it goes on.

    Returns:
        The number of runs, and where the next one began.
    """
    if count and place == begun:
        return count - 1, begun - runs[count - 1]
    runs[count] = place - begun
    return count + 1, place


@njit(cache=True, nogil=True)
def compressed(runs: IntArray) -> npt.NDArray[np.uint8]:
    """COCO's compressed RLE of run lengths, as in pycocotools' `rleToString`.

    Five bits a character, low ones first, of the difference to the run before the last.

    Args:
        runs: (R,) int64, background first.

    Returns:
        (n,) uint8, ASCII.
    """
    text = np.empty(13 * len(runs), dtype=np.uint8)
    size = 0
    for i in range(len(runs)):
        value = runs[i] - runs[i - 2] if i > 2 else runs[i]
        more = True
        while more:
            group = value & 0x1F
            value >>= 5
            more = value != -1 if group & 0x10 else value != 0
            text[size] = (group | 0x20 if more else group) + 48
            size += 1
    return text[:size]
