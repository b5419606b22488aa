"""SIM (the method `sim`): masks from boxes; where an object has none, from the box of its pick.

A box says where a mask ends (projection), the image's colours which pixels go together (pairwise).
Pseudo-masks, from a momentum copy of the segmenter, add what the dataset knows: the class by
prototypes of pixel features, the instance by the copy's own candidates.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

import torch
from torch import Tensor, nn

from sapnet.config.schema import Config
from sapnet.data.batch import Batch, ObjectMasks, PseudoLabels, Selection
from sapnet.data.masks import tight_box
from sapnet.data.resize import MASK_STRIDE
from sapnet.data.sampler import Step
from sapnet.data.samples import Sample, mask_grid
from sapnet.labelers.delivery import at_image_size, content, refined_masks
from sapnet.labelers.sapnet.labeler import SapnetLabeler
from sapnet.labelers.sapnet.selector import MilResult
from sapnet.labelers.sim.low_level import color_edges, pairwise_loss, projection_loss
from sapnet.labelers.sim.momentum import decay, follow, momentum_copy, take
from sapnet.labelers.sim.prototypes import Prototypes, semantic_map, unit
from sapnet.labelers.sim.pseudo_masks import (
    PseudoTargets,
    instance_map,
    pseudo_loss,
    pseudo_targets,
)
from sapnet.segmenters.base import Segmenter
from sapnet.types import Rle
from sapnet.utils.device import async_to_host, to_device
from sapnet.utils.distributed import gathered, global_sum


@dataclass(frozen=True)
class Given:
    """What is given of the objects of one image, on the device.

    Attributes:
        boxes: (N, 4) xyxy, pixels of the input.
        filled: (N, h, w) bool at stride 4, the boxes; a confirmed mask's own.
        confirmed: (N,) bool, whether the mask is given.
        masks: (N, h, w) bool, the given masks; the filled boxes of the others.
        weights: (N,) float in [0, 1].
    """

    boxes: Tensor
    filled: Tensor
    confirmed: Tensor
    masks: Tensor
    weights: Tensor


class SimLabeler(SapnetLabeler):
    """Learns by boxes; selects as SAPNet does, for the objects that have none."""

    copied: nn.Module | None

    def __init__(
        self, config: Config, *, num_classes: int, in_channels: int, strides: tuple[int, ...]
    ) -> None:
        super().__init__(config, num_classes=num_classes, in_channels=in_channels, strides=strides)
        self.num_classes = num_classes
        groups = num_classes + 2  # the classes, those that are rare together, ground
        self.rare, self.ground = num_classes, num_classes + 1
        most = max(config.sim.prototypes, config.sim.ground)
        self.prototypes = Prototypes(groups, most, config.solo.mask_channels)
        self.group_of = list(range(num_classes))
        self.copied = None

    def attach(self, segmenter: nn.Module) -> None:
        """Begin the momentum copy."""
        if self.config.sim.copy == "ema":
            self.copied = momentum_copy(segmenter).eval()
        self.followed = [segmenter]  # not as a part of the labeler

    def train(self, mode: bool = True) -> "SimLabeler":
        """Training mode for all but the copy."""
        super().train(mode)
        if self.copied is not None:
            self.copied.eval()
        return self

    def expect(self, objects: Sequence[int]) -> None:
        """Give each class its number of prototypes; rare ones share theirs."""
        config, counts = self.config.sim, self.prototypes.counts
        for label, count in enumerate(objects):
            rare = count < config.rare
            self.group_of[label] = self.rare if rare else label
            counts[label] = min(max(count // config.rare, 1), config.prototypes)
        counts[self.rare], counts[self.ground] = config.prototypes, max(config.ground, 1)

    def conclude(self, segmenter: nn.Module) -> None:
        """The copy is what is delivered."""
        if self.copied is not None:
            take(self.copied, segmenter)

    def forward(
        self, batch: Batch, features: list[Tensor], output: object, step: Step | None = None
    ) -> PseudoLabels:
        """Boxes as labels; the losses of the masks come with what is drawn of them."""
        bags = self.collate(batch.samples)
        result = self.select(batch, bags, features, step)
        counts = [len(sample.record.bags) for sample in batch.samples]
        given = [
            self.given(sample, bags.boxed[rows], result, rows, batch, step)
            for sample, rows in zip(batch.samples, _spans(counts), strict=True)
        ]
        (index,) = async_to_host(result.selected)()
        # MIL is for the objects without a box; without any, nothing of it is learned
        unboxed = global_sum(
            sum(int(not a.guide) for s in batch.samples for a in s.record.annotations)
        )
        labels = PseudoLabels(
            classes=list(bags.labels.split(counts)),
            assignment=[of_image.masks.cpu() for of_image in given],
            masks=[of_image.masks for of_image in given],
            boxes=[of_image.boxes for of_image in given],
            weights=[of_image.weights for of_image in given],
            by_candidates=True,
            losses={name: loss * bool(unboxed) for name, loss in result.losses.items()},
            selection=Selection(index, result.posterior, result.expected_iou),
            undecided=result.undecided,
        )
        if step is None:
            return labels
        targets = self.pseudo_targets(batch, labels, given, output, step)

        def mask_losses(objects: ObjectMasks) -> dict[str, Tensor]:
            losses = self.low_level(batch, given, objects, step)
            if targets is not None:
                losses["pseudo"] = self.config.sim.pseudo_weight * self.pseudo(
                    objects, given, targets
                )
            return losses

        return replace(labels, mask_losses=mask_losses)

    def given(
        self,
        sample: Sample,
        boxed: Tensor,
        result: MilResult,
        rows: slice,
        batch: Batch,
        step: Step | None,
    ) -> Given:
        """What is given of an image's objects; b_srm and its certainty where no box is."""
        device = batch.images.device
        boxes = result.boxes[rows].detach().clone()
        started = step is None or step.fraction >= self.config.sim.unboxed_from
        weights = result.expected_iou[rows].detach().clamp(0, 1) * started
        masked = [a.mask is not None for a in sample.record.annotations]
        confirmed = to_device(torch.tensor(masked, dtype=torch.bool), device)
        weights = torch.where(to_device(boxed, device) | confirmed, 1.0, weights)
        for n, annotation in enumerate(sample.record.annotations):
            if annotation.mask is not None:
                x, y, w, h = tight_box(annotation.mask)
                placed = sample.placed(torch.tensor([[x, y, x + w, y + h]]).numpy())
                boxes[n] = torch.from_numpy(placed[0]).to(boxes)
        filled = filled_boxes(boxes, batch.mask_size)
        masks = filled.clone()
        for n, annotation in enumerate(sample.record.annotations):
            if annotation.mask is not None:
                grid = to_device(sample.mask(annotation.mask, MASK_STRIDE), device)
                masks[n] = False
                masks[n, : grid.shape[0], : grid.shape[1]] = grid
        return Given(boxes, filled, confirmed, masks, weights)

    @torch.no_grad()
    def pseudo_targets(
        self,
        batch: Batch,
        labels: PseudoLabels,
        given: list[Given],
        output: object,
        step: Step,
    ) -> list[PseudoTargets] | None:
        """M̂ of each image, from the copy; it follows first, and the prototypes follow it.

        None while low-level cues alone are learned from.
        """
        config, (segmenter,) = self.config.sim, self.followed
        if self.copied is not None:
            follow(segmenter, self.copied, decay(step, config.horizon))
        if step.fraction < config.warmup / 2:
            return None
        teacher: Segmenter = segmenter if self.copied is None else self.copied  # type: ignore[assignment]
        if self.copied is not None:
            _, output = self.copied(batch.images)
        drawn = teacher.object_masks(output, labels)
        assert drawn.candidates is not None
        features = teacher.pixel_features(output).float()
        made, pixels = [], []
        for i, sample in enumerate(batch.samples):
            h, w = (-(-side // MASK_STRIDE) for side in sample.size)
            image = features[i] - features[i, :, :h, :w].mean((1, 2), keepdim=True)
            image = unit(image, 0)
            instances = instance_map(
                drawn.candidates[i], given[i].boxes / MASK_STRIDE, config.instance_exponent
            )
            target = self.pseudo_masks(image, instances, labels.classes[i], given[i])
            made.append(target)
            pixels.append(self.pixels(image, target, labels.classes[i], given[i], (h, w), batch, i))
        self.update_prototypes(pixels, step)
        return made if step.fraction >= config.warmup else None

    def pseudo_masks(
        self, features: Tensor, instances: Tensor, classes: Tensor, given: Given
    ) -> PseudoTargets:
        """M̂ and W of one image's objects; M_I alone for a class that has no prototypes yet."""
        config = self.config.sim
        ground = None
        if config.ground and self.prototypes.ready(self.ground):
            ground = self.prototypes.of(self.ground)
        semantic = instances.clone()
        maps: dict[int, Tensor] = {}
        for n, label in enumerate(classes.tolist()):
            group = self.group_of[label]
            if self.prototypes.ready(group):
                if group not in maps:
                    own = self.prototypes.of(group)
                    maps[group] = semantic_map(features, own, ground, config.tau)
                semantic[n] = maps[group]
        target = pseudo_targets(
            semantic, instances, given.filled, config.alpha, config.high, config.low
        )
        confirmed = given.confirmed[:, None, None]
        return PseudoTargets(
            torch.where(confirmed, given.masks, target.masks),
            torch.where(confirmed, torch.ones_like(target.weights), target.weights),
            torch.where(confirmed, given.masks.float(), target.probs),
        )

    def pixels(
        self,
        features: Tensor,
        target: PseudoTargets,
        classes: Tensor,
        given: Given,
        size: tuple[int, int],
        batch: Batch,
        index: int,
    ) -> dict[int, Tensor]:
        """Features of some pixels of each group, (P, D): of objects by M̂, of ground off all boxes.

        Objects of weight 0 have none.
        They are drawn by the image's generator, so many that those of a batch make `sim.pixels`.
        """
        assert batch.generators is not None
        most = max(self.config.sim.pixels // self.config.train.batch_size, 1)
        inside = torch.zeros(features.shape[1:], dtype=torch.bool, device=features.device)
        inside[: size[0], : size[1]] = True
        where: dict[int, Tensor] = {}
        weights = given.weights.tolist()
        for n, label in enumerate(classes.tolist()):
            if not weights[n]:
                continue
            for group in {self.group_of[label], self.rare}:
                own = target.masks[n] & inside
                where[group] = where[group] | own if group in where else own
        where[self.ground] = inside & ~given.filled.any(0)
        drawn = {}
        for group in sorted(where):
            places = where[group].flatten().nonzero().squeeze(1)
            order = torch.randperm(len(places), generator=batch.generators[index])[:most]
            drawn[group] = features.flatten(1)[:, places[order.to(places.device)]].T
        return drawn

    def update_prototypes(self, pixels: list[dict[int, Tensor]], step: Step) -> None:
        """Move the prototypes by the pixels of all images of the batch, in their order."""
        config = self.config.sim
        done = (step.index + 1) / step.total
        everywhere = gathered([{g: p.cpu() for g, p in image.items()} for image in pixels])
        device = self.prototypes.vectors.device
        for group in range(self.ground + 1):
            parts = [image[group] for image in everywhere if group in image]
            if parts:
                of_batch = torch.cat(parts).to(device)
                self.prototypes.update(group, of_batch, done, config.epsilon, config.rounds)

    def low_level(
        self, batch: Batch, given: list[Given], objects: ObjectMasks, step: Step
    ) -> dict[str, Tensor]:
        """L_proj and L_pair, means over the objects that are drawn, by their weights."""
        config, zero = self.config.sim, batch.images.new_zeros(())
        projection, pairwise, total = [zero], [zero], [zero]
        for i, sample in enumerate(batch.samples):
            rows = objects.drawn[i]
            probs, of_image = objects.probs[i][rows], given[i]
            weights, filled = of_image.weights[rows], of_image.filled[rows]
            edges = color_edges(batch.images[i], sample.size, config.dilation, config.alike)
            edges = to_device(edges, probs.device)
            projection.append((projection_loss(probs, filled) * weights).sum())
            pairs = pairwise_loss(probs, filled, edges, config.dilation)
            pairwise.append((pairs * weights).sum())
            total.append(weights.sum())
        count = global_sum(torch.stack(total).sum().detach()).clamp(min=1)
        ramp = min(step.fraction / config.warmup, 1.0) if config.warmup else 1.0
        return {
            "proj": config.projection_weight * torch.stack(projection).sum() / count,
            "pair": ramp * torch.stack(pairwise).sum() / count,
        }

    def pseudo(
        self, objects: ObjectMasks, given: list[Given], targets: list[PseudoTargets]
    ) -> Tensor:
        """L_pseudo (Eq. 8): the mean over the batch's candidates, by their objects' weights."""
        assert objects.candidates is not None
        zero = self.prototypes.vectors.new_zeros(())
        terms, weights = [zero], [zero]
        for candidates, of_image, target in zip(objects.candidates, given, targets, strict=True):
            own = of_image.weights[candidates.objects]
            terms.append((pseudo_loss(candidates, target) * own).sum())
            weights.append(own.sum())
        total = global_sum(torch.stack(weights).sum().detach()).clamp(min=1)
        return torch.stack(terms).sum() / total

    def masks_to_draw(self, batch: Batch, labels: PseudoLabels) -> Tensor:
        """The picks; the labels themselves are boxes."""
        assert labels.selection is not None
        index = labels.selection.index.numpy()
        return mask_grid(batch.samples[0], index, batch.mask_size, MASK_STRIDE)

    def refinements(
        self, batch: Batch, features: list[Tensor], labels: PseudoLabels, objects: ObjectMasks
    ) -> list[Rle | None]:
        """M_I of each object, cut to its box; refined with `refine.enabled`."""
        (sample,), config, selection = batch.samples, self.config, labels.selection
        assert objects.candidates is not None
        assert selection is not None
        boxes, rows = labels.boxes[0], objects.drawn[0].tolist()
        probs = instance_map(
            objects.candidates[0], boxes / MASK_STRIDE, config.sim.instance_exponent
        )
        probs = probs * filled_boxes(boxes, batch.mask_size)
        if config.refine.enabled:
            return refined_masks(batch, features, selection, rows, probs, config)
        h, w = (-(-side // config.output.stride) for side in sample.size)
        small = content(probs, batch, (h, w))
        size, threshold = sample.record.info.size, config.output.mask_threshold
        return [
            at_image_size(mask, size, threshold) if n in rows else None
            for n, mask in enumerate(small)
        ]


def filled_boxes(boxes: Tensor, shape: tuple[int, int]) -> Tensor:
    """Boxes (N, 4) xyxy in pixels of the input as masks (N, h, w) bool at stride 4.

    A cell is in where its centre is; the cell of the box's own centre always is.
    """
    h, w = shape
    ys, xs = ((torch.arange(side, device=boxes.device) + 0.5) * MASK_STRIDE for side in (h, w))
    x1, y1, x2, y2 = (edge[:, None] for edge in boxes.unbind(1))
    columns = ((xs >= x1) & (xs < x2)) | _middle(x1, x2, w)
    rows = ((ys >= y1) & (ys < y2)) | _middle(y1, y2, h)
    return rows[:, :, None] & columns[:, None]


def _middle(low: Tensor, high: Tensor, side: int) -> Tensor:
    """Which cell of a side holds the middle, (N, side) bool."""
    middle = ((low + high) / 2 / MASK_STRIDE).long().clamp(0, side - 1)
    return torch.arange(side, device=low.device) == middle


def _spans(counts: list[int]) -> list[slice]:
    ends = torch.tensor([0, *counts]).cumsum(0).tolist()
    return [slice(first, last) for first, last in pairwise(ends)]
