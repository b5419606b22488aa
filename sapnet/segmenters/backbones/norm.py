"""The two normalisations of the backbones: frozen statistics, or none that depend on the batch."""

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional

NormLayer = Callable[[int], nn.Module]


class FrozenBatchNorm(nn.BatchNorm2d):
    """Batch norm whose statistics and affine never change, the same in train and in eval."""

    def __init__(self, channels: int) -> None:
        super().__init__(channels)
        self.requires_grad_(False)

    def forward(self, x: Tensor) -> Tensor:
        """x: (B, C, H, W) float -> the same shape."""
        assert self.running_mean is not None
        assert self.running_var is not None
        if x.dtype != self.weight.dtype:  # mixed precision: statistics stay what they are
            statistics = self.running_mean, self.running_var, self.weight, self.bias
            return functional.batch_norm(x, *statistics, eps=self.eps)
        scale = self.weight * (self.running_var + self.eps).rsqrt()
        shift = self.bias - self.running_mean * scale
        # as one multiply-add, so that the backward pass need not keep x
        return torch.addcmul(shift.reshape(1, -1, 1, 1), x, scale.reshape(1, -1, 1, 1))


def group_norm(channels: int) -> nn.GroupNorm:
    """GroupNorm of 32 groups, or of the largest power of two below that divides `channels`."""
    return nn.GroupNorm(math.gcd(32, channels), channels)
