"""Points of other objects of the same class: what a proposal of one object must not hold."""

from collections.abc import Sequence

import numpy as np

from sapnet.data.masks import holds_points
from sapnet.types import Bag, BoolArray, PointAnnotation


def rivals_of(
    annotation: PointAnnotation, annotations_of_image: Sequence[PointAnnotation]
) -> list[PointAnnotation]:
    """The other annotations of the same class in the image, in the order given."""
    return [
        other
        for other in annotations_of_image
        if other.category_id == annotation.category_id and other.id != annotation.id
    ]


def foreign_points(
    bag: Bag, annotation: PointAnnotation, annotations_of_image: Sequence[PointAnnotation]
) -> tuple[BoolArray, BoolArray]:
    """Which proposals hold the points of other annotations of the same class.

    Returns `foreign` (M,) bool, true where at least one is held, and `holds` (M, J) bool for the J
    rivals of `rivals_of`, in their order: the t_mj of the point distance guidance.
    """
    rivals = rivals_of(annotation, annotations_of_image)
    xy = np.array([(rival.x, rival.y) for rival in rivals], dtype=np.float64).reshape(-1, 2)
    holds: BoolArray = np.zeros((len(bag), len(rivals)), dtype=np.bool_)
    if rivals:
        # A point outside the tight box is outside the mask: only the others read the mask.
        x1, y1, x2, y2 = np.asarray(bag.boxes, dtype=np.float64).T[:, :, None]
        near = (xy[:, 0] >= x1) & (xy[:, 0] < x2) & (xy[:, 1] >= y1) & (xy[:, 1] < y2)
        for m in np.flatnonzero(near.any(axis=1)):
            holds[m, near[m]] = holds_points(bag.masks[m], xy[near[m]])
    return np.logical_or.reduce(holds, axis=1), holds
