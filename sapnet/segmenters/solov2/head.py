"""SOLOv2's head (Wang et al. 2020): a class and a mask kernel per grid cell, and mask features."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sapnet.config.schema import SoloConfig
from sapnet.segmenters.backbones.norm import group_norm
from sapnet.segmenters.winograd.conv import of_all


@dataclass
class SoloOutput:
    """The head's output for a batch.

    The cells of all levels form one list of C = ΣS² cells, level by level, row by row;
    `SoloTargets.cells` index it.

    Attributes:
        cls_logits: per level (B, K, S, S).
        kernels: per level (B, E, S, S).
        mask_features: (B, E, H/4, W/4).
    """

    cls_logits: list[Tensor]
    kernels: list[Tensor]
    mask_features: Tensor

    def flat_cls_logits(self) -> Tensor:
        """(B, C, K)."""
        return _flat(self.cls_logits)

    def flat_kernels(self) -> Tensor:
        """(B, C, E), of the mask features' dtype.

        In mixed precision these come from a norm, in float32 on a GPU, and the kernels from a
        convolution.
        """
        return _flat(self.kernels).to(self.mask_features.dtype)


class ConvGn(nn.Module):
    """Convolution without bias, GroupNorm, ReLU."""

    def __init__(self, in_channels: int, out_channels: int, kernel_size: int = 3) -> None:
        super().__init__()
        padding = kernel_size // 2
        self.conv = nn.Conv2d(in_channels, out_channels, kernel_size, padding=padding, bias=False)
        self.gn = group_norm(out_channels)

    def forward(self, x: Tensor) -> Tensor:
        """(B, in_channels, H, W) -> (B, out_channels, H, W)."""
        return F.relu(self.gn(self.conv(x)))

    def of_all(self, xs: Sequence[Tensor]) -> list[Tensor]:
        """The outputs of several maps."""
        return [F.relu(self.gn(x)) for x in of_all(self.conv, xs)]


class MaskFeatures(nn.Module):
    """P2..P5 -> one map at stride 4: each is convolved and doubled until it fits, then summed.

    The coarsest level carries the coordinates, so that kernels can tell places apart.
    """

    def __init__(self, in_channels: int, channels: int, out_channels: int) -> None:
        super().__init__()
        self.levels = nn.ModuleList()
        for level in range(4):
            first = in_channels + (2 if level == 3 else 0)
            self.levels.append(
                nn.ModuleList(
                    ConvGn(channels if i else first, channels) for i in range(max(level, 1))
                )
            )
        self.predict = ConvGn(channels, out_channels, 1)

    def forward(self, features: list[Tensor]) -> Tensor:
        """features: P2..P5 -> (B, out_channels, H/4, W/4)."""
        total: Tensor | None = None
        for level, (x, convs) in enumerate(zip(features, _lists(self.levels), strict=True)):
            if level == 3:
                x = with_coordinates(x)
            for conv in convs:
                x = conv(x)
                if level > 0:
                    x = F.interpolate(x, scale_factor=2, mode="bilinear")
            total = x if total is None else total + x
        out: Tensor = self.predict(total)
        return out


class SoloHead(nn.Module):
    """Two towers shared by all levels, run on each level resampled to its grid.

    in_channels: of P2..P6. generator: for the initialisation (normal 0.01 for every convolution;
    the class bias such that each score starts at 0.01).
    """

    def __init__(
        self,
        num_classes: int,
        in_channels: int,
        config: SoloConfig,
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__()
        if num_classes < 1:
            raise ValueError(f"num_classes must be at least 1, got {num_classes}")
        self.config = config
        self.num_classes = num_classes
        width, depth = config.channels, config.stacked_convs
        self.cls_convs = nn.ModuleList(
            ConvGn(width if i else in_channels, width) for i in range(depth)
        )
        self.kernel_convs = nn.ModuleList(
            ConvGn(width if i else in_channels + 2, width) for i in range(depth)
        )
        self.conv_cls = nn.Conv2d(width, num_classes, 3, padding=1)
        self.conv_kernel = nn.Conv2d(width, config.mask_channels, 3, padding=1)
        self.mask_features = MaskFeatures(
            in_channels, config.mask_feature_channels, config.mask_channels
        )
        self._init(generator)

    def _init(self, generator: torch.Generator | None) -> None:
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.normal_(module.weight, std=0.01, generator=generator)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
        prior = 0.01
        nn.init.constant_(_bias(self.conv_cls), -math.log((1 - prior) / prior))

    def forward(self, features: list[Tensor]) -> SoloOutput:
        """features: P2..P6, each (B, in_channels, H/stride, W/stride), strides 4..64."""
        p2, p3, p4, p5, p6 = features
        # the finest level is halved and the coarsest doubled before the grids, as published
        p2 = F.interpolate(p2, size=p3.shape[-2:], mode="bilinear")
        p6 = F.interpolate(p6, size=p5.shape[-2:], mode="bilinear")
        grids = [
            F.interpolate(with_coordinates(x), size=(grid, grid), mode="bilinear")
            for x, grid in zip((p2, p3, p4, p5, p6), self.config.num_grids, strict=True)
        ]
        classes = [x[:, :-2] for x in grids]
        for layer in _layers(self.cls_convs):
            classes = layer.of_all(classes)
        for layer in _layers(self.kernel_convs):
            grids = layer.of_all(grids)
        cls_logits = of_all(self.conv_cls, classes)
        kernels = of_all(self.conv_kernel, grids)
        return SoloOutput(cls_logits, kernels, self.mask_features(features[:4]))


def with_coordinates(x: Tensor) -> Tensor:
    """Append x and y to (B, C, h, w), from -1 at the first to 1 at the last: (B, C + 2, h, w)."""
    batch, _, height, width = x.shape
    ys, xs = (_ramp(side, x) for side in (height, width))
    grid = torch.stack((xs.expand(height, width), ys[:, None].expand(height, width)))
    return torch.cat((x, grid.expand(batch, 2, height, width)), dim=1)


def _ramp(steps: int, like: Tensor) -> Tensor:
    """-1 to 1 in so many steps.

    An exported or compiled graph takes images of any size, and torch would write the example's
    number of steps into it: there the values are computed.
    """
    if torch.compiler.is_compiling():
        return torch.arange(steps, device=like.device, dtype=like.dtype) * (2 / (steps - 1)) - 1
    return torch.linspace(-1, 1, steps, device=like.device, dtype=like.dtype)


def _flat(levels: list[Tensor]) -> Tensor:
    return torch.cat([level.flatten(2) for level in levels], dim=2).transpose(1, 2)


def _bias(conv: nn.Conv2d) -> Tensor:
    assert conv.bias is not None
    return conv.bias


def _layers(modules: nn.ModuleList) -> Iterable[ConvGn]:
    for module in modules:
        assert isinstance(module, ConvGn)
        yield module


def _lists(modules: nn.ModuleList) -> Iterable[nn.ModuleList]:
    for module in modules:
        assert isinstance(module, nn.ModuleList)
        yield module
