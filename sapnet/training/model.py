"""The model in training: the segmenter that stays, and the labeler that it learns from."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from sapnet.config.schema import Config
from sapnet.data.batch import Batch, PseudoLabels
from sapnet.labelers.base import Labeler
from sapnet.labelers.build import LabelerBuilder, build_labeler
from sapnet.segmenters.backbones import BackboneWithFpn, WeightsOrigin, build_backbone
from sapnet.segmenters.base import Segmenter
from sapnet.segmenters.build import SegmenterBuilder, build_segmenter
from sapnet.utils.precision import mixed


@dataclass(frozen=True)
class Builders:
    """Builders of the two parts of a model from its configuration."""

    segmenter: SegmenterBuilder = build_segmenter
    labeler: LabelerBuilder = build_labeler


BUILDERS = Builders()


@dataclass(frozen=True)
class ForwardResult:
    """One pass over a batch: the pyramid, the segmenter's output, and what to learn from it."""

    features: list[Tensor]
    output: Any
    labels: PseudoLabels


class JointModel(nn.Module):
    """`segmenter` is what remains after training; `labeler` says what it learns."""

    def __init__(self, segmenter: Segmenter, labeler: Labeler, config: Config) -> None:
        super().__init__()
        self.segmenter, self.labeler, self.config = segmenter, labeler, config
        labeler.attach(segmenter)

    @property
    def device(self) -> torch.device:
        """The device of its parameters."""
        return next(self.parameters()).device

    def forward(self, batch: Batch, step: Any = None) -> ForwardResult:
        """Run both parts on a batch.

        Args:
            step: where training stands; None once it is over.
        """
        with mixed(self.device, self.config.train.precision):
            features, output = self.segmenter(batch.images)
            labels = self.labeler(batch, features, output, step)
        return ForwardResult(features, output, labels)


def build_model(
    config: Config,
    num_classes: int,
    weights: Path | None,
    seed: int,
    allow_download: bool = True,
    builders: Builders = BUILDERS,
) -> tuple[JointModel, WeightsOrigin]:
    """A model with its backbone's weights loaded and everything else random from `seed`."""
    generator = torch.Generator().manual_seed(seed)
    backbone, origin = build_backbone(
        config.backbone, weights, allow_download=allow_download, generator=generator
    )
    return assemble(config, num_classes, backbone, seed, builders), origin


def assemble(
    config: Config,
    num_classes: int,
    backbone: BackboneWithFpn,
    seed: int,
    builders: Builders = BUILDERS,
) -> JointModel:
    """A model on a backbone, everything else random from `seed`."""
    # layers draw their first values from the global generator: lend it the seed, give it back
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        segmenter = builders.segmenter(config, num_classes, backbone)
        labeler = builders.labeler(config, num_classes, segmenter.out_channels, segmenter.strides)
    return JointModel(segmenter, labeler, config)
