"""Which images to look at next: those of which a model is expected to learn most.

Each image has four terms from 0 to 1. Two come from a model's masks: how unsure they are, and how
far they contradict each other or the proposals. Two come from how images look, by
`sapnet.data.descriptor`: how unlike an image is those that are done (novelty), and those that are
done or stand before it (diversity). Again and again the best of what is left is taken: greedy, as
in core-set selection (Sener and Savarese, Active learning for convolutional neural networks, 2018).
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Vectors = npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Weights:
    """How much each term counts."""

    uncertainty: float = 1.0
    disagreement: float = 0.25
    novelty: float = 0.5
    diversity: float = 0.5


@dataclass(frozen=True)
class Ranking:
    """Images in their order, N of them, with the terms that they got their places by.

    Attributes:
        order: (N,) places in what was ranked; the first is to be looked at first.
        score: (N,) the weighted sum of the terms, in the order of `order`, as are the terms: each
            from 0 to 1, NaN where it is not known. What is not known counts as the mean of others.
    """

    order: npt.NDArray[np.int64]
    score: Floats
    uncertainty: Floats
    disagreement: Floats
    novelty: Floats
    diversity: Floats


WEIGHTS = Weights()
POOL = 5_000
"""Images among which the next is looked for; others follow behind them."""
REFERENCES = 2_000
"""Images that are done with which others are compared."""
TOP = 0.95
"""The quantile of a term that counts as 1: an odd image does not flatten the others."""
_SAMPLE = 500  # of images, by which distances are scaled
_ROWS = 4_096


def rank(
    uncertainty: Floats,
    disagreement: Floats,
    vectors: Vectors,
    done: Vectors,
    *,
    chosen: int,
    weights: Weights = WEIGHTS,
) -> Ranking:
    """Put images into the order in which to look at them.

    Args:
        uncertainty: (N,) of an image's masks, 0 and more; NaN where no model has looked at it.
        disagreement: (N,), likewise.
        vectors: (N, F) of how images look; NaN where that is not known.
        done: (M, F) of the images that need no look. Where there are none, the most typical image
            comes first.
        chosen: so many are chosen one by one; others follow by their score without diversity.
    """
    unit = _unit(vectors)
    near = _nearest(vectors, done[_spaced(len(done), REFERENCES)]) / unit
    terms = [_scaled(uncertainty), _scaled(disagreement), np.minimum(near, 1)]
    shares = (weights.uncertainty, weights.disagreement, weights.novelty)
    base = sum((w * _filled(term) for w, term in zip(shares, terms, strict=True)), np.zeros(1))
    order, diversity = _greedy(base, vectors / np.float32(unit), near, chosen, weights.diversity)
    by_place = [term[order] for term in (*terms, diversity)]
    score = base[order] + weights.diversity * np.nan_to_num(by_place[-1])
    return Ranking(order, score, *by_place)


def _greedy(
    base: Floats, vectors: Vectors, near: Floats, chosen: int, weight: float
) -> tuple[npt.NDArray[np.int64], Floats]:
    """Return the order, and the diversity of each image when it was taken; NaN of the others."""
    pool = np.argsort(-base, kind="stable")
    pool, rest = pool[:POOL], pool[POOL:]
    own, near = vectors[pool], near[pool]
    typical = bool(np.isnan(near).all())
    if typical:
        near = 1 - _scaled(_nearest_mean(own))
    squares = np.square(own).sum(1)
    left = np.ones(len(pool), bool)
    order: list[int] = []
    diversity = np.full(len(base), np.nan)
    for _ in range(min(chosen, len(pool))):
        apart = np.minimum(near, 1)
        score = np.where(left, base[pool] + weight * _filled(apart), -np.inf)
        best = int(np.argmax(score))
        order.append(best)
        left[best] = False
        if not typical:
            diversity[pool[best]] = apart[best]
        square = squares + squares[best] - 2 * (own @ own[best])
        distance = np.sqrt(np.maximum(square, 0)).astype(np.float64)
        near = distance if typical else np.fmin(near, distance)
        typical = False
    return np.concatenate([pool[order], pool[left], rest]).astype(np.int64), diversity


def _nearest(vectors: Vectors, others: Vectors) -> Floats:
    """Distance of each vector to the nearest of others; NaN where there is none."""
    others = others[np.isfinite(others).all(1)]
    nearest = np.full(len(vectors), np.nan)
    if not len(others):
        return nearest
    squares = np.square(others).sum(1)
    for start in range(0, len(vectors), _ROWS):
        some = vectors[start : start + _ROWS]
        square = np.square(some).sum(1)[:, None] - 2 * some @ others.T + squares
        nearest[start : start + _ROWS] = np.sqrt(np.maximum(square.min(1), 0))
    return nearest


def _nearest_mean(vectors: Vectors) -> Floats:
    """Distance of each vector to the mean of all."""
    finite = vectors[np.isfinite(vectors).all(1)]
    if not len(finite):
        return np.full(len(vectors), np.nan)
    distance: Floats = np.sqrt(np.square(vectors - finite.mean(0)).sum(1, dtype=np.float64))
    return distance


def _unit(vectors: Vectors) -> float:
    """The median distance of two images; 1 where there is none."""
    sample = vectors[np.isfinite(vectors).all(1)]
    sample = sample[_spaced(len(sample), _SAMPLE)].astype(np.float64)
    if len(sample) < 2:
        return 1.0
    squares = np.square(sample).sum(1)
    square = squares[:, None] + squares - 2 * sample @ sample.T
    apart = np.sqrt(np.maximum(square[np.triu_indices(len(sample), 1)], 0))
    return float(np.median(apart)) or 1.0


def _scaled(term: Floats) -> Floats:
    """The term from 0 to 1; NaN stays."""
    values = term[np.isfinite(term)]
    top = float(np.quantile(values, TOP) or values.max()) if len(values) else 0.0
    scaled: Floats = np.minimum(term / (top or 1.0), 1.0)
    return scaled


def _filled(term: Floats) -> Floats:
    """What is not known is as the others are on average."""
    finite = np.isfinite(term)
    return np.where(finite, term, term[finite].mean() if finite.any() else 0.0)


def _spaced(count: int, most: int) -> npt.NDArray[np.int64]:
    """At most so many places, evenly apart."""
    return np.linspace(0, max(count - 1, 0), min(count, most)).astype(np.int64)
