"""SAPNet++ whole: SOLOv2 and, for training alone, the MIL branch over the same pyramid."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import one_hot

from sapnet.config.schema import Config
from sapnet.data.resize import MASK_STRIDE
from sapnet.data.samples import Sample, collate, pad
from sapnet.labelers.affinity.refine import Guides, guides_of
from sapnet.labelers.rules import consensus_pick
from sapnet.labelers.sapnet.bag_batch import Bags
from sapnet.labelers.sapnet.selection import pick, take
from sapnet.labelers.sapnet.selector import MilBranch, MilResult
from sapnet.segmenters.backbones import BackboneWithFpn, WeightsOrigin, build_backbone
from sapnet.segmenters.solov2 import SoloHead, SoloOutput, SoloV2
from sapnet.utils.device import to_device
from sapnet.utils.precision import mixed


@dataclass(frozen=True)
class Pass:
    """One pass over a batch: pyramid, SOLOv2's output, the bags (on the CPU) and what was picked of
    them. guides: of each image, at the size of the mask features, where they were asked for."""

    images: Tensor
    features: list[Tensor]
    output: SoloOutput
    bags: Bags
    mil: MilResult
    guides: list[Guides] | None


class SapNet(nn.Module):
    """`solo` is what remains after training; `mil` chooses the masks it learns from."""

    def __init__(self, solo: SoloV2, mil: MilBranch, config: Config) -> None:
        super().__init__()
        self.solo, self.mil, self.config = solo, mil, config

    def forward(
        self,
        samples: list[Sample],
        generators: Sequence[torch.Generator] | None = None,
        trust_completeness: bool = True,
        frame: tuple[int, int] | None = None,
        guided: bool = False,
    ) -> Pass:
        """Run both branches on a batch. generators: see `MilBranch`; None computes no MIL loss.
        frame: see `pad`. guided: begin the trees that masks are refined along."""
        device = next(self.parameters()).device
        images = to_device(pad(samples, frame), device)
        images = images.contiguous(memory_format=torch.channels_last)
        bags = collate(samples)
        with mixed(device, self.config.train.precision):
            features, output = self.solo(images)
            guides = self.guides(images, features) if guided else None
            if self.config.mil.rule == "learned":
                sizes = torch.tensor([s.size for s in samples])
                mil = self.mil(features, bags, sizes, generators, trust_completeness)
            else:
                mil = self.by_rule(samples, bags).to(device)
        return Pass(images, features, output, bags, mil, guides)

    def guides(self, images: Tensor, features: list[Tensor]) -> list[Guides]:
        """Of each image, along which its masks at stride 4 are refined."""
        return [
            guides_of(
                image, [level[i] for level in features], quarter_size(images), self.config.refine
            )
            for i, image in enumerate(images)
        ]

    def by_rule(self, samples: list[Sample], bags: Bags) -> MilResult:
        """`sam-top1` and `consensus`: a pick without learning, as if a branch had made it."""
        if self.config.mil.rule == "confidence":
            selected = pick(bags.confidence, bags, bags.valid)
            certainty = take(bags.confidence, selected)
        else:
            records = [s.record for s in samples]
            picks = [
                consensus_pick(bag, foreign)
                for record in records
                for bag, foreign in zip(record.bags, record.foreign, strict=True)
            ]
            selected = torch.tensor(picks, dtype=torch.int64)
            certainty = take(bags.medoid, selected)
        belief = one_hot(selected, bags.valid.shape[1]).float()
        none = torch.zeros((), dtype=torch.int64)
        return MilResult(selected, take(bags.boxes, selected), belief, certainty, {}, none)


def build_model(
    config: Config, num_classes: int, weights: Path | None, seed: int, allow_download: bool = True
) -> tuple[SapNet, WeightsOrigin]:
    """A SapNet with its backbone's weights loaded and everything else random from `seed`."""
    generator = torch.Generator().manual_seed(seed)
    backbone, origin = build_backbone(
        config.backbone, weights, allow_download=allow_download, generator=generator
    )
    return assemble(config, num_classes, backbone, seed), origin


def assemble(config: Config, num_classes: int, backbone: BackboneWithFpn, seed: int) -> SapNet:
    """A SapNet on a backbone, everything else random from `seed`."""
    # layers draw their first values from the global generator: lend it the seed, give it back
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        head = SoloHead(
            num_classes=num_classes, in_channels=backbone.out_channels, config=config.solo
        )
        mil = MilBranch(
            num_classes=num_classes,
            in_channels=backbone.out_channels,
            strides=backbone.strides,
            config=config.mil,
        )
    return SapNet(SoloV2(backbone, head), mil, config)


def quarter_size(images: Tensor) -> tuple[int, int]:
    """(h, w) of the mask features of a padded batch (B, 3, H, W)."""
    return images.shape[2] // MASK_STRIDE, images.shape[3] // MASK_STRIDE


def mask_grid(sample: Sample, picked: np.ndarray, shape: tuple[int, int], stride: int) -> Tensor:
    """M_srm of one image on the batch's padded grid: (N, *shape) bool.

    picked: (N,) index into each bag. shape: (h, w) of the batch's grid at `stride`.
    """
    masks = torch.zeros(len(picked), *shape, dtype=torch.bool)
    for row, bag, index in zip(masks, sample.record.bags, picked, strict=True):
        mask = sample.mask(bag.masks[int(index)], stride)
        row[: mask.shape[0], : mask.shape[1]] = mask
    return masks
