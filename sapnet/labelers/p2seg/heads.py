"""The three heads on the finest level of the pyramid: semantic, offset, embedding."""

from dataclasses import dataclass

import torch.nn.functional as F
from torch import Tensor, nn

from sapnet.segmenters.backbones.norm import group_norm

COARSE = 4
"""Cells at stride 4 along a side of a cell of the embedding, whose stride is 16."""


@dataclass(frozen=True)
class Maps:
    """What the heads say of a batch.

    Attributes:
        semantic: (B, K + 1, h, w) logits at stride 4; the last one is ground.
        offset: (B, 2, h, w), x and y to the pixel's object, pixels of the input.
        embedding: (B, D, h / 4, w / 4), whose inner products are affinities.
    """

    semantic: Tensor
    offset: Tensor
    embedding: Tensor


class Tower(nn.Sequential):
    """Two 3×3 convolutions with GroupNorm and ReLU, then one of 1×1."""

    def __init__(self, in_channels: int, channels: int, out_channels: int) -> None:
        super().__init__(
            nn.Conv2d(in_channels, channels, 3, padding=1, bias=False),
            group_norm(channels),
            nn.ReLU(),
            nn.Conv2d(channels, channels, 3, padding=1, bias=False),
            group_norm(channels),
            nn.ReLU(),
            nn.Conv2d(channels, out_channels, 1),
        )


class Heads(nn.Module):
    """The heads of P2Seg.

    in_channels: of the pyramid. channels: between the convolutions. embedding: D.
    """

    scale = 16.0
    """Pixels of the input for an offset output of 1."""

    def __init__(
        self, *, num_classes: int, in_channels: int, channels: int, embedding: int
    ) -> None:
        super().__init__()
        self.semantic = Tower(in_channels, channels, num_classes + 1)
        self.offset = Tower(in_channels, channels, 2)
        self.embedding = Tower(in_channels, channels, embedding)

    def forward(self, finest: Tensor) -> Maps:
        """finest: (B, C, h, w) at stride 4, h and w multiples of 4."""
        coarse = F.avg_pool2d(finest, COARSE)
        offset = self.offset(finest).float() * self.scale
        return Maps(self.semantic(finest).float(), offset, self.embedding(coarse).float())
