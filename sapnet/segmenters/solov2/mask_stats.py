"""Areas, scores and overlaps of hundreds of masks, in one pass over their logits."""

import math

import numpy as np
import numpy.typing as npt
import torch
from numba import njit
from torch import Tensor

from sapnet.types import FloatArray

Words = npt.NDArray[np.uint64]
IntArray = npt.NDArray[np.int64]


def weigh(
    logits: Tensor, labels: Tensor, width: int, threshold: float
) -> tuple[Tensor, Tensor, Tensor]:
    """Areas (n,) int64, sums of the probabilities inside (n,) float32, and overlaps (n, n) float32.

    overlaps: the pixels that two masks of one label share; of others 0 or anything. Areas lie on
    the diagonal. Masks are where the sigmoid exceeds `threshold`, 0 < threshold < 1.

    Args:
        logits: (n, h, W) float32, of which the first `width` columns count.
        labels: (n,) int64.
    """
    limit = math.log(threshold / (1 - threshold))
    if logits.device.type == "cpu":
        return _weigh_bits(logits, labels, width, limit)
    return _weigh_floats(logits, width, limit)


def _weigh_bits(
    logits: Tensor, labels: Tensor, width: int, limit: float
) -> tuple[Tensor, Tensor, Tensor]:
    area, inside, words, rows = _pack(logits.numpy(), width, limit)
    overlap = _overlaps(words, rows, area, labels.numpy())
    return torch.from_numpy(area), torch.from_numpy(inside), torch.from_numpy(overlap)


def _weigh_floats(logits: Tensor, width: int, limit: float) -> tuple[Tensor, Tensor, Tensor]:
    logits = logits[..., :width].flatten(1)
    masks = (logits > limit).float()
    return masks.sum(1).long(), (masks * logits.sigmoid()).sum(1), masks @ masks.T


@njit(cache=True, nogil=True)
def _pack(
    logits: FloatArray, width: int, limit: float
) -> tuple[IntArray, FloatArray, Words, IntArray]:
    """Areas (n,), sums inside (n,), masks as bits (n, h, ceil(width / 64)), and rows (n, 2).

    The rows are those that contain all of a mask: the first, and the last + 1.
    """
    n, height, _ = logits.shape
    floor = np.float32(limit)
    area = np.zeros(n, dtype=np.int64)
    inside = np.zeros(n, dtype=np.float32)
    words = np.empty((n, height, (width + 63) // 64), dtype=np.uint64)
    rows = np.zeros((n, 2), dtype=np.int64)
    for i in range(n):
        total = 0.0
        for y in range(height):
            row = logits[i, y]
            count = 0
            for x in range(width):  # most rows end here, eight or sixteen pixels at a time
                count += row[x] > floor
            if count == 0:
                words[i, y] = 0
                continue
            rows[i, 0] = y if area[i] == 0 else rows[i, 0]
            rows[i, 1] = y + 1
            area[i] += count
            for w in range(words.shape[2]):
                word = np.uint64(0)
                for x in range(64 * w, min(64 * w + 64, width)):
                    if row[x] > floor:
                        word |= np.uint64(1) << np.uint64(x - 64 * w)
                        total += 1 / (1 + math.exp(-row[x]))
                words[i, y, w] = word
        inside[i] = total
    return area, inside, words, rows


@njit(cache=True, nogil=True)
def _overlaps(words: Words, rows: IntArray, area: IntArray, labels: IntArray) -> FloatArray:
    n = len(words)
    overlap = np.zeros((n, n), dtype=np.float32)
    for i in range(n):
        overlap[i, i] = area[i]
        for j in range(i):
            if labels[i] != labels[j]:
                continue
            shared = np.uint64(0)
            for y in range(max(rows[i, 0], rows[j, 0]), min(rows[i, 1], rows[j, 1])):
                for w in range(words.shape[2]):
                    shared += _ones(words[i, y, w] & words[j, y, w])
            overlap[i, j] = overlap[j, i] = shared
    return overlap


@njit(cache=True, nogil=True, inline="always")
def _ones(word: np.uint64) -> np.uint64:
    """Bits set in a word; compilers know this form as one instruction."""
    word -= (word >> np.uint64(1)) & np.uint64(0x5555555555555555)
    word = (word & np.uint64(0x3333333333333333)) + (
        (word >> np.uint64(2)) & np.uint64(0x3333333333333333)
    )
    word = (word + (word >> np.uint64(4))) & np.uint64(0x0F0F0F0F0F0F0F0F)
    return (word * np.uint64(0x0101010101010101)) >> np.uint64(56)
