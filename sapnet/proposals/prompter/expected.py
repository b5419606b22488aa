"""One more mask from all candidates of a point: what most of them hold, by their estimates."""

from collections.abc import Sequence

import numpy as np

from sapnet.data.masks import decode, encode_all, tight_boxes
from sapnet.types import FloatArray, Rle

_SPREAD = 0.05  # of the estimates: a candidate's weight is exp((estimate - highest) / spread)
_LEAST = 0.01  # of the largest weight: candidates of smaller weight are left out
_SHARE = 0.4  # of the weight: pixels that so much of it holds are the mask


def expected_mask(rles: Sequence[Rle], estimates: FloatArray) -> Rle | None:
    """The pixels that candidates hold whose weights sum to 0.4 of all or more.

    A candidate's errors are mostly its own: the mean of those of high estimate is nearer to the
    object than the best of them by estimate (docs/log.md has the figures).

    Args:
        rles: M masks of one size.
        estimates: (M,) of their IoU, in [0, 1].

    Returns:
        The mask; None where there are fewer than two candidates, or no pixel is in so many.
    """
    if len(rles) < 2:
        return None
    weights = np.exp((estimates - estimates.max()) / _SPREAD).astype(np.float32)
    chosen = np.flatnonzero(weights >= _LEAST).tolist()
    top, left, bottom, right = _extent([rles[i] for i in chosen])
    votes = np.zeros((bottom - top, right - left), np.float32, order="F")  # as masks are decoded
    for index in chosen:
        votes += weights[index] * decode(rles[index])[top:bottom, left:right]
    inside = votes >= _SHARE * weights[chosen].sum()
    if not inside.any():
        return None
    height, width = rles[0]["size"]
    mask = np.zeros((1, height, width), bool)
    mask[0, top:bottom, left:right] = inside
    return encode_all(mask)[0]


def _extent(rles: Sequence[Rle]) -> tuple[int, int, int, int]:
    """Top, left, bottom, right of all masks together."""
    boxes = tight_boxes(rles)
    left, top = boxes[:, :2].min(0).astype(int).tolist()
    right, bottom = boxes[:, 2:].max(0).astype(int).tolist()
    return top, left, bottom, right
