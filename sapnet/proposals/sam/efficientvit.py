"""EfficientViT-SAM's image encoder, built from the shapes of its weights.

Cai et al., "EfficientViT: Multi-Scale Linear Attention", ICCV 2023; Zhang et al.,
"EfficientViT-SAM", CVPR 2024 workshops. Stages of convolutions and of linear attention with ReLU as
its kernel; the last three meet at 64×64 cells and go through a neck. Weights are named as in the
published files.
"""

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sapnet.proposals.sam.architecture import count_numbered
from sapnet.utils.restricted_pickle import Shape

_GRID = 64  # cells a side of the features
_HEAD = 32  # channels of a head of the attention
EPSILON = 1e-6  # of all norms, as the published weights were trained
_TINY = 1e-15  # of the attention's denominator
_STAGES_READ = 3


class EfficientVitEncoder(nn.Module):
    """(B, 3, img_size, img_size) -> (B, C, 64, 64)."""

    def __init__(self, shapes: Mapping[str, Shape], img_size: int) -> None:
        """Weights as `torch` makes them.

        Args:
            shapes: of its state dict, without the prefix.
            img_size: side of its input, pixels.

        Raises:
            ValueError: a block is of no known kind.
        """
        super().__init__()
        self.img_size = img_size
        self.backbone = _Backbone(shapes)
        self.neck = _Neck(shapes)
        self.norm = _ChannelNorm(shapes["norm.weight"][0], eps=EPSILON)

    def forward(self, images: Tensor) -> Tensor:
        """Features of normalized images, padded below and to the right."""
        features: Tensor = self.norm(self.neck(self.backbone(images)))
        return features


class _Backbone(nn.Module):
    def __init__(self, shapes: Mapping[str, Shape]) -> None:
        super().__init__()
        stages = []
        for stage in range(count_numbered(shapes, "backbone.stages.")):
            prefix = f"backbone.stages.{stage}."
            first = _Convolution(shapes, f"{prefix}op_list.0.", 2) if stage == 0 else None
            stages.append(_Sequence(shapes, prefix, first, halved=stage > 0))
        self.stages = nn.ModuleList(stages)

    def forward(self, x: Tensor) -> list[Tensor]:
        """Features of the last stages, the coarsest first."""
        features = []
        for stage in self.stages:
            x = stage(x)
            features.append(x)
        return features[: -_STAGES_READ - 1 : -1]


class _Neck(nn.Module):
    def __init__(self, shapes: Mapping[str, Shape]) -> None:
        super().__init__()

        def one(name: str) -> nn.Module:
            return _Sequence(shapes, name, _Convolution(shapes, f"{name}op_list.0.", act=False))

        inputs = count_numbered(shapes, "neck.input_ops.")
        self.input_ops = nn.ModuleList([one(f"neck.input_ops.{i}.") for i in range(inputs)])
        self.middle = _Sequence(shapes, "neck.middle.")
        self.output_ops = nn.ModuleList([one("neck.output_ops.0.")])

    def forward(self, features: list[Tensor]) -> Tensor:
        size = (_GRID, _GRID)
        total = None
        for feature, part in zip(features, self.input_ops, strict=True):
            x = part(feature)
            if tuple(x.shape[-2:]) != size:
                x = F.interpolate(x, size=size, mode="bicubic")
            total = x if total is None else total + x
        out: Tensor = self.output_ops[0](self.middle(total))
        return out


class _Sequence(nn.Module):
    """Blocks one after the other, perhaps with `first`; with `halved` their first has stride 2."""

    def __init__(
        self,
        shapes: Mapping[str, Shape],
        prefix: str,
        first: nn.Module | None = None,
        halved: bool = False,
    ) -> None:
        super().__init__()
        blocks = [] if first is None else [first]
        for index in range(len(blocks), count_numbered(shapes, f"{prefix}op_list.")):
            stride = 2 if halved and index == 0 else 1
            blocks.append(_block(shapes, f"{prefix}op_list.{index}.", stride))
        self.op_list = nn.ModuleList(blocks)

    def forward(self, x: Tensor) -> Tensor:
        for block in self.op_list:
            x = block(x)
        return x


class _Convolution(nn.Module):
    """A convolution with its norm, where the weights have one, and GELU."""

    def __init__(
        self, shapes: Mapping[str, Shape], prefix: str, stride: int = 1, act: bool = True
    ) -> None:
        super().__init__()
        outputs, inputs, kernel, _ = _get(shapes, f"{prefix}conv.weight")
        groups = outputs if inputs == 1 else 1
        bias = f"{prefix}conv.bias" in shapes
        self.conv = nn.Conv2d(
            inputs * groups, outputs, kernel, stride, kernel // 2, groups=groups, bias=bias
        )
        self.norm: nn.Module | None = None
        if f"{prefix}norm.weight" in shapes:
            self.norm = nn.BatchNorm2d(outputs, eps=EPSILON)
        self.act = act

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv(x)
        x = x if self.norm is None else self.norm(x)
        return F.gelu(x, approximate="tanh") if self.act else x


class _Residual(nn.Module):
    """x + main(x), or main(x) where it halves the size."""

    def __init__(self, main: nn.Module, stride: int = 1) -> None:
        super().__init__()
        self.main, self._shortcut = main, stride == 1

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.main(x)
        return x + y if self._shortcut else y


class _Chain(nn.Module):
    """Convolutions by name, all but the last with GELU."""

    def __init__(
        self,
        shapes: Mapping[str, Shape],
        prefix: str,
        names: tuple[str, ...],
        strided: str,
        stride: int,
    ) -> None:
        super().__init__()
        for name in names:
            own = stride if name == strided else 1
            part = _Convolution(shapes, f"{prefix}{name}.", own, act=name != names[-1])
            self.add_module(name, part)

    def forward(self, x: Tensor) -> Tensor:
        for part in self.children():
            x = part(x)
        return x


class _AttentionBlock(nn.Module):
    def __init__(self, shapes: Mapping[str, Shape], prefix: str) -> None:
        super().__init__()
        self.context_module = _Residual(_LinearAttention(shapes, f"{prefix}context_module.main."))
        local = f"{prefix}local_module.main."
        self.local_module = _Residual(_Chain(shapes, local, _INVERTED, "depth_conv", 1))

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.local_module(self.context_module(x))
        return out


class _LinearAttention(nn.Module):
    """Attention whose weights are ReLU(q)·ReLU(k), at the scale of a cell and at coarser ones."""

    def __init__(self, shapes: Mapping[str, Shape], prefix: str) -> None:
        super().__init__()
        self.qkv = _Convolution(shapes, f"{prefix}qkv.", act=False)
        width = self.qkv.conv.out_channels
        scales = []
        for scale in range(count_numbered(shapes, f"{prefix}aggreg.")):
            kernel = _get(shapes, f"{prefix}aggreg.{scale}.0.weight")[2]
            own = _get(shapes, f"{prefix}aggreg.{scale}.1.weight")[1]
            scales.append(
                nn.Sequential(
                    nn.Conv2d(width, width, kernel, padding=kernel // 2, groups=width, bias=False),
                    nn.Conv2d(width, width, 1, groups=width // own, bias=False),
                )
            )
        self.aggreg = nn.ModuleList(scales)
        self.proj = _Convolution(shapes, f"{prefix}proj.", act=False)

    def forward(self, x: Tensor) -> Tensor:
        one = self.qkv(x)
        qkv = torch.cat([one, *(scale(one) for scale in self.aggreg)], 1)
        q, k, v = qkv.flatten(2).unflatten(1, (-1, 3 * _HEAD)).float().split(_HEAD, 2)
        q, k = F.relu(q), F.relu(k)  # (B, heads, 32, H * W)
        summed = v @ k.transpose(2, 3) @ q
        weight = k.sum(3)[:, :, None] @ q
        attended = (summed / (weight + _TINY)).to(qkv.dtype)
        out: Tensor = self.proj(attended.flatten(1, 2).unflatten(2, x.shape[2:]))
        return out


_INVERTED = ("inverted_conv", "depth_conv", "point_conv")
_KINDS = {  # by their first convolution: all of them, and which has the block's stride
    "conv1": (("conv1", "conv2"), "conv1"),
    "spatial_conv": (("spatial_conv", "point_conv"), "spatial_conv"),
    "inverted_conv": (_INVERTED, "depth_conv"),
}


def _block(shapes: Mapping[str, Shape], prefix: str, stride: int) -> nn.Module:
    if f"{prefix}context_module.main.qkv.conv.weight" in shapes:
        return _AttentionBlock(shapes, prefix)
    for first, (names, strided) in _KINDS.items():
        if f"{prefix}main.{first}.conv.weight" in shapes:
            return _Residual(_Chain(shapes, f"{prefix}main.", names, strided, stride), stride)
    raise ValueError(f"image_encoder.{prefix} is no block of EfficientViT")


class _ChannelNorm(nn.LayerNorm):
    """Layer norm over the channels of (B, C, H, W)."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


def _get(shapes: Mapping[str, Shape], name: str) -> Shape:
    shape = shapes.get(name)
    if shape is None or len(shape) != 4 or min(shape) < 1:
        raise ValueError(f"image_encoder.{name} is missing, or no kernel of a convolution")
    return shape
