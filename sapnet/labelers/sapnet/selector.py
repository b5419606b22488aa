"""The MIL branch whole: PSM, then PNPG, SRM and BMS, with SASD in both stages."""

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

import torch
from torch import Tensor, nn

from sapnet.config.schema import MilConfig
from sapnet.labelers.sapnet import box_mining, psm, srm
from sapnet.labelers.sapnet import self_distillation as completeness
from sapnet.labelers.sapnet.bag_batch import Bags
from sapnet.labelers.sapnet.further_masks import further_picks
from sapnet.labelers.sapnet.heads import RoiFeatures, StageHead
from sapnet.labelers.sapnet.positive_negative_sampling import (
    Draws,
    draw_negatives,
    part_boxes,
    scaled_copies,
    with_image,
)
from sapnet.labelers.sapnet.roi_align import Pyramid
from sapnet.labelers.sapnet.selection import pick, take, undecided, with_priors
from sapnet.utils.device import to_device
from sapnet.utils.distributed import global_sum


@dataclass(frozen=True)
class Stage:
    """One stage's scores of a batch's bags.

    Attributes:
        bag: Ŝ, (N, K).
        complete: s, (N, M); None where SASD is off.
        learned: the scores that the heads give, (N, M), detached.
        rank: what the pick is made by, these times the priors, (N, M).
        picked: (N,) int64 index into the bag.
    """

    bag: Tensor
    complete: Tensor | None
    learned: Tensor
    rank: Tensor
    picked: Tensor


@dataclass(frozen=True)
class MilResult:
    """The proposals that were selected from a batch's bags.

    Attributes:
        selected: (N,) int64 index into the bag, M_srm.
        boxes: (N, 4) xyxy, b_srm.
        posterior: (N, M), the scores of what may be picked as probabilities; each row sums to 1.
        expected_iou: (N,) in [0, 1], expected mask IoU of the pick under the posterior (box IoU
            stands in).
        losses: by name.
        undecided: () int64, how many bags had no best proposal.
        further: (N, 3) int64, see `further_picks`; None without `mil.mps`.
        learned: (N, M), the factor of the posterior that was learned; None where nothing is.
    """

    selected: Tensor
    boxes: Tensor
    posterior: Tensor
    expected_iou: Tensor
    losses: dict[str, Tensor]
    undecided: Tensor
    further: Tensor | None = None
    learned: Tensor | None = None

    def to(self, device: torch.device) -> "MilResult":
        """The same on another device, but for the indices, which the host will ask for."""
        moved: dict[str, Any] = {
            f.name: to_device(getattr(self, f.name), device)
            for f in fields(self)
            if f.name not in ("losses", "selected", "further", "learned")
        }
        return replace(self, **moved)


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
        use_completeness: bool = True,
    ) -> MilResult:
        """Select a proposal of each bag.

        Args:
            levels: FPN maps (B, C, h, w), finest first.
            bags: on the CPU, so that the host need not wait for what it can work out itself.
            sizes: (B, 2) (h, w) of the content of each image, pixels of the input; on the CPU.
            generators: one an image, to draw its negatives; None computes no loss.
            use_completeness: off while SASD warms up (its factor is left out of the picks).
        """
        config = self.config
        device = levels[0].device
        draws = None
        if generators is not None:
            draws = draw_negatives(bags, sizes, generators, config).to(device)
        rois, places = (to_device(each, device) for each in (bags.rois(), bags.places()))
        bags, sizes = bags.to(device), to_device(sizes, device)
        pyramid = self.features.pyramid(levels)
        features = bags.spread(self.features(pyramid, rois), places)
        first = self.stage(self.psm, features, bags, bags, use_completeness)
        final = first
        if config.refinement:
            wide, wide_features = self.enrich(pyramid, features, bags, first, sizes)
            final = self.stage(self.srm, wide_features, wide, bags, use_completeness)
        losses = {} if draws is None else self.losses(pyramid, bags, first, final, draws)
        return self.conclude(final, bags, losses)

    def stage(
        self, head: StageHead, features: Tensor, scored: Bags, bags: Bags, use_completeness: bool
    ) -> Stage:
        """Scores over `scored` (the bags, or the bags and their positives).

        The pick is one of `bags`, since a mask is always one of the bag's own.
        """
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
        learned = own.detach()
        if config.completeness:
            complete = head.complete(features[:, :count], own, bags.valid)
            if use_completeness:
                learned = learned * completeness.factor(
                    complete.detach(), config.completeness_floor
                )
        rank = with_priors(learned, bags, config)
        picked = pick(rank, bags, bags.allowed(config.exclude_foreign_points))
        return Stage(psm.bag_scores(scores), complete, learned, rank, picked)

    def enrich(
        self, pyramid: Pyramid, features: Tensor, bags: Bags, first: Stage, sizes: Tensor
    ) -> tuple[Bags, Tensor]:
        """The bags with their positives (Eq. 4), and the features of both, (N, M + E, D)."""
        if not (self.config.positives and len(bags)):
            return bags, features
        distance = take(bags.distance, first.picked)
        if not self.config.point_distance:
            distance = torch.ones_like(distance)
        best = bags.own_box_or(take(bags.boxes, first.picked))
        extra = scaled_copies(best, distance, self.config.positive_scales, sizes[bags.image])
        more = self.features(pyramid, with_image(extra, bags.image)).reshape(*extra.shape[:2], -1)
        return bags.joined(extra, distance), torch.cat([features, more], dim=1)

    def losses(
        self, pyramid: Pyramid, bags: Bags, first: Stage, final: Stage, draws: Draws
    ) -> dict[str, Tensor]:
        """L_psm (weighted), L_srm, L_sasd (weighted): those of the stages that are on."""
        config = self.config
        negatives = self.negatives(pyramid, bags, first, draws)
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

    def negatives(self, pyramid: Pyramid, bags: Bags, first: Stage, draws: Draws) -> Tensor:
        """Features of the negatives of the batch, (U, D); none where PNPG's half is off."""
        picked = bags.own_box_or(take(bags.boxes, first.picked))
        parts = part_boxes(picked, draws.parts, self.config.part_iou)
        rois = torch.cat([draws.background, with_image(parts, bags.image)])
        return self.features(pyramid, rois)

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
        """BMS on the last stage's scores, then the bag's own mask that is nearest.

        Where an object has a box, that is b_srm, and M_srm is the pick.
        """
        config = self.config
        allowed = bags.allowed(config.exclude_foreign_points)
        selected, boxes = final.picked, take(bags.boxes, final.picked)
        if config.box_mining and len(bags):
            boxes = box_mining.mine_boxes(
                final.rank,
                bags,
                final.picked,
                allowed,
                config.mining_top_k,
                config.mining_iou,
                config.mining_containing_iou,
            )
            nearest = box_mining.nearest_mask(boxes, bags, final.rank, allowed)
            selected = torch.where(bags.boxed, final.picked, nearest)
        boxes = bags.own_box_or(boxes)
        posterior = final.rank * allowed
        posterior = posterior / posterior.sum(dim=1, keepdim=True).clamp(min=1e-12)
        picked = take(bags.boxes, selected)
        expected_iou = (posterior * box_mining.paired_iou(bags.boxes, picked[:, None])).sum(dim=1)
        silent = undecided(final.rank, bags.valid)
        further = further_picks(final.rank, bags, selected) if config.mps else None
        return MilResult(
            selected, boxes, posterior, expected_iou, losses, silent, further, final.learned
        )


def take_class(scores: Tensor, labels: Tensor) -> Tensor:
    """scores[n, :, labels[n]]: (N, M, K) -> (N, M)."""
    return scores.gather(2, labels[:, None, None].expand(-1, scores.shape[1], 1)).squeeze(2)
