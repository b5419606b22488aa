"""From a model's score to the probability that a predicted mask is right. No torch.

A logistic function of the logit of the score, with two parameters (Platt, Probabilistic outputs for
support vector machines, 1999). Few detections pull it little away from the score itself.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from sapnet.evaluation.operating_point import matched_scores

PRIOR = 2.0
"""Weight of the score itself, which is slope 1 and intercept 0: as much as some two dozen
detections have."""
STEPS = 50
_LEAST = 1e-4


@dataclass(frozen=True)
class ScoreCalibration:
    """How likely a mask of a score has an IoU of at least 0.5 with an object of its class.

    Attributes:
        intercept, slope: of the logit of that probability over the logit of the score.
        count: of the detections that they were fitted to.
        on: the images, for people.
    """

    intercept: float
    slope: float
    count: int
    on: str

    @classmethod
    def of_meta(cls, meta: Mapping[str, Any]) -> "ScoreCalibration | None":
        """Of a model's description; None for a model without, of before or from elsewhere."""
        stored = meta.get("score_calibration")
        return cls(**stored) if stored else None

    def to_meta(self) -> dict[str, Any]:
        """For a model's description."""
        return asdict(self)

    def __call__(self, score: float) -> float:
        """Return the probability, in [0, 1].

        Args:
            score: in [0, 1].
        """
        return float(_sigmoid(self.intercept + self.slope * _logit(np.array(score))))


def calibrate(
    detections: Sequence[Mapping[str, Any]],
    truth: Mapping[str, Any],
    image_ids: Collection[int],
    category_ids: Collection[int],
    certain: Mapping[int, float],
    on: str,
) -> ScoreCalibration:
    """Fit it to detections that are held against masks of the same images.

    Args:
        detections: COCO results with image_id.
        truth: as `read_truth` gives it; each object of the images.
        image_ids: of the images that count.
        category_ids: of the classes that count.
        certain: by annotation id how likely the mask of `truth` is right itself, in [0, 1]; 1 where
            it is not named.
        on: which images these are, for people.
    """
    pairs = matched_scores(detections, truth, image_ids, category_ids)
    scores = np.array([score for score, _ in pairs])
    right = [0.0 if id_ is None else certain.get(id_, 1.0) for _, id_ in pairs]
    intercept, slope = fit(scores, np.array(right))
    return ScoreCalibration(round(intercept, 4), round(slope, 4), len(pairs), on)


def fit(scores: npt.ArrayLike, right: npt.ArrayLike) -> tuple[float, float]:
    """Intercept and slope of least log loss, by Newton's method; the slope is never below 0.

    Args:
        scores: (N,) in [0, 1].
        right: (N,) in [0, 1], how likely each is right.
    """
    x = _logit(np.asarray(scores, float))
    columns = np.stack([np.ones_like(x), x], axis=1)
    target, start = np.asarray(right, float), np.array([0.0, 1.0])
    params = start.copy()
    for _ in range(STEPS):
        p = _sigmoid(columns @ params)
        gradient = columns.T @ (p - target) + PRIOR * (params - start)
        weight = (p * (1 - p))[:, None]
        step = np.linalg.solve(columns.T @ (weight * columns) + PRIOR * np.eye(2), gradient)
        params -= np.clip(step, -2.0, 2.0)
        if float(np.abs(step).max()) < 1e-6:
            break
    if params[1] < 0:  # a higher score is never worse: then all have the same probability
        share = (target.sum() + PRIOR / 2) / (len(target) + PRIOR)
        return float(np.log(share / (1 - share))), 0.0
    return float(params[0]), float(params[1])


def _logit(score: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    clipped = np.clip(score, _LEAST, 1 - _LEAST)
    return np.asarray(np.log(clipped / (1 - clipped)))


def _sigmoid(x: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    return np.asarray(1 / (1 + np.exp(-np.clip(x, -30, 30))))
