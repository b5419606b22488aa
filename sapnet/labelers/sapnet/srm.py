"""Losses of the selection refinement stage (SRM), Eqs 5-8."""

from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from sapnet.labelers.sapnet.psm import EPS, class_scores
from sapnet.utils.distributed import global_sum


def positive_loss(bag: Tensor, labels: Tensor, weight: Tensor, gamma: float = 2.0) -> Tensor:
    """Eq. 5: focal loss of the SRM bag score, weighted by the PSM bag score of the class.

    Args:
        bag: (N, K) in (0, 1).
        labels: (N,).
        weight: (N,), detached.

    Returns:
        The mean over bags.
    """
    target = F.one_hot(labels, bag.shape[1]).to(bag.dtype)
    hit = target * (1 - bag) ** gamma * bag.log()
    miss = (1 - target) * bag**gamma * (1 - bag).log()
    return -(weight[:, None] * (hit + miss)).sum() / max(global_sum(len(bag)), 1)


def negative_loss(
    logits: Tensor,
    beta: Tensor | float,
    kind: Literal["focal", "cross_entropy"] = "focal",
    softmax_over_k: bool = False,
) -> Tensor:
    """Eq. 7 over the negatives: their class scores must vanish. Divided by |U|; 0 where none is.

    Args:
        logits: (U, K+1).
        beta: Eq. 6, the mean PSM bag score.
        kind: "focal" is the paper's p² · log(1 - p); "cross_entropy" asks for the background column
            itself, which p² starves on many classes.
    """
    count = max(global_sum(len(logits)), 1)
    if kind == "cross_entropy":
        background = torch.full((len(logits),), logits.shape[1] - 1, device=logits.device)
        return beta * F.cross_entropy(logits, background, reduction="sum") / count
    scores = class_scores(logits, softmax_over_k).clamp(0.0, 1 - EPS)
    return -beta * (scores**2 * (1 - scores).log()).sum() / count


def srm_loss(positive: Tensor, negative: Tensor, alpha: float = 0.25) -> Tensor:
    """Eq. 8: alpha · L_pos + (1 - alpha) · L_neg."""
    return alpha * positive + (1 - alpha) * negative
