"""The pick: the proposal of a bag with the best score, independent of the proposals' order."""

import torch
from torch import Tensor

from sapnet.config.schema import MilConfig
from sapnet.labelers.sapnet.bag_batch import Bags

ROUNDING = 1e-5  # relative: equal proposals of one bag may differ by less, from where they stand


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


def undecided(scores: Tensor, valid: Tensor) -> Tensor:
    """(), the number of bags of two or more whose scores are all equal: a collapsed predictor."""
    high = scores.masked_fill(~valid, float("-inf")).max(dim=1).values
    low = scores.masked_fill(~valid, float("inf")).min(dim=1).values
    return ((high == low) & (valid.sum(dim=1) > 1)).sum()


def take(rows: Tensor, index: Tensor) -> Tensor:
    """rows[n, index[n]] for (N, M, ...) and (N,): (N, ...)."""
    return rows[torch.arange(len(index), device=index.device), index]
