"""The MIL branch whole: PSM, then PNPG, SRM and BMS, with SASD in both stages."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from sapnet.config import MilConfig
from sapnet.distributed import global_sum
from sapnet.mil import box_mining, completeness, psm, sampling, srm
from sapnet.mil.heads import RoiFeatures, StageHead
from sapnet.mil.layout import Bags
from sapnet.mil.selection import pick, take, undecided, with_priors


@dataclass(frozen=True)
class Stage:
    """What one stage says of a batch's bags. bag: Ŝ, (N, K). complete: s, (N, M), or None.
    rank: what the pick is made by, (N, M), detached. picked: (N,) index into the bag."""

    bag: Tensor
    complete: Tensor | None
    rank: Tensor
    picked: Tensor


@dataclass(frozen=True)
class MilResult:
    """selected: (N,) index into the bag, M_srm. boxes: (N, 4) b_srm. belief: (N, M), the scores
    of what may be picked as probabilities; each row sums to 1. certainty: (N,) in [0, 1], the
    expected mask IoU of the pick under them (box IoU stands in). losses: by name. undecided: (),
    how many bags had no best."""

    selected: Tensor
    boxes: Tensor
    belief: Tensor
    certainty: Tensor
    losses: dict[str, Tensor]
    undecided: Tensor


class MilBranch(nn.Module):
    """Chooses one proposal a point; its losses teach it which (Eqs 1-13)."""

    def __init__(
        self, *, num_classes: int, in_channels: int, strides: tuple[int, ...], config: MilConfig
    ) -> None:
        super().__init__()
        self.config = config
        self.use_instances = config.instance_branch
        if self.use_instances is None:
            self.use_instances = num_classes > 1
        self.features = RoiFeatures(
            in_channels=in_channels,
            channels=config.fc_channels,
            strides=strides,
            normalize=config.normalize_features,
            sampling=config.roi_sampling,
        )
        self.psm, self.srm = (
            StageHead(
                channels=config.fc_channels,
                num_classes=num_classes,
                completeness_top_k=config.completeness_top_k,
            )
            for _ in range(2)
        )

    def forward(
        self,
        levels: list[Tensor],
        bags: Bags,
        sizes: Tensor,
        generators: Sequence[torch.Generator] | None = None,
        trust_completeness: bool = True,
    ) -> MilResult:
        """levels: FPN maps, finest first. sizes: (B, 2) (h, w) of the content of each image,
        pixels of the input. generators: one an image, draw its negatives; None computes no loss.
        trust_completeness: off while SASD warms up (its factor is left out of the picks)."""
        config = self.config
        features = bags.spread(self.features(levels, bags.rois()))
        first = self.stage(self.psm, features, bags, bags, trust_completeness)
        final = first
        if config.refinement:
            wide, wide_features = self.enrich(levels, features, bags, first, sizes)
            final = self.stage(self.srm, wide_features, wide, bags, trust_completeness)
        losses = {}
        if generators is not None:
            losses = self.losses(levels, bags, first, final, sizes, generators)
        return self.conclude(final, bags, losses)

    def stage(
        self, head: StageHead, features: Tensor, scored: Bags, bags: Bags, trust: bool
    ) -> Stage:
        """Scores over `scored` (the bags, or the bags and their positives); the pick is one of
        `bags`, since a mask is always one of the bag's own."""
        config = self.config
        scores = psm.proposal_scores(
            head.classify(features),
            head.instance(features) if self.use_instances else None,
            scored.distance if config.point_distance else torch.ones_like(scored.distance),
            scored.valid,
            config.softmax_over_k,
        )
        count = bags.valid.shape[1]
        own = take_class(scores, bags.labels)[:, :count]
        complete = None
        rank = own.detach()
        if config.completeness:
            complete = head.complete(features[:, :count], own, bags.valid)
            if trust:
                rank = rank * completeness.factor(complete.detach(), config.completeness_floor)
        rank = with_priors(rank, bags, config)
        picked = pick(rank, bags, bags.allowed(config.exclude_foreign_points))
        return Stage(psm.bag_scores(scores), complete, rank, picked)

    def enrich(
        self, levels: list[Tensor], features: Tensor, bags: Bags, first: Stage, sizes: Tensor
    ) -> tuple[Bags, Tensor]:
        """The bags with their positives (Eq. 4), and the features of both, (N, M + E, D)."""
        if not (self.config.positives and len(bags)):
            return bags, features
        distance = take(bags.distance, first.picked)
        if not self.config.point_distance:
            distance = torch.ones_like(distance)
        extra = sampling.scaled_copies(
            take(bags.boxes, first.picked), distance, self.config.positive_scales, sizes[bags.image]
        )
        more = self.features(levels, with_image(extra, bags.image)).reshape(*extra.shape[:2], -1)
        return bags.joined(extra, distance), torch.cat([features, more], dim=1)

    def losses(
        self,
        levels: list[Tensor],
        bags: Bags,
        first: Stage,
        final: Stage,
        sizes: Tensor,
        generators: Sequence[torch.Generator],
    ) -> dict[str, Tensor]:
        """L_psm (weighted), L_srm, L_sasd (weighted): those of the stages that are on."""
        config = self.config
        negatives = self.draw_negatives(levels, bags, first, sizes, generators)
        # background negatives teach the first stage too: with one class, they alone do
        negative = srm.negative_loss(
            self.psm.classify(negatives), 1.0, config.negative_loss, config.softmax_over_k
        )
        psm_loss = psm.psm_loss(first.bag, bags.labels) + negative
        losses = {"psm": config.psm_weight * psm_loss}
        if config.refinement:
            weight = take(first.bag.detach(), bags.labels)
            count = global_sum(len(bags))
            beta = global_sum(weight.sum()) / count if count else 1.0
            negative = srm.negative_loss(
                self.srm.classify(negatives), beta, config.negative_loss, config.softmax_over_k
            )
            positive = srm.positive_loss(final.bag, bags.labels, weight, config.gamma)
            losses["srm"] = srm.srm_loss(positive, negative, config.alpha)
        if config.completeness:
            losses["sasd"] = config.completeness_weight * self.sasd_loss(first, final, bags)
        return losses

    def draw_negatives(
        self,
        levels: list[Tensor],
        bags: Bags,
        first: Stage,
        sizes: Tensor,
        generators: Sequence[torch.Generator],
    ) -> Tensor:
        """Features of the negatives of the batch, (U, D); none where PNPG's half is off."""
        config = self.config
        rois = [levels[0].new_zeros(0, 5)]
        if config.negatives:
            picked = take(bags.boxes, first.picked)
            for index, (size, generator) in enumerate(zip(sizes.tolist(), generators, strict=True)):
                mine = bags.image == index
                own = bags.boxes[mine][bags.valid[mine]]
                ground = sampling.background_boxes(
                    config.background_negatives, size, own, config.background_iou, generator
                )
                parts = sampling.part_boxes(
                    picked[mine], config.part_negatives, config.part_iou, generator
                )
                boxes = torch.cat([ground, parts.flatten(0, 1)])
                rois.append(with_image(boxes, torch.full((len(boxes),), index)))
        return self.features(levels, torch.cat(rois))

    def sasd_loss(self, first: Stage, final: Stage, bags: Bags) -> Tensor:
        """Eq. 11: both stages against their own pick, and against each other."""
        loss = bags.boxes.new_zeros(())
        stages = [first] if final is first else [first, final]
        for stage in stages:
            if stage.complete is not None:
                wanted = completeness.target(bags, stage.picked)
                loss = loss + completeness.distillation_loss(stage.complete, wanted, bags.valid)
        if final is not first and first.complete is not None and final.complete is not None:
            loss = loss + completeness.distillation_loss(first.complete, final.complete, bags.valid)
        return loss

    def conclude(self, final: Stage, bags: Bags, losses: dict[str, Tensor]) -> MilResult:
        """BMS on the last stage's scores, then the bag's own mask that is nearest."""
        config = self.config
        allowed = bags.allowed(config.exclude_foreign_points)
        selected, boxes = final.picked, take(bags.boxes, final.picked)
        if config.box_mining and len(bags):
            boxes = box_mining.mine(
                final.rank,
                bags,
                final.picked,
                allowed,
                config.mining_top_k,
                config.mining_iou,
                config.mining_containing_iou,
            )
            selected = box_mining.nearest_mask(boxes, bags, final.rank, allowed)
        belief = final.rank * allowed
        belief = belief / belief.sum(dim=1, keepdim=True).clamp(min=1e-12)
        picked = take(bags.boxes, selected)
        certainty = (belief * box_mining.paired_iou(bags.boxes, picked[:, None])).sum(dim=1)
        silent = undecided(final.rank, bags.valid)
        return MilResult(selected, boxes, belief, certainty, losses, silent)


def take_class(scores: Tensor, labels: Tensor) -> Tensor:
    """scores[n, :, labels[n]]: (N, M, K) -> (N, M)."""
    return scores.gather(2, labels[:, None, None].expand(-1, scores.shape[1], 1)).squeeze(2)


def with_image(boxes: Tensor, image: Tensor) -> Tensor:
    """(N, 4) or (N, E, 4) boxes and their images (N,) as RoIs (N·E, 5)."""
    flat = boxes if boxes.ndim == 3 else boxes[:, None]
    index = image.to(boxes)[:, None, None].expand(-1, flat.shape[1], 1)
    return torch.cat([index, flat], dim=2).reshape(-1, 5)
