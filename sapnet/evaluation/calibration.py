"""Calibration of a mask's quality: the probability of an IoU of at least 0.5 with the truth."""

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from sapnet.types import PseudoMask

RIGHT = 0.5
"""The IoU from which on a mask counts as right."""
BINS = 10


def auroc(suspicion: npt.ArrayLike, wrong: npt.ArrayLike) -> float | None:
    """Probability that a wrong mask is more suspicious than a right one, ties counting half.

    Args:
        suspicion: (N,) the higher the worse.
        wrong: (N,) bool.

    Returns:
        In [0, 1]; None where all are right, or all wrong.
    """
    from scipy.stats import rankdata  # takes a second, and only figures with truth need it

    is_wrong = np.asarray(wrong, dtype=bool)
    ranks = rankdata(suspicion)
    many, few = int((~is_wrong).sum()), int(is_wrong.sum())
    if not many or not few:
        return None
    return float((ranks[is_wrong].sum() - few * (few + 1) / 2) / (many * few))


def brier(quality: npt.ArrayLike, right: npt.ArrayLike) -> float:
    """Mean squared error of the probabilities (N,) of what was right, (N,) bool; 0 is best."""
    return float(np.mean((np.asarray(quality, float) - np.asarray(right, float)) ** 2))


def bins_of(quality: npt.ArrayLike, right: npt.ArrayLike) -> list[dict[str, Any]]:
    """The masks in ten equal bins of quality, as in a reliability diagram.

    Returns:
        For each bin that has masks: "quality" (mean), "right" (share), "count".
    """
    predicted, good = np.asarray(quality, float), np.asarray(right, float)
    place = np.minimum((predicted * BINS).astype(int), BINS - 1)
    return [
        {
            "quality": round(float(predicted[place == b].mean()), 4),
            "right": round(float(good[place == b].mean()), 4),
            "count": int((place == b).sum()),
        }
        for b in sorted({*place.tolist()})
    ]


def reliability(masks: Iterable[PseudoMask], ious: Mapping[int, float]) -> dict[str, Any] | None:
    """How well `quality` predicts which masks are right.

    Args:
        masks: with their quality.
        ious: IoU with the truth by mask id, of those that have truth.

    Returns:
        count, wrong (how many have an IoU below 0.5), auroc (of finding these by low quality),
        brier, bins. None where no mask has truth.
    """
    pairs = [(mask.quality, ious[mask.id] >= RIGHT) for mask in masks if mask.id in ious]
    if not pairs:
        return None
    quality, right = (np.array(column) for column in zip(*pairs, strict=True))
    return {
        "count": len(pairs),
        "wrong": int((~right.astype(bool)).sum()),
        "auroc": auroc(-quality, right == 0),
        "brier": brier(quality, right),
        "bins": bins_of(quality, right),
    }
