"""The choice of the proposal that its bag agrees with. Needs no torch."""

import numpy as np
from pycocotools import mask as coco_mask

from sapnet.types import Bag, BoolArray


def consensus_pick(bag: Bag, excluded: BoolArray) -> int:
    """Index of the medoid: the highest mean mask IoU to the rest of the bag.

    Ties go to the higher confidence, then to the larger area, then to the mask's own text, so that
    the choice does not depend on the order in which the proposals arrive.

    Args:
        excluded: (M,) bool, proposals left out of the choice unless all are; they still vote.
    """
    count = len(bag)
    others = np.asarray(bag.overlaps, dtype=np.float64).sum(axis=1) - np.diag(bag.overlaps)
    support = np.round(others / max(count - 1, 1), 6)
    allowed = np.flatnonzero(~excluded) if not excluded.all() else np.arange(count)
    best = support[allowed].max()
    tied = [int(m) for m in allowed if support[m] == best]
    if len(tied) == 1:
        return tied[0]
    return min(
        tied,
        key=lambda m: (
            -float(bag.confidence[m]),
            -int(coco_mask.area(bag.masks[m])),
            bag.masks[m]["counts"],
        ),
    )
