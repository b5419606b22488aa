"""SAPNet and SAPNet++ (the methods `mil`, `sapnet` and `sapnet++`): a branch that selects."""

import torch
from torch import Tensor

from sapnet.config.schema import Config
from sapnet.data.batch import Batch
from sapnet.data.sampler import Step
from sapnet.labelers.bag_labeler import BagLabeler
from sapnet.labelers.sapnet.bag_batch import Bags
from sapnet.labelers.sapnet.selector import MilBranch, MilResult


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
