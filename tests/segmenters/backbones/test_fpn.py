"""The pyramid: every body's sizes, a plain top-down pass, the options of norm and P6."""

from typing import get_args

import pytest
import torch
import torch.nn.functional as F

from sapnet.config.schema import Body
from sapnet.segmenters.backbones import BackboneConfig, BackboneWithFpn
from sapnet.segmenters.backbones.fpn import Fpn
from sapnet.segmenters.backbones.norm import FrozenBatchNorm, group_norm


@pytest.fixture(autouse=True, scope="package")
def _one_thread():
    """Tests run beside each other: threads of their own would only make them wait."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.mark.slow
@pytest.mark.parametrize("name", get_args(Body))
@pytest.mark.parametrize("pretrained", [True, False])
def test_five_levels_of_every_body(name, pretrained):
    model = BackboneWithFpn(BackboneConfig(name, fpn_channels=16), pretrained=pretrained)
    with torch.no_grad():
        features = model(torch.zeros(2, 3, 96, 32))
    assert [tuple(f.shape) for f in features] == [
        (2, 16, -(-96 // s), -(-32 // s)) for s in model.strides
    ]


@pytest.mark.slow
def test_sides_that_do_not_fit_are_refused():
    model = BackboneWithFpn(BackboneConfig(fpn_channels=8), pretrained=False)
    with pytest.raises(ValueError, match="100×64"):
        model(torch.zeros(1, 3, 100, 64))


def features_of(channels, generator):
    return [
        torch.randn(2, c, 16 // 2**i, 8 // 2**i, generator=generator)
        for i, c in enumerate(channels)
    ]


def test_against_a_plain_pass():
    generator = torch.Generator().manual_seed(0)
    channels = (3, 5, 6, 7)
    fpn = Fpn(channels, 4, generator=generator)
    inputs = features_of(channels, generator)
    inner = [m.conv(x) for m, x in zip(fpn.lateral_convs, inputs, strict=True)]
    for i in (2, 1, 0):
        inner[i] = inner[i] + inner[i + 1].repeat_interleave(2, 2).repeat_interleave(2, 3)
    expected = [m.conv(x) for m, x in zip(fpn.fpn_convs, inner, strict=True)]
    expected.append(F.max_pool2d(expected[-1], 1, stride=2))
    for got, want in zip(fpn(inputs), expected, strict=True):
        torch.testing.assert_close(got, want)


@pytest.mark.parametrize("norm", ["none", "batch", "group"])
@pytest.mark.parametrize("p6", ["pool", "conv"])
def test_norm_and_p6(norm, p6):
    generator = torch.Generator().manual_seed(0)
    channels = (3, 5, 6, 7)
    fpn = Fpn(channels, 4, norm=norm, p6=p6, generator=generator)
    out = fpn(features_of(channels, generator))
    assert [tuple(o.shape[2:]) for o in out] == [(16, 8), (8, 4), (4, 2), (2, 1), (1, 1)]
    keys = {key.split(".", 2)[2].split(".")[0] for key in fpn.state_dict()}
    assert keys == {"none": {"conv"}, "batch": {"conv", "bn"}, "group": {"conv", "gn"}}[norm]
    assert (fpn.lateral_convs[0].conv.bias is None) == (norm != "none")
    assert len(fpn.fpn_convs) == (5 if p6 == "conv" else 4)
    if p6 == "conv":
        torch.testing.assert_close(out[5 - 1], fpn.fpn_convs[4](out[3]))


def test_frozen_batch_norm_is_batch_norm_in_eval():
    generator = torch.Generator().manual_seed(0)
    plain, frozen = torch.nn.BatchNorm2d(6), FrozenBatchNorm(6)
    for value in plain.state_dict().values():
        if value.is_floating_point():
            value.copy_(torch.rand(value.shape, generator=generator) + 0.1)
    frozen.load_state_dict(plain.state_dict())
    x = torch.randn(3, 6, 4, 5, generator=generator)
    before = {k: v.clone() for k, v in frozen.state_dict().items()}
    torch.testing.assert_close(frozen.train()(x), plain.eval()(x))
    assert all(torch.equal(before[k], v) for k, v in frozen.state_dict().items())


@pytest.mark.parametrize(
    ("channels", "groups"), [(1, 1), (16, 16), (24, 8), (32, 32), (96, 32), (256, 32)]
)
def test_group_norm_divides_its_channels(channels, groups):
    assert group_norm(channels).num_groups == groups
