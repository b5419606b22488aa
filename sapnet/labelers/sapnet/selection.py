"""The pick: the proposal of a bag with the best score, independent of the proposals' order."""

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from sapnet.config.schema import MilConfig
from sapnet.data.batch import Selection
from sapnet.labelers.sapnet.bag_batch import Bags
from sapnet.types import Bag

ROUNDING = 1e-5  # relative: equal proposals of one bag may differ by less, from where they stand
_GATE = 4.0  # exponent of the highest overlaps with what the segmenter draws


def pick(scores: Tensor, bags: Bags, allowed: Tensor) -> Tensor:
    """The index of the best proposal of each bag, (N,) int64.

    Ties, up to rounding, go to the proposal that agrees most with its bag (medoid), then to the
    larger mask (`size_rank`): never to the first that came, since a bag sorted by confidence would
    make that `sam-top1`.

    Args:
        scores: (N, M) >= 0.
        allowed: (N, M) bool, at least one a row.
    """
    tied = allowed
    for key in (scores, bags.medoid):
        ranked = key.masked_fill(~tied, float("-inf"))
        tied = tied & (ranked >= ranked.max(dim=1, keepdim=True).values * (1 - ROUNDING))
    last = torch.iinfo(bags.size_rank.dtype).max
    return bags.size_rank.masked_fill(~tied, last).argmin(dim=1)


def with_priors(scores: Tensor, bags: Bags, config: MilConfig) -> Tensor:
    """The selection score times the priors of bag, box and teacher, each to its exponent.

    An exponent of 0 turns a prior off. Used to pick, never in a loss.

    Args:
        scores: (N, M) >= 0.
        bags: of the batch.
        config: the exponents.

    Returns:
        (N, M); the best prior of what may be picked counts as 1, since products of high powers of
        small numbers would all be 0.
    """
    prior = bags.box_fit.to(scores.dtype)
    if config.prior_medoid:
        prior = prior + config.prior_medoid * bags.medoid.clamp(min=1e-6).log()
    if config.prior_confidence:
        prior = prior + config.prior_confidence * bags.confidence.clamp(min=1e-6).log()
    if config.prior_contrast:
        prior = prior + config.prior_contrast * bags.contrast
    if config.prior_overlap:
        prior = prior + config.prior_overlap * bags.overlap.clamp(min=1e-3).log()
    if config.prior_area:
        width_height = (bags.boxes[..., 2:] - bags.boxes[..., :2]).clamp(min=1.0)
        area = width_height.prod(dim=-1) * bags.valid
        share = area / area.max(dim=1, keepdim=True).values.clamp(min=1.0)
        prior = prior + config.prior_area * share.clamp(min=1e-6).log()
    allowed = bags.allowed(config.exclude_foreign_points)
    best = prior.masked_fill(~allowed, float("-inf")).max(dim=1, keepdim=True).values
    return scores * (prior - best).clamp(max=0).exp()


def with_vote(
    selection: Selection, bags: Sequence[Bag], overlaps: Sequence[Tensor | None], exponent: float
) -> Selection:
    """The selection once more, with what the trained segmenter draws of each object.

    The posterior is multiplied by the overlaps to the power `exponent` * max(overlaps)⁴: a
    segmenter that draws none of the bag's masks does not know the object, and has no say. How well
    it draws also tells whether anything could be learned from these images: the learned scores
    count to the power of the image's mean of max(overlaps), to the fourth (of photographs, what MIL
    learns is worse than what the generator knows).

    Args:
        selection: over the bags of the N objects of one image.
        bags: of them.
        overlaps: (M,) each, soft IoU in [0, 1] of the bag's masks with what the segmenter draws;
            None where it draws nothing.
        exponent: at least 0.

    Returns:
        A mask that could not be picked before still cannot. `expected_iou` is of masks.
    """
    index, posterior = selection.index.clone(), selection.posterior.clone()
    expected_iou = selection.expected_iou.clone()
    best_overlaps = [0.0 if o is None else float(o.max()) for o in overlaps]
    reliability = (sum(best_overlaps) / max(len(best_overlaps), 1)) ** _GATE
    for n, (bag, overlap) in enumerate(zip(bags, overlaps, strict=True)):
        score = posterior[n, : len(bag)].log()
        if selection.learned is not None:
            score -= (1 - reliability) * selection.learned[n, : len(bag)].clamp(min=1e-12).log()
        if overlap is not None:
            power = exponent * best_overlaps[n] ** _GATE
            score += power * overlap.to(score).clamp(min=1e-3).log()
        posterior[n, : len(bag)] = score.softmax(0)
        best = int(score.argmax())
        index[n] = best
        ious = torch.from_numpy(bag.overlaps[best]).to(score)
        expected_iou[n] = posterior[n, : len(bag)] @ ious
    return replace(selection, index=index, posterior=posterior, expected_iou=expected_iou)


def undecided(scores: Tensor, valid: Tensor) -> Tensor:
    """(), the number of bags of two or more whose scores are all equal: a collapsed predictor."""
    high = scores.masked_fill(~valid, float("-inf")).max(dim=1).values
    low = scores.masked_fill(~valid, float("inf")).min(dim=1).values
    return ((high == low) & (valid.sum(dim=1) > 1)).sum()


def take(rows: Tensor, index: Tensor) -> Tensor:
    """rows[n, index[n]] for (N, M, ...) and (N,): (N, ...)."""
    return rows[torch.arange(len(index), device=index.device), index]
