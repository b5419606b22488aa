"""Multi-mask proposals supervision (SAPNet's supplement, Eq. 11): which other masks are learned."""

import torch
from torch import Tensor

from sapnet.labelers.sapnet.bag_batch import Bags
from sapnet.labelers.sapnet.selection import pick

NONE = -1


def further_picks(scores: Tensor, bags: Bags, selected: Tensor) -> Tensor:
    """Best, median and worst of each bag outside of the selected mask, (N, 3) int64.

    The order is `pick`'s. Of two others there are the best and the worst, of one that one; `NONE`
    stands for what there is not, as it does for an object with a box and one whose mask is given.

    Args:
        scores: (N, M) >= 0, S_srm.
        bags: of the batch.
        selected: (N,) int64, M_srm.
    """
    left = bags.valid.scatter(1, selected[:, None], False)
    count = left.sum(1) * ~bags.boxed
    order = []
    for _ in range(scores.shape[1] - 1):
        some = left.any(1, keepdim=True)
        best = pick(scores, bags, torch.where(some, left, bags.valid))
        order.append(best)
        left = left.scatter(1, best[:, None], False)
    ranked = torch.stack([*order, torch.zeros_like(selected)], dim=1)
    places = torch.stack([torch.zeros_like(count), (count - 1) // 2, count - 1], dim=1)
    picks = ranked.gather(1, places.clamp(min=0))
    there = torch.stack([count >= 1, count >= 3, count >= 2], dim=1)
    return picks.masked_fill(~there, NONE)
