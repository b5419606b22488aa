"""A segmenter made ready to predict says what it said before."""

import copy

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from sapnet.config.schema import BackboneConfig, SoloConfig
from sapnet.segmenters.backbones import BackboneWithFpn
from sapnet.segmenters.solov2 import SoloHead, SoloV2
from sapnet.segmenters.solov2.optimize import make_ready
from sapnet.segmenters.winograd.conv import LearningWinogradConv2d, WinogradConv2d
from sapnet.training.loop import make_fast


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


@pytest.mark.slow
def test_made_fast_it_learns_the_same(generator, monkeypatch):
    """Outputs and every gradient; parameters keep their names. ReLUs are smooth here: where
    rounding alone moves a value over their kink, gradients differ by up to a hundredth."""
    monkeypatch.setattr(F, "relu", lambda x, inplace=False: F.silu(x))
    monkeypatch.setattr(F, "hardtanh", lambda x, least, most, inplace=False: F.silu(x))
    model = network("mobilenet_v2", "none", True, generator).train()
    images = torch.randn(2, 3, 64, 96, generator=generator)
    fast = copy.deepcopy(model)
    make_fast(fast)
    assert LearningWinogradConv2d in [type(module) for module in fast.modules()]
    found = {}
    for name, one in (("plain", model), ("fast", fast)):
        outs = tensors(one(images.contiguous(memory_format=torch.channels_last)))
        torch.stack([out.square().mean() for out in outs]).sum().backward()
        grads = {key: p.grad for key, p in one.named_parameters() if p.requires_grad}
        found[name] = (outs, grads)
    for before, after in zip(found["plain"][0], found["fast"][0], strict=True):
        assert (before - after).abs().max() <= 1e-4 * before.abs().max()
    (_, plain), (_, quick) = found["plain"], found["fast"]
    assert list(plain) == list(quick)
    for key, grad in plain.items():
        assert (grad - quick[key]).abs().max() <= 3e-4 * grad.abs().max(), key
