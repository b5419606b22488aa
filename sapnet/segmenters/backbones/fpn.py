"""Feature pyramid (Lin et al. 2017): lateral 1×1, top-down sum, 3×3, and a sixth level."""

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sapnet.segmenters.backbones.norm import group_norm


class FpnConv(nn.Module):
    """A convolution with an optional norm, named by its kind: checkpoints tell them apart."""

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int,
        *,
        norm: Literal["none", "batch", "group"],
        stride: int = 1,
    ) -> None:
        super().__init__()
        self.conv = nn.Conv2d(
            in_channels,
            out_channels,
            kernel_size,
            stride=stride,
            padding=kernel_size // 2,
            bias=norm == "none",
        )
        if norm == "batch":
            self.bn = nn.BatchNorm2d(out_channels)
        elif norm == "group":
            self.gn = group_norm(out_channels)

    def forward(self, x: Tensor) -> Tensor:
        """(B, in_channels, H, W) -> (B, out_channels, H / stride, W / stride), rounded up."""
        for layer in self.children():
            x = layer(x)
        return x


class Fpn(nn.Module):
    """C2..C5 -> P2..P6.

    p6: "pool" takes every second pixel of P5, "conv" a 3×3 of stride 2 over it (and adds weights).
    """

    def __init__(
        self,
        in_channels: tuple[int, ...],
        out_channels: int,
        *,
        norm: Literal["none", "batch", "group"] = "none",
        p6: Literal["pool", "conv"] = "pool",
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__()
        self.lateral_convs = nn.ModuleList(
            FpnConv(channels, out_channels, 1, norm=norm) for channels in in_channels
        )
        self.fpn_convs = nn.ModuleList(
            FpnConv(out_channels, out_channels, 3, norm=norm) for _ in in_channels
        )
        if p6 == "conv":
            self.fpn_convs.append(FpnConv(out_channels, out_channels, 3, norm=norm, stride=2))
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.xavier_uniform_(module.weight, generator=generator)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)

    def forward(self, features: list[Tensor]) -> list[Tensor]:
        """features: four (B, C_i, H_i, W_i), finest first -> five (B, out_channels, ·, ·)."""
        top_down = [lateral(c) for lateral, c in zip(self.lateral_convs, features, strict=True)]
        for i in range(len(top_down) - 1, 0, -1):
            size = top_down[i - 1].shape[-2:]
            top_down[i - 1] = top_down[i - 1] + F.interpolate(top_down[i], size=size)
        out = [conv(x) for conv, x in zip(self.fpn_convs, top_down, strict=False)]
        has_conv = len(self.fpn_convs) > len(top_down)
        out.append(self.fpn_convs[-1](out[-1]) if has_conv else out[-1][..., ::2, ::2])
        return out
