"""P2Seg (the method `p2seg`): mutual distillation of a semantic map and an instance map.

The semantic map is painted from what the bags expect. S2I splits it among the points of each class,
by offsets that a head learns; I2S tells by learned affinities which cells belong together, and
spreads their classes along these. What the segmenter learns are the objects that both give.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from sapnet.config.schema import Config
from sapnet.data.batch import Batch, ObjectMasks, PseudoLabels, Selection
from sapnet.data.masks import holds_points
from sapnet.data.resize import MASK_STRIDE
from sapnet.data.sampler import Step
from sapnet.data.samples import Sample
from sapnet.labelers.delivery import at_image_size, content, refined_masks
from sapnet.labelers.p2seg.affinity import affinity_loss, spread
from sapnet.labelers.p2seg.heads import COARSE, Heads, Maps
from sapnet.labelers.p2seg.parts import OffsetTargets, offset_targets, vote
from sapnet.labelers.p2seg.semantic import (
    UNKNOWN,
    cells_of,
    expected_masks,
    paint,
    points_on_input,
)
from sapnet.labelers.sapnet.labeler import SapnetLabeler
from sapnet.types import Rle
from sapnet.utils.device import async_to_host, to_device
from sapnet.utils.distributed import global_sum

LEAST_CELLS = 3
EPS = 1e-6


@dataclass(frozen=True)
class ImageTargets:
    """What the heads learn from one image, and what the segmenter does; on the CPU.

    Attributes:
        painted: (h, w) int64, the semantic map.
        offsets: of S2I.
        groups: (h / 4, w / 4) int64, of I2S: the object, N for ground, -1 unknown.
        masks: (N, h, w) float32 in [0, 1], each object's.
        weights: (N, h, w) float32 in [0, 1], how far each pixel of them is known.
    """

    painted: Tensor
    offsets: OffsetTargets
    groups: Tensor
    masks: Tensor
    weights: Tensor


class P2SegLabeler(SapnetLabeler):
    """Selects as SAPNet does, and makes its own masks of what the bags expect under that."""

    def __init__(
        self, config: Config, *, num_classes: int, in_channels: int, strides: tuple[int, ...]
    ) -> None:
        super().__init__(config, num_classes=num_classes, in_channels=in_channels, strides=strides)
        self.num_classes = num_classes
        self.heads = Heads(
            num_classes=num_classes,
            in_channels=in_channels,
            channels=config.p2seg.channels,
            embedding=config.p2seg.embedding,
        )

    def forward(
        self, batch: Batch, features: list[Tensor], output: object, step: Step | None = None
    ) -> PseudoLabels:
        """The objects of both maps as labels, with the losses of both."""
        bags = self.collate(batch.samples)
        result = self.select(batch, bags, features, step)
        maps = self.heads(features[0])
        classes = self.classes(maps, step)
        index, posterior, offset, classes = async_to_host(
            result.selected, result.posterior, maps.offset, classes
        )()
        counts = [len(sample.record.bags) for sample in batch.samples]
        shares = posterior.split(counts)
        learning = step is not None
        targets = [
            self.targets(
                sample, shares[i].numpy(), offset[i], classes[i], batch.mask_size, learning
            )
            for i, sample in enumerate(batch.samples)
        ]
        losses = dict(result.losses)
        if learning:
            losses |= self.distillation(maps, targets)
        device = batch.images.device
        return PseudoLabels(
            classes=list(bags.labels.split(counts)),
            assignment=[target.masks >= 0.5 for target in targets],
            masks=[to_device(target.masks, device) for target in targets],
            boxes=list(result.boxes.split(counts)),
            pixel_weights=[to_device(target.weights, device) for target in targets],
            losses=losses,
            selection=Selection(index, result.posterior, result.expected_iou),
            undecided=result.undecided,
        )

    @torch.no_grad()
    def classes(self, maps: Maps, step: Step | None) -> Tensor:
        """The classes that I2S gives each pixel, (B, K + 1, h, w) in [0, 1].

        They are spread over cells at stride 16; what a cell's classes gain or lose by that, its
        pixels do. Zeros until I2S sets in.
        """
        config = self.config.p2seg
        probs = maps.semantic.softmax(1)
        waits = step is not None and step.fraction < config.warmup
        without = not len(probs)  # of images, as a process of several may be
        if not config.instance_to_semantic or waits or without:
            return torch.zeros_like(probs)
        coarse = F.avg_pool2d(probs, COARSE)
        propagated = torch.stack(
            [
                spread(of_image, embedding, config.exponent, config.reach)
                for of_image, embedding in zip(coarse, maps.embedding, strict=True)
            ]
        )
        gain = F.interpolate(
            propagated / coarse.clamp(min=EPS), size=probs.shape[-2:], mode="bilinear"
        )
        changed = probs * gain
        return changed / changed.sum(1, keepdim=True).clamp(min=EPS)

    def targets(
        self,
        sample: Sample,
        posterior: np.ndarray,
        offset: Tensor,
        propagated: Tensor,
        shape: tuple[int, int],
        learning: bool,
    ) -> ImageTargets:
        """What one image teaches. Everything is on the CPU.

        Args:
            sample: the image.
            posterior: (N, M) array, probabilities of its bags' masks.
            offset: (2, h, w), the head's.
            propagated: (K + 1, h, w), the classes that I2S gives; zeros before it does.
            shape: (h, w) of the batch's grid.
            learning: masks to learn are whole, each pixel weighed by the probability of its class;
                those to deliver are these probabilities.
        """
        config, ground = self.config.p2seg, self.num_classes
        labels = torch.from_numpy(sample.record.labels)
        points = points_on_input(sample)
        h, w = (-(-side // MASK_STRIDE) for side in sample.size)
        expected = expected_masks(sample, posterior, shape)
        painted = paint(expected, labels, (h, w), ground, config.object_from, config.ground_to)
        rows, columns = cells_of(points, sample.size)
        painted[rows, columns] = labels
        least = max(LEAST_CELLS, ceil(config.least_part * sample.scale[0] * sample.scale[1] / 16))
        offsets = offset_targets(painted, points, labels, least)
        probs, weight = self.probabilities(painted, propagated, (h, w), learning)
        best = probs.max(0)
        semantic = torch.where(weight > 0, best.indices, UNKNOWN)
        semantic[rows, columns] = labels
        owner = vote(semantic.masked_fill(semantic == ground, UNKNOWN), offset, points, labels)
        owner[rows, columns] = torch.arange(len(labels))
        own = torch.arange(len(labels))[:, None, None] == owner
        masks = own.float() if learning else own * probs[labels]
        masks[torch.arange(len(labels)), rows, columns] = 1.0
        weights = (best.values * weight).expand(len(labels), -1, -1)
        groups = owner.masked_fill(semantic == ground, len(labels))
        middle = slice(COARSE // 2, None, COARSE)
        return ImageTargets(painted, offsets, groups[middle, middle], masks, weights)

    def probabilities(
        self, painted: Tensor, propagated: Tensor, content: tuple[int, int], learning: bool
    ) -> tuple[Tensor, Tensor]:
        """Each pixel's classes, half painted and half what I2S tells; and where they are known.

        What is not painted is known while nothing is learned any more, from I2S alone.

        Returns:
            (K + 1, h, w) in [0, 1], and (h, w) in {0, 1}.
        """
        labeled = painted != UNKNOWN
        sure = F.one_hot(painted.clamp(min=0), self.num_classes + 1).permute(2, 0, 1)
        sure = sure * labeled
        if not propagated.any():
            return sure.float(), labeled.float()
        probs = torch.where(labeled, (sure + propagated) / 2, propagated)
        if learning:
            return probs, labeled.float()
        inside = torch.zeros_like(labeled)
        inside[: content[0], : content[1]] = True
        return probs, inside.float()

    def distillation(self, maps: Maps, targets: Sequence[ImageTargets]) -> dict[str, Tensor]:
        """L_S2I (offset and semantic map) and L_I2S, each with its weight in it."""
        config, device = self.config.p2seg, maps.semantic.device
        zero = maps.semantic.sum() * 0 + maps.offset.sum() * 0 + maps.embedding.sum() * 0
        offset, pixels, semantic, affine = zero, zero, zero, zero
        for i, target in enumerate(targets):
            labeled = to_device(target.offsets.labeled, device)
            wanted = to_device(target.offsets.offset, device)
            each = F.smooth_l1_loss(maps.offset[i], wanted, reduction="none").sum(0)
            offset, pixels = offset + (each * labeled).sum(), pixels + labeled.sum()
            semantic = semantic + hardest(
                maps.semantic[i], to_device(target.painted, device), config.hardest
            )
            if config.instance_to_semantic:
                groups = to_device(target.groups, device)
                affine = affine + affinity_loss(maps.embedding[i], groups, config.reach)
        count = max(global_sum(len(targets)), 1)
        offset = config.offset_weight * offset / global_sum(pixels.detach()).clamp(min=1)
        losses = {"s2i": config.s2i_weight * (offset + semantic / count)}
        if config.instance_to_semantic:
            losses["i2s"] = config.i2s_weight * affine / count
        return losses

    def refinements(
        self, batch: Batch, features: list[Tensor], labels: PseudoLabels, objects: ObjectMasks
    ) -> list[Rle | None]:
        """The masks of both maps, refined with `refine.enabled`.

        None stands for one that misses its point.
        """
        (sample,), probs = batch.samples, labels.masks[0]
        record, config = sample.record, self.config
        if config.refine.enabled:
            assert labels.selection is not None
            rows = list(range(len(probs)))
            masks = refined_masks(batch, features, labels.selection, rows, probs, config)
        else:
            h, w = (-(-side // config.output.stride) for side in sample.size)
            small = content(probs, batch, (h, w))
            size, threshold = record.info.size, config.output.mask_threshold
            masks = [at_image_size(mask, size, threshold) for mask in small]
        return [
            mask if mask and holds_points(mask, np.array([(a.x, a.y)])).all() else None
            for a, mask in zip(record.annotations, masks, strict=True)
        ]


def hardest(logits: Tensor, painted: Tensor, share: float) -> Tensor:
    """Mean cross-entropy over the share of the known pixels where it is highest; 0 of none.

    Args:
        logits: (K + 1, h, w).
        painted: (h, w) int64, `UNKNOWN` where it is not known.
        share: in (0, 1]; one pixel at least.
    """
    each = F.cross_entropy(logits[None], painted[None], ignore_index=UNKNOWN, reduction="none")[0]
    valid = each[painted != UNKNOWN]
    count = min(max(ceil(share * len(valid)), 1), len(valid))
    return valid.topk(count).values.sum() / max(count, 1)
