"""Selection without learning: the most confident proposal, or the one that its bag agrees with.

`consensus` leaves out a proposal that holds another annotation's point of the same class, unless
all of them do.
"""

import numpy as np
import torch
from pycocotools import mask as coco_mask
from torch import Tensor
from torch.nn.functional import one_hot

from sapnet.data.batch import Batch
from sapnet.data.sampler import Step
from sapnet.labelers.bag_labeler import BagLabeler
from sapnet.labelers.sapnet.bag_batch import Bags
from sapnet.labelers.sapnet.selection import pick, take
from sapnet.labelers.sapnet.selector import MilResult
from sapnet.types import Bag, BoolArray


class RuleLabeler(BagLabeler):
    """The methods `sam-top1` and `consensus`, by `mil.rule`."""

    def select(
        self, batch: Batch, bags: Bags, features: list[Tensor], step: Step | None
    ) -> MilResult:
        """As a branch that is sure of what it selects."""
        if self.config.mil.rule == "confidence":
            selected = pick(bags.confidence, bags, bags.valid)
            certainty = take(bags.confidence, selected)
        else:
            picks = [
                consensus_pick(bag, foreign)
                for sample in batch.samples
                for bag, foreign in zip(
                    sample.record.bags, self.collate.features(sample.record).foreign, strict=True
                )
            ]
            selected = torch.tensor(picks, dtype=torch.int64)
            certainty = take(bags.medoid, selected)
        belief = one_hot(selected, bags.valid.shape[1]).float()
        none = torch.zeros((), dtype=torch.int64)
        found = MilResult(selected, take(bags.boxes, selected), belief, certainty, {}, none)
        return found.to(batch.images.device)


def consensus_pick(bag: Bag, foreign: BoolArray) -> int:
    """Index of the medoid: the highest mean mask IoU to the rest of the bag.

    foreign: (M,) bool, proposals left out of the choice unless all are; they still vote. Ties go to
    the higher confidence, then to the larger area, then to the mask's own text, so that the choice
    does not depend on the order in which the proposals arrive.
    """
    count = len(bag)
    others = np.asarray(bag.overlaps, dtype=np.float64).sum(axis=1) - np.diag(bag.overlaps)
    support = np.round(others / max(count - 1, 1), 6)
    allowed = np.flatnonzero(~foreign) if not foreign.all() else np.arange(count)
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
