"""Point distance guidance (PDG), Eq. 2, in the form that does what the paper means by it.

Everything here depends on the image's points and masks alone, not on weights: it is computed
once an image, and it is unchanged by scaling and flipping the input.
"""

import numpy as np

from sapnet.types import BoolArray, FloatArray


def mean_spacing(points: np.ndarray) -> float:
    """Mean distance from a point to its nearest neighbour; 1 where there is no second place.

    Args:
        points: (N, 2) float xy, pixels.
    """
    if len(points) < 2:
        return 1.0
    distances = np.linalg.norm(points[:, None] - points[None], axis=-1)
    np.fill_diagonal(distances, np.inf)
    spacing = float(distances.min(axis=1).mean())
    return spacing if spacing > 0 else 1.0


def contained_distance(
    point: np.ndarray, others: np.ndarray, contains: BoolArray, spacing: float
) -> FloatArray:
    """W_im of Eq. 2: how far away the contained neighbours are, in units of the mean spacing.

    One in the very same place counts as a hundredth of the spacing, so that it is not lost.

    Args:
        point: (2,) xy of the bag's own annotation.
        others: (J, 2) xy of the other points of its class.
        contains: (M, J) bool, whether proposal m contains point j (t_mj).
        spacing: `mean_spacing` of the image.

    Returns:
        (M,) float32, the sum of the distances to the points contained.
    """
    distance = np.maximum(np.linalg.norm(others - point, axis=1) / spacing, 0.01)
    return (contains @ distance).astype(np.float32)


def distance_score(weight: np.ndarray, exponent: float) -> FloatArray:
    """S_dis: sigmoid(1/W)^d, and exactly 1 where W = 0 (never computed through 1/0).

    The sign of d is the stated intent (a penalty), not the printed one.

    Args:
        weight: W, any shape, >= 0.
        exponent: d, > 0.

    Returns:
        float32 in (0, 1], of the shape of `weight`.
    """
    positive = weight > 0
    inverse = np.divide(1.0, weight, out=np.zeros_like(weight, dtype=np.float64), where=positive)
    score = (1.0 / (1.0 + np.exp(-inverse))) ** exponent
    return np.where(positive, score, 1.0).astype(np.float32)
