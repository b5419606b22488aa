"""Pseudo-masks of SIM (Eqs 6-8): instances by their candidates, corrected classes, the loss."""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from sapnet.data.batch import Candidates

MOST_VALUES = 2**26
"""Candidates times pixels whose loss is computed at once."""


def tight_boxes_of(masks: Tensor) -> Tensor:
    """The tight xyxy boxes of masks (P, h, w) bool, (P, 4) in cells; zeros of an empty one."""
    ends = []
    for axis in (1, 2):  # over rows: columns, that is x; then y
        line = masks.any(axis)
        first = line.int().argmax(1)
        last = line.shape[1] - line.flip(1).int().argmax(1)
        ends.append((first, last))
    boxes = torch.stack([ends[0][0], ends[1][0], ends[0][1], ends[1][1]], dim=1).float()
    return boxes * masks.flatten(1).any(1)[:, None]


def paired_box_iou(boxes: Tensor, others: Tensor) -> Tensor:
    """IoU of xyxy boxes (P, 4), each with its own other, (P,); 0 with an empty one."""
    low, high = (
        torch.maximum(boxes[:, :2], others[:, :2]),
        torch.minimum(boxes[:, 2:], others[:, 2:]),
    )
    shared = (high - low).clamp(min=0).prod(1)
    areas = [(b[:, 2:] - b[:, :2]).clamp(min=0).prod(1) for b in (boxes, others)]
    return shared / (areas[0] + areas[1] - shared).clamp(min=1e-9)


def instance_map(candidates: Candidates, boxes: Tensor, mu: float) -> Tensor:
    """M_I of each object (Eq. 6), (N, h, w) in [0, 1]: its candidates' mean, weighed by boxes.

    A candidate weighs e^(mu · IoU), of the tight box of its mask, not cut to anything, with the
    object's: one that leaks out of the box weighs less. Zeros for an object without candidates.

    Args:
        candidates: of one image.
        boxes: (N, 4) xyxy in cells at stride 4.
        mu: how far the better ones are preferred.
    """
    probs = candidates.logits.float().sigmoid()
    iou = paired_box_iou(tight_boxes_of(probs > 0.5), boxes[candidates.objects])
    weights = (mu * iou).exp()
    shape = (len(boxes), *probs.shape[1:])
    total = probs.new_zeros(shape).index_add(0, candidates.objects, probs * weights[:, None, None])
    sums = probs.new_zeros(len(boxes)).index_add(0, candidates.objects, weights)
    return total / sums.clamp(min=1e-9)[:, None, None]


@dataclass(frozen=True)
class PseudoTargets:
    """What the segmenter's masks of one image learn.

    Attributes:
        masks: (N, h, w) bool, M̂ over its upper threshold.
        weights: (N, h, w) float32, W: 0 where M̂ is between its thresholds.
        probs: (N, h, w) float32 in [0, 1], M̂ itself.
    """

    masks: Tensor
    weights: Tensor
    probs: Tensor


def pseudo_targets(
    semantic: Tensor, instance: Tensor, inside: Tensor, alpha: float, high: float, low: float
) -> PseudoTargets:
    """M̂ and W (Eq. 7): (1 − α) M_S + α M_I in the box, ground outside of it.

    Where no pixel of an object is above `high`, nothing is known in its box.

    Args:
        semantic: (N, h, w) in [0, 1], M_S of each object's class.
        instance: (N, h, w) in [0, 1], M_I.
        inside: (N, h, w) bool, the filled boxes.
        alpha: share of M_I.
        high, low: thresholds of object and ground.
    """
    probs = ((1 - alpha) * semantic + alpha * instance) * inside
    masks = probs > high
    decided = masks | (probs < low)
    some = masks.flatten(1).any(1)[:, None, None]
    weights = (~inside | (decided & some)).float()
    return PseudoTargets(masks, weights, probs)


def pseudo_loss(candidates: Candidates, targets: PseudoTargets) -> Tensor:
    """ℓ_mask of each candidate (Eq. 8), (P,): cross-entropy on logits plus dice, under W.

    The cross-entropy is the mean over the pixels that count. A candidate of which none does has 0.

    Args:
        candidates: of one image, with graph.
        targets: of its objects.
    """
    rows = max(MOST_VALUES // max(targets.masks[0].numel() if len(targets.masks) else 1, 1), 1)
    parts = zip(candidates.logits.split(rows), candidates.objects.split(rows), strict=True)
    terms = [_pseudo_loss(logits, objects, targets) for logits, objects in parts]
    return torch.cat(terms) if terms else candidates.logits.flatten()


def _pseudo_loss(logits: Tensor, objects: Tensor, targets: PseudoTargets) -> Tensor:
    logits = logits.float().flatten(1)
    wanted = targets.masks.flatten(1)[objects].float()
    weights = targets.weights.flatten(1)[objects]
    entropy = F.binary_cross_entropy_with_logits(logits, wanted, weights, reduction="none")
    entropy = entropy.sum(1) / weights.sum(1).clamp(min=1)
    probs = logits.sigmoid() * weights
    wanted = wanted * weights
    sizes = probs.square().sum(1) + wanted.square().sum(1) + 2e-3
    dice = 1 - 2 * (probs * wanted).sum(1) / sizes
    return (entropy + dice) * weights.any(1)
