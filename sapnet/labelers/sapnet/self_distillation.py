"""Spatial-aware self-distillation (SASD), Eqs 9-13: how much of the object a proposal covers."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from sapnet.labelers.sapnet.bag_batch import Bags
from sapnet.labelers.sapnet.box_mining import paired_iou
from sapnet.labelers.sapnet.selection import take
from sapnet.utils.distributed import global_sum


class CompletenessHead(nn.Module):
    """s = tanh(FC(F*)), with F* the features plus the mean of the bag's best (Eq. 9)."""

    def __init__(self, *, channels: int, top_k: int = 3) -> None:
        super().__init__()
        self.top_k = top_k
        self.fc = nn.Linear(channels, 1)

    def forward(self, features: Tensor, scores: Tensor, valid: Tensor) -> Tensor:
        """Completeness of each proposal.

        Args:
            features: (N, M, D).
            scores: (N, M), by which the bag's best are chosen.
            valid: (N, M) bool.

        Returns:
            (N, M) float32 in (-1, 1).
        """
        k = min(self.top_k, scores.shape[1])
        ranked = scores.detach().masked_fill(~valid, float("-inf"))
        best = ranked.topk(k, dim=1)
        use = best.values.isfinite().to(features.dtype)[..., None]
        top = torch.gather(features, 1, best.indices[..., None].expand(-1, -1, features.shape[2]))
        context = (top * use).sum(1) / use.sum(1).clamp(min=1)
        # in bfloat16 a tanh is 1 from 3.5 on, and learns no more
        return self.fc(features + context[:, None]).squeeze(-1).float().tanh()


def target(bags: Bags, picked: Tensor) -> Tensor:
    """T' = 2 · IoU(b_m, b̂*) - 1 (Eq. 11), (N, M) in [-1, 1], detached.

    b̂* is the object's own box where it has one, so that boxes teach completeness to the points.
    """
    best = bags.own_box_or(take(bags.boxes, picked))
    return (2 * paired_iou(bags.boxes, best[:, None]) - 1).detach()


def distillation_loss(predicted: Tensor, wanted: Tensor, valid: Tensor) -> Tensor:
    """One smooth-L1 term of Eq. 11: mean over the valid proposals. All (N, M)."""
    terms = F.smooth_l1_loss(predicted, wanted, reduction="none") * valid
    return terms.sum() / global_sum(valid.sum()).clamp(min=1)


def factor(completeness: Tensor, floor: float) -> Tensor:
    """The factor of a score (Eq. 12): floor + (1 - floor) · (s + 1) / 2, in [floor, 1].

    With floor 0 it is the paper's, which can die: a tanh that saturates at -1 makes every score of
    a bag zero.
    """
    return floor + (1 - floor) * (completeness + 1) / 2
