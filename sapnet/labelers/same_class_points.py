"""Points of other objects of the same class: what a proposal of one object must not contain."""

from collections.abc import Sequence

import numpy as np

from sapnet.data.masks import holds_points
from sapnet.types import Bag, BoolArray, PointAnnotation


def same_class_points(
    annotation: PointAnnotation, annotations_of_image: Sequence[PointAnnotation]
) -> list[PointAnnotation]:
    """The other annotations of the same class in the image, in the order given."""
    return [
        other
        for other in annotations_of_image
        if other.category_id == annotation.category_id and other.id != annotation.id
    ]


def point_containment(
    bag: Bag, annotation: PointAnnotation, annotations_of_image: Sequence[PointAnnotation]
) -> tuple[BoolArray, BoolArray]:
    """Which proposals contain the points of other annotations of the same class.

    Returns:
        (M,) bool, true where a proposal contains at least one; and (M, J) bool, for the J points of
        `same_class_points` in their order: the t_mj of the point distance guidance (SAPNet, Eq. 2).
    """
    others = same_class_points(annotation, annotations_of_image)
    xy = np.array([(other.x, other.y) for other in others], dtype=np.float64).reshape(-1, 2)
    contains: BoolArray = np.zeros((len(bag), len(others)), dtype=np.bool_)
    if others:
        # A point outside the tight box is outside the mask: only the others read the mask.
        x1, y1, x2, y2 = np.asarray(bag.boxes, dtype=np.float64).T[:, :, None]
        near = (xy[:, 0] >= x1) & (xy[:, 0] < x2) & (xy[:, 1] >= y1) & (xy[:, 1] < y2)
        for m in np.flatnonzero(near.any(axis=1)):
            contains[m, near[m]] = holds_points(bag.masks[m], xy[near[m]])
    return np.logical_or.reduce(contains, axis=1), contains
