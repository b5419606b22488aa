"""Backbones with a feature pyramid: images in, P2..P6 out."""

from pathlib import Path

import torch
from torch import Tensor, nn

from sapnet.config.schema import BackboneConfig
from sapnet.segmenters.backbones.fpn import Fpn
from sapnet.segmenters.backbones.lite0 import Lite0Body
from sapnet.segmenters.backbones.mobilenet import MobileNetBody
from sapnet.segmenters.backbones.norm import FrozenBatchNorm, group_norm
from sapnet.segmenters.backbones.resnet import ResNetBody
from sapnet.segmenters.backbones.weights import (
    WeightsOrigin,
    init_random,
    load_file,
    load_packaged,
    load_torchvision,
    warn_random,
)

__all__ = [
    "IMAGENET_MEAN",
    "IMAGENET_STD",
    "BackboneConfig",
    "BackboneWithFpn",
    "WeightsOrigin",
    "build_backbone",
]

# RGB, of values in [0, 1]: what every input is normalised with
IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


class BackboneWithFpn(nn.Module):
    """A body and its pyramid. It behaves alike in train and eval (unless `fpn_norm` is "batch").

    pretrained: whether the body carries (or is about to be given) ImageNet weights: then its batch
    norms and first stages are frozen. Else it has GroupNorm, which trains at any batch size, and
    everything learns. A checkpoint's body is rebuilt with `pretrained = origin.kind != "random"`.
    """

    strides = (4, 8, 16, 32, 64)

    def __init__(
        self,
        config: BackboneConfig,
        *,
        pretrained: bool,
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__()
        norm = FrozenBatchNorm if pretrained else group_norm
        self.body: MobileNetBody | ResNetBody | Lite0Body
        if config.name == "mobilenet_v2":
            self.body = MobileNetBody(norm)
        elif config.name == "efficientnet_lite0":
            self.body = Lite0Body(IMAGENET_MEAN, IMAGENET_STD)
        else:
            self.body = ResNetBody(config.name, norm)
        self.fpn = Fpn(
            self.body.channels,
            config.fpn_channels,
            norm=config.fpn_norm,
            p6=config.p6,
            generator=generator,
        )
        self.out_channels = config.fpn_channels
        if pretrained:
            for stage in self.body.stages()[: config.frozen_stages]:
                for module in stage:
                    module.requires_grad_(False)
        else:
            init_random(self.body, generator)

    def forward(self, images: Tensor) -> list[Tensor]:
        """P2..P6 at `strides`.

        Args:
            images: (B, 3, H, W) float, RGB, normalised by IMAGENET_MEAN and IMAGENET_STD; H and W
                multiples of 32.

        Returns:
            Five (B, fpn_channels, ceil(H / stride), ceil(W / stride)).
        """
        height, width = images.shape[-2:]
        if height % 32 or width % 32:
            raise ValueError(f"image sides must be multiples of 32, got {height}×{width}: pad them")
        features: list[Tensor] = self.fpn(self.body(images))
        return features


def build_backbone(
    config: BackboneConfig,
    weights: Path | None = None,
    allow_download: bool = True,
    generator: torch.Generator | None = None,
) -> tuple[BackboneWithFpn, WeightsOrigin]:
    """A backbone with the best weights to be had.

    Those are `weights`, else what is installed with the package, else torchvision's, else random.

    weights: a torchvision state dict of `config.name`, in any float dtype. allow_download: whether
    torchvision may look in its cache and then fetch. generator: for everything random.

    Raises:
        WeightsUnavailable: a given file is missing or does not fit; a download is damaged.

    Warns:
        UserWarning: once, where the body stays random.
    """
    if weights is not None:
        model = BackboneWithFpn(config, pretrained=True, generator=generator)
        return model, load_file(model.body, weights)
    if config.name == "efficientnet_lite0":
        model = BackboneWithFpn(config, pretrained=True, generator=generator)
        return model, load_packaged(model.body)
    reason = "no file was given, and downloads are off"
    if allow_download:
        model = BackboneWithFpn(config, pretrained=True, generator=generator)
        try:
            return model, load_torchvision(model.body, config.name)
        except OSError as error:
            reason = f"torchvision's could not be fetched: {error}"
    warn_random(config.name, reason)
    model = BackboneWithFpn(config, pretrained=False, generator=generator)
    return model, WeightsOrigin("random", reason)
