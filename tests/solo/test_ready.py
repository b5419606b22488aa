"""A segmenter made ready to predict says what it said before."""

import copy

import pytest
import torch
from torch import nn

from sapnet.backbones import BackboneWithFpn
from sapnet.config import BackboneConfig, SoloConfig
from sapnet.ops.winograd import WinogradConv2d
from sapnet.solo import SoloHead, SoloV2
from sapnet.solo.ready import make_ready


def network(name, norm, pretrained, generator):
    config = BackboneConfig(name, fpn_channels=128, fpn_norm=norm)
    head = SoloConfig(num_grids=(8, 6, 4, 3, 2), channels=128, stacked_convs=2, mask_channels=32)
    backbone = BackboneWithFpn(config, pretrained=pretrained, generator=generator)
    model = SoloV2(backbone, SoloHead(3, 128, head, generator))
    for module in model.modules():  # as after training: nothing is 0 or 1
        if isinstance(module, nn.BatchNorm2d):
            for tensor in (module.weight, module.running_var):
                tensor.data.uniform_(0.5, 1.5, generator=generator)
            for tensor in (module.bias, module.running_mean):
                tensor.data.normal_(0, 0.1, generator=generator)
    return model.eval()


def tensors(result):
    features, output = result
    return [*features, *output.cls_logits, *output.kernels, output.mask_features]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "norm", "pretrained"),
    [("resnet50", "none", True), ("resnet50", "batch", False), ("mobilenet_v2", "group", True)],
)
@torch.inference_mode()
def test_the_same_within_a_ten_thousandth(generator, name, norm, pretrained):
    model = network(name, norm, pretrained, generator)
    images = torch.randn(2, 3, 64, 96, generator=generator)
    ready = make_ready(copy.deepcopy(model))
    for before, after in zip(tensors(model(images)), tensors(ready(images)), strict=True):
        assert (before - after).abs().max() <= 1e-4 * before.abs().max()
    kinds = [type(module) for module in ready.modules()]
    assert WinogradConv2d in kinds
    assert not any(issubclass(kind, nn.BatchNorm2d) for kind in kinds)
