"""SAPNet and SAPNet++ (the methods `mil`, `sapnet` and `sapnet++`): a branch that selects."""

from dataclasses import replace

import torch
from torch import Tensor

from sapnet.config.schema import Config
from sapnet.data.batch import Batch, ObjectMasks, PseudoLabels
from sapnet.data.sampler import Step
from sapnet.labelers.bag_labeler import BagLabeler
from sapnet.labelers.delivery import overlaps_with_drawn
from sapnet.labelers.sapnet.bag_batch import Bags
from sapnet.labelers.sapnet.selection import with_vote
from sapnet.labelers.sapnet.selector import MilBranch, MilResult
from sapnet.types import PseudoMask


class SapnetLabeler(BagLabeler):
    """Selects by multiple-instance learning; see `MilBranch`."""

    def __init__(
        self, config: Config, *, num_classes: int, in_channels: int, strides: tuple[int, ...]
    ) -> None:
        super().__init__(config)
        self.mil = MilBranch(
            num_classes=num_classes, in_channels=in_channels, strides=strides, config=config.mil
        )

    def select(
        self, batch: Batch, bags: Bags, features: list[Tensor], step: Step | None
    ) -> MilResult:
        """Select by the branch, with its losses; completeness counts after its warm-up."""
        sizes = torch.tensor([sample.size for sample in batch.samples])
        use_completeness = step is None or step.fraction >= self.config.mil.completeness_warmup
        result: MilResult = self.mil(features, bags, sizes, batch.generators, use_completeness)
        return result

    def deliver(
        self, batch: Batch, features: list[Tensor], labels: PseudoLabels, objects: ObjectMasks
    ) -> list[PseudoMask]:
        """By the selection in which the segmenter has a vote (`output.segmenter_vote`)."""
        output = self.config.output
        if output.segmenter_vote and labels.selection is not None:
            bags = batch.samples[0].record.bags
            overlaps = overlaps_with_drawn(batch, objects, output.stride)
            voted = with_vote(labels.selection, bags, overlaps, output.segmenter_vote)
            labels = replace(labels, selection=voted)
        return super().deliver(batch, features, labels, objects)
