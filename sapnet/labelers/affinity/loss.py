"""The affinity loss: predicted masks against what their own affinities make of them."""

import torch
from torch import Tensor

from sapnet.labelers.affinity.crop import box_windows
from sapnet.labelers.affinity.refine import RefinedMasks

DILATION = 0.1  # of the box's extent, on each side


def affinity_loss(probs: Tensor, refined: RefinedMasks, boxes: Tensor, areas: Tensor) -> Tensor:
    """L_aff (SAPNet++, Eq. 26), a scalar.

    The sum of |refined - probs| over both terms and over the pixels of each dilated box, divided by
    the sum of the areas of the masks that supervise the segmentation branch. One quotient for all,
    as printed: a mean of quotients would let an object of a few pixels rule the loss.

    Args:
        probs: (N, H, W) with gradient, in [0, 1].
        refined: targets, (N, H, W) each, no gradient flows into them.
        boxes: (N, 4) xyxy in mask pixels, before dilation.
        areas: (N,) of M_srm, in mask pixels.

    Returns:
        (); N = 0 gives a zero that still has a graph.
    """
    if not len(probs):
        return probs.sum()
    windows = box_windows(boxes, (int(probs.shape[1]), int(probs.shape[2])), DILATION)
    distance = torch.zeros_like(probs)
    for target in refined.terms:
        distance = distance + (probs - target.detach()).abs()
    return (distance * windows).sum() / areas.to(probs.dtype).sum().clamp_min(1.0)
