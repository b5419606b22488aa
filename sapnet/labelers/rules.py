"""Selection without learning: the most confident proposal, or the one that its bag agrees with.

`consensus` leaves out a proposal that holds another annotation's point of the same class, unless
all of them do. `box-rule` takes the proposal that fits the object's box best, and where there is no
box the same as `consensus`.
"""

import torch
from torch import Tensor
from torch.nn.functional import one_hot

from sapnet.data.batch import Batch
from sapnet.data.sampler import Step
from sapnet.labelers.bag_labeler import BagLabeler
from sapnet.labelers.consensus import consensus_pick
from sapnet.labelers.sapnet.bag_batch import Bags
from sapnet.labelers.sapnet.selection import pick, take
from sapnet.labelers.sapnet.selector import MilResult

BOX_RULE_MEDOID = 2.0
"""Exponent of a mask's agreement with its bag, without which the ellipse in the box always wins."""


class RuleLabeler(BagLabeler):
    """The methods `sam-top1`, `consensus` and `box-rule`, by `mil.rule`."""

    def select(
        self, batch: Batch, bags: Bags, features: list[Tensor], step: Step | None
    ) -> MilResult:
        """Like the MIL branch, with all of the posterior on the selected proposal."""
        if self.config.mil.rule == "confidence":
            selected = pick(bags.confidence, bags, bags.valid)
            expected_iou = take(bags.confidence, selected)
        else:
            picks = [
                consensus_pick(bag, excluded)
                for sample in batch.samples
                for bag, excluded in zip(
                    sample.record.bags,
                    self.collate.features(sample.record).contains_other_point,
                    strict=True,
                )
            ]
            selected = torch.tensor(picks, dtype=torch.int64)
            if self.config.mil.rule == "box":
                score = bags.box_fit.exp() * bags.medoid**BOX_RULE_MEDOID
                selected = torch.where(bags.boxed, pick(score, bags, bags.valid), selected)
            expected_iou = take(bags.medoid, selected)
        posterior = one_hot(selected, bags.valid.shape[1]).float()
        none = torch.zeros((), dtype=torch.int64)
        boxes = bags.own_box_or(take(bags.boxes, selected))
        result = MilResult(selected, boxes, posterior, expected_iou, {}, none)
        return result.to(batch.images.device)
