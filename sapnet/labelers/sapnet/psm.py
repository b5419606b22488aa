"""Scores and loss of the proposal selection stage (PSM), Eqs 1-3."""

import torch
from torch import Tensor

from sapnet.utils.distributed import global_sum

EPS = 1e-6


def class_scores(logits: Tensor, softmax_over_k: bool = False) -> Tensor:
    """S_cls, (..., K), from (..., K+1) logits whose last column is background.

    The softmax runs over all K+1, so that one class alone still has a gradient;
    `softmax_over_k` takes the paper's form (Eq. 1), blind to the background.
    """
    if softmax_over_k:
        return logits[..., :-1].softmax(dim=-1)
    return logits.softmax(dim=-1)[..., :-1]


def instance_scores(logits: Tensor, valid: Tensor) -> Tensor:
    """S_ins, (N, M, K): softmax over the valid proposals of each bag.

    Args:
        logits: (N, M, K).
    """
    filled = logits.masked_fill(~valid[..., None], float("-inf"))
    return filled.softmax(dim=1)


def proposal_scores(
    class_logits: Tensor,
    instance_logits: Tensor | None,
    distance: Tensor,
    valid: Tensor,
    softmax_over_k: bool = False,
) -> Tensor:
    """S = S_cls * S_ins * S_dis of Eq. 3, (N, M, K) in [0, 1], zero where not valid.

    Args:
        class_logits: (N, M, K+1).
        instance_logits: (N, M, K), or None: an even share for each.
        distance: (N, M) S_dis.
        valid: (N, M) bool.
    """
    classes = class_scores(class_logits, softmax_over_k)
    even = torch.zeros_like(classes) if instance_logits is None else instance_logits
    instances = instance_scores(even, valid)
    return classes * instances * (distance * valid)[..., None]


def bag_scores(scores: Tensor) -> Tensor:
    """Ŝ: the sum over a bag, clamped to [1e-6, 1 - 1e-6]. (N, M, K) -> (N, K)."""
    return scores.sum(dim=1).clamp(EPS, 1 - EPS)


def psm_loss(bag: Tensor, labels: Tensor) -> Tensor:
    """Binary cross-entropy of Eq. 3, summed over classes, mean over bags.

    Args:
        bag: (N, K).
    """
    target = torch.nn.functional.one_hot(labels, bag.shape[1]).to(bag.dtype)
    terms = target * bag.log() + (1 - target) * (1 - bag).log()
    return -terms.sum() / max(global_sum(len(bag)), 1)
