"""Sigmoid focal loss over class indices (Lin et al. 2017)."""

import torch.nn.functional as F
from torch import Tensor
from torchvision.ops import sigmoid_focal_loss


def focal_loss(
    logits: Tensor,
    classes: Tensor,
    gamma: float = 2.0,
    alpha: float = 0.25,
    *,
    weights: Tensor | None = None,
) -> Tensor:
    """The sum over all entries; the caller divides.

    Args:
        logits: (C, K), one sigmoid a class.
        classes: (C,) int64 in 0..K, K is background (all K targets are 0).
        weights: (C,), multiply each entry's terms; None is 1.

    Returns:
        A float32 scalar, 0 with a graph where C = 0.
    """
    num_classes = logits.shape[1]
    one_hot = F.one_hot(classes, num_classes + 1)[:, :num_classes].float()
    if weights is not None:
        each: Tensor = sigmoid_focal_loss(logits.float(), one_hot, alpha, gamma)
        return (each * weights[:, None]).sum()
    loss: Tensor = sigmoid_focal_loss(logits.float(), one_hot, alpha, gamma, reduction="sum")
    return loss
