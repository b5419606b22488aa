"""How large and how dear SOLOv2 is with ResNet-50 and 80 classes, counted and by hand."""

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from sapnet.config.presets import paper_r50_1x
from sapnet.segmenters.backbones import BackboneWithFpn
from sapnet.segmenters.solov2 import SoloHead, SoloV2

CELLS = 40**2 + 36**2 + 24**2 + 16**2 + 12**2


@pytest.fixture(scope="module")
def model():
    config = paper_r50_1x()
    with torch.device("meta"):  # shapes without values: nothing is computed
        backbone = BackboneWithFpn(config.backbone, pretrained=True)
        return SoloV2(backbone, SoloHead(80, config.backbone.fpn_channels, config.solo))


@pytest.fixture(scope="module")
def macs(model):
    """Multiplications of one image of 800×1344, by module; a convolution counts two FLOPs each."""
    with FlopCounterMode(display=False) as counter:
        model(torch.empty(1, 3, 800, 1344, device="meta"))
    counts = counter.get_flop_counts()
    return {name: sum(operations.values()) / 2 for name, operations in counts.items()}


def count(module):
    return sum(p.numel() for p in module.parameters())


def test_46_6_million_parameters(model):
    assert count(model) == 46_592_912
    towers = sum(9 * 512 * (first + 3 * 512) + 4 * 2 * 512 for first in (256, 258))
    last = (9 * 512 + 1) * (80 + 256)
    masks = 9 * 128 * (4 * 256 + 2 + 3 * 128) + 7 * 2 * 128 + 128 * 256 + 2 * 256
    assert count(model.head) == towers + last + masks
    assert count(model.backbone.fpn) == (256 + 512 + 1024 + 2048 + 4 * 9 * 256 + 8) * 256
    assert count(model.backbone.body) == 25_557_032 - 2048 * 1000 - 1000  # without its classifier


@pytest.mark.slow
def test_253_billion_multiplications(macs):
    """Convolutions alone; a kernel times the mask features is 17 million more an instance."""
    assert macs["Global"] == 252_556_995_072
    towers = 9 * 512 * (256 + 258 + 6 * 512 + 80 + 256) * CELLS
    p2, p3, p4, p5 = (800 * 1344 // stride**2 for stride in (4, 8, 16, 32))
    wide, inner = 9 * 128 * 256, 9 * 128 * 128
    masks = wide * (p2 + p3 + p4) + 9 * 128 * 258 * p5  # the first convolution of each level
    masks += inner * (4 * p4 + (4 + 16) * p5) + 128 * 256 * p2  # after doubling, and the last
    assert macs["SoloV2.head"] == towers + masks
    lateral = 256 * (256 * p2 + 512 * p3 + 1024 * p4 + 2048 * p5)
    assert macs["SoloV2.backbone.fpn"] == lateral + 9 * 256 * 256 * (p2 + p3 + p4 + p5)
