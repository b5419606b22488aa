"""Which segmenter a configuration asks for."""

from collections.abc import Callable

from sapnet.config.schema import Config, SoloConfig
from sapnet.segmenters.backbones import BackboneWithFpn
from sapnet.segmenters.base import Segmenter

SegmenterBuilder = Callable[[Config, int, BackboneWithFpn], Segmenter]
"""(config, number of classes, backbone) -> segmenter."""


def build_segmenter(config: Config, num_classes: int, backbone: BackboneWithFpn) -> Segmenter:
    """A segmenter for K classes on a backbone; what is random comes from torch's generator."""
    match config.solo:
        case SoloConfig():
            from sapnet.segmenters.solov2 import SoloHead, SoloV2

            return SoloV2(backbone, SoloHead(num_classes, backbone.out_channels, config.solo))
