"""Sigmoid focal loss over class indices (Lin et al. 2017)."""

import torch.nn.functional as F
from torch import Tensor
from torchvision.ops import sigmoid_focal_loss


def focal_loss(logits: Tensor, classes: Tensor, gamma: float = 2.0, alpha: float = 0.25) -> Tensor:
    """The sum over all entries; the caller divides.

    logits: (C, K), one sigmoid a class. classes: (C,) int64 in 0..K, K is background (all K targets
    are 0). Returns a float32 scalar, 0 with a graph where C = 0.
    """
    num_classes = logits.shape[1]
    one_hot = F.one_hot(classes, num_classes + 1)[:, :num_classes].float()
    loss: Tensor = sigmoid_focal_loss(logits.float(), one_hot, alpha, gamma, reduction="sum")
    return loss
