"""Box mining (BMS), Algorithm 2: grow the pick towards larger boxes that the bag also likes."""

import torch
from torch import Tensor

from sapnet.labelers.sapnet.bag_batch import Bags
from sapnet.labelers.sapnet.selection import pick, take

TOLERANCE = 2.0  # pixels of slack in "b_j contains b_sel"


def mine_boxes(
    scores: Tensor,
    bags: Bags,
    selected: Tensor,
    allowed: Tensor,
    top_k: int = 3,
    min_iou: float = 0.6,
    min_containing_iou: float = 0.3,
) -> Tensor:
    """b_srm of Algorithm 2, (N, 4) xyxy, from the top k of each bag.

    A box of the top k that is larger than b_sel and overlaps it by more than T_min1 pulls b_srm
    towards itself; before any did, one that contains b_sel and overlaps it by more than T_min2 is
    averaged in. The thresholds rise with each merge and start anew for every object (the printed
    algorithm lets one object's raise the next one's).

    Args:
        scores: (N, M).
        bags: of the batch.
        selected: (N,) index of b_sel.
        allowed: (N, M) bool.
        top_k: k.
        min_iou: T_min1.
        min_containing_iou: T_min2.
    """
    chosen = take(bags.boxes, selected)
    result = chosen.clone()
    first = torch.full_like(chosen[:, 0], min_iou)
    second = torch.full_like(first, min_containing_iou)
    merged = torch.zeros_like(first, dtype=torch.bool)
    left = allowed
    for _ in range(min(top_k, scores.shape[1])):
        index = pick(scores, bags, torch.where(left.any(1, keepdim=True), left, bags.valid))
        present = left.any(dim=1)
        left = left.scatter(1, index[:, None], False)
        box = take(bags.boxes, index)
        iou = paired_iou(box, chosen)
        larger = present & (area(box) > area(chosen))
        near = larger & (iou > first)
        around = larger & ~near & ~merged & contains(box, chosen) & (iou > second)
        weight = iou[:, None]
        result = torch.where(near[:, None], (box + weight * chosen) / (weight + 1), result)
        result = torch.where(around[:, None], (box * weight + chosen) / (weight + 1), result)
        first = torch.where(near, iou, first)
        second = torch.where(around, iou, second)
        merged = merged | near
    return result


def nearest_mask(box: Tensor, bags: Bags, scores: Tensor, allowed: Tensor) -> Tensor:
    """M_srm: the index of the bag's own proposal of highest box IoU to b_srm, (N,).

    Ties (masks of one box) go to the higher score, then by the rule of `pick`.
    """
    iou = paired_iou(bags.boxes, box[:, None]).masked_fill(~allowed, -1.0)
    best = allowed & (iou == iou.max(dim=1, keepdim=True).values)
    return pick(scores, bags, best)


def area(boxes: Tensor) -> Tensor:
    """(..., 4) xyxy -> (...)."""
    return (boxes[..., 2] - boxes[..., 0]) * (boxes[..., 3] - boxes[..., 1])


def paired_iou(a: Tensor, b: Tensor) -> Tensor:
    """IoU of boxes that broadcast against each other, (..., 4) and (..., 4) -> (...)."""
    low = torch.maximum(a[..., :2], b[..., :2])
    high = torch.minimum(a[..., 2:], b[..., 2:])
    shared = (high - low).clamp(min=0).prod(dim=-1)
    return shared / (area(a) + area(b) - shared).clamp(min=1e-6)


def contains(outer: Tensor, inner: Tensor, tolerance: float = TOLERANCE) -> Tensor:
    """(...) bool: outer holds inner, with `tolerance` pixels of slack on each side."""
    low = (outer[..., :2] <= inner[..., :2] + tolerance).all(dim=-1)
    high = (outer[..., 2:] >= inner[..., 2:] - tolerance).all(dim=-1)
    return low & high
