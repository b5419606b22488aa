"""ResNets as feature extractors, under torchvision's own parameter names."""

from typing import Literal

import torchvision
from torch import Tensor, nn

from sapnet.segmenters.backbones.norm import NormLayer

ResNetName = Literal["resnet18", "resnet34", "resnet50", "resnet101"]


class ResNetBody(nn.Module):
    """Stem and four stages (He et al. 2016, the v1.5 of torchvision: stride on the 3×3)."""

    def __init__(self, name: ResNetName, norm_layer: NormLayer) -> None:
        super().__init__()
        net = getattr(torchvision.models, name)(weights=None, norm_layer=norm_layer)
        widest = net.fc.in_features
        self.channels = (widest // 8, widest // 4, widest // 2, widest)
        self.conv1, self.bn1, self.relu, self.maxpool = net.conv1, net.bn1, net.relu, net.maxpool
        self.layer1, self.layer2 = net.layer1, net.layer2
        self.layer3, self.layer4 = net.layer3, net.layer4

    def stages(self) -> list[list[nn.Module]]:
        """The modules of each stage; the stem counts to the first."""
        stem = [self.conv1, self.bn1, self.layer1]
        return [stem, [self.layer2], [self.layer3], [self.layer4]]

    def forward(self, images: Tensor) -> list[Tensor]:
        """Images (B, 3, H, W) -> C2..C5 at strides 4, 8, 16, 32."""
        x = self.maxpool(self.relu(self.bn1(self.conv1(images))))
        features = []
        for layer in (self.layer1, self.layer2, self.layer3, self.layer4):
            x = layer(x)
            features.append(x)
        return features
