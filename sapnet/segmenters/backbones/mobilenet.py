"""MobileNetV2 as a feature extractor for machines without a GPU, under torchvision's names."""

import torchvision
from torch import Tensor, nn

from sapnet.segmenters.backbones.norm import NormLayer

# `features[:4]` ends at stride 4, `[:7]` at 8, `[:14]` at 16, `[:19]` (the last 1×1 too) at 32
_STAGES = ((0, 4), (4, 7), (7, 14), (14, 19))


class MobileNetBody(nn.Module):
    """The convolutional part of MobileNetV2 (Sandler et al. 2018), read out at four strides."""

    channels = (24, 32, 96, 1280)

    def __init__(self, norm_layer: NormLayer) -> None:
        super().__init__()
        self.features = torchvision.models.mobilenet_v2(
            weights=None, norm_layer=norm_layer
        ).features

    def stages(self) -> list[list[nn.Module]]:
        """The modules of each stage; the stem counts to the first."""
        blocks = list(self.features)
        return [blocks[start:end] for start, end in _STAGES]

    def forward(self, images: Tensor) -> list[Tensor]:
        """Images (B, 3, H, W) -> C2..C5 at strides 4, 8, 16, 32."""
        x = images
        features = []
        for stage in self.stages():
            for block in stage:
                x = block(x)
            features.append(x)
        return features
