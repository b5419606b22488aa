"""The documented key list of mmdetection's SOLOv2 (ResNet, FPN, SOLOV2Head), written out here."""

import pytest
import torch

from sapnet.config.presets import light_r18, light_r34
from sapnet.errors import WeightsUnavailable
from sapnet.segmenters.backbones import BackboneConfig, BackboneWithFpn
from sapnet.segmenters.solov2 import SoloConfig, SoloHead, SoloV2
from sapnet.segmenters.solov2.mmdet_keys import (
    from_mmdet_key,
    load_mmdet_state_dict,
    to_mmdet_key,
    to_mmdet_state_dict,
)


def norm(name, channels):
    yield from ((f"{name}.{part}", (channels,)) for part in ("weight", "bias"))


def batch_norm(name, channels):
    yield from norm(name, channels)
    yield from ((f"{name}.running_{part}", (channels,)) for part in ("mean", "var"))
    yield f"{name}.num_batches_tracked", ()


def light_resnet(blocks):
    """ResNet-18 and 34: of basic blocks, the first of which changes nothing."""
    yield "backbone.conv1.weight", (64, 3, 7, 7)
    yield from batch_norm("backbone.bn1", 64)
    channels = 64
    for stage, count in enumerate(blocks, start=1):
        width = 32 * 2**stage
        for block in range(count):
            name = f"backbone.layer{stage}.{block}"
            yield f"{name}.conv1.weight", (width, channels, 3, 3)
            yield f"{name}.conv2.weight", (width, width, 3, 3)
            yield from batch_norm(f"{name}.bn1", width)
            yield from batch_norm(f"{name}.bn2", width)
            if channels != width:
                yield f"{name}.downsample.0.weight", (width, channels, 1, 1)
                yield from batch_norm(f"{name}.downsample.1", width)
            channels = width


def resnet(blocks):
    yield "backbone.conv1.weight", (64, 3, 7, 7)
    yield from batch_norm("backbone.bn1", 64)
    channels = 64
    for stage, count in enumerate(blocks, start=1):
        width = 32 * 2**stage
        for block in range(count):
            name = f"backbone.layer{stage}.{block}"
            yield f"{name}.conv1.weight", (width, channels, 1, 1)
            yield f"{name}.conv2.weight", (width, width, 3, 3)
            yield f"{name}.conv3.weight", (4 * width, width, 1, 1)
            for i, out in enumerate((width, width, 4 * width), start=1):
                yield from batch_norm(f"{name}.bn{i}", out)
            if block == 0:
                yield f"{name}.downsample.0.weight", (4 * width, channels, 1, 1)
                yield from batch_norm(f"{name}.downsample.1", 4 * width)
            channels = 4 * width


def neck(kind, levels):
    for i in range(levels):
        inputs = (256, 512, 1024, 2048, None)[i]
        for name, shape in (
            (f"neck.lateral_convs.{i}", (256, inputs, 1, 1)),
            (f"neck.fpn_convs.{i}", (256, 256, 3, 3)),
        ):
            if shape[1] is None:
                continue
            yield f"{name}.conv.weight", shape
            if kind == "none":
                yield f"{name}.conv.bias", (256,)
            elif kind == "batch":
                yield from batch_norm(f"{name}.bn", 256)
            else:
                yield from norm(f"{name}.gn", 256)


def head(classes):
    for i in range(4):
        for name, first in (("cls", 256), ("kernel", 258)):
            yield f"mask_head.{name}_convs.{i}.conv.weight", (512, 512 if i else first, 3, 3)
            yield from norm(f"mask_head.{name}_convs.{i}.gn", 512)
    for name, out in (("cls", classes), ("kernel", 256)):
        yield f"mask_head.conv_{name}.weight", (out, 512, 3, 3)
        yield f"mask_head.conv_{name}.bias", (out,)
    mask = "mask_head.mask_feature_head"
    for level, convs in enumerate((1, 1, 2, 3)):
        for i in range(convs):
            inputs = 128 if i else (258 if level == 3 else 256)
            yield f"{mask}.convs_all_levels.{level}.conv{i}.conv.weight", (128, inputs, 3, 3)
            yield from norm(f"{mask}.convs_all_levels.{level}.conv{i}.gn", 128)
    yield f"{mask}.conv_pred.conv.weight", (256, 128, 1, 1)
    yield from norm(f"{mask}.conv_pred.gn", 256)


def light_head(classes):
    for i in range(2):
        for name, first in (("cls", 256), ("kernel", 258)):
            yield f"mask_head.{name}_convs.{i}.conv.weight", (256, 256 if i else first, 3, 3)
            yield from norm(f"mask_head.{name}_convs.{i}.gn", 256)
    for name, out in (("cls", classes), ("kernel", 128)):
        yield f"mask_head.conv_{name}.weight", (out, 256, 3, 3)
        yield f"mask_head.conv_{name}.bias", (out,)
    mask = "mask_head.mask_feature_head"
    yield from ((key, shape) for key, shape in head(classes) if key.startswith(f"{mask}.convs"))
    yield f"{mask}.conv_pred.conv.weight", (128, 128, 1, 1)
    yield from norm(f"{mask}.conv_pred.gn", 128)


def solov2(classes=80, **options):
    backbone = BackboneWithFpn(BackboneConfig("resnet50", **options), pretrained=True)
    return SoloV2(backbone, SoloHead(classes, 256, SoloConfig()))


@pytest.fixture(scope="module")
def model():
    return solov2()


@pytest.mark.slow
def test_the_keys_are_mmdetections(model):
    documented = dict([*resnet((3, 4, 6, 3)), *neck("none", 4), *head(80)])
    assert {k: tuple(v.shape) for k, v in to_mmdet_state_dict(model).items()} == documented


@pytest.mark.parametrize(
    ("preset", "blocks"), [(light_r18, (2, 2, 2, 2)), (light_r34, (3, 4, 6, 3))]
)
def test_the_keys_of_the_light_configurations(preset, blocks):
    config = preset()
    with torch.device("meta"):
        backbone = BackboneWithFpn(config.backbone, pretrained=True)
        light = SoloV2(backbone, SoloHead(80, 256, config.solo))
    of_neck = {
        key: (256, 2 ** (6 + int(key.split(".")[2])), 1, 1)
        if "lateral" in key and key.endswith("weight")
        else shape
        for key, shape in neck("none", 4)
    }
    documented = dict(light_resnet(blocks)) | of_neck | dict(light_head(80))
    assert {k: tuple(v.shape) for k, v in to_mmdet_state_dict(light).items()} == documented


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["batch", "group"])
def test_fpn_norm_and_extra_conv(kind):
    ours = to_mmdet_state_dict(solov2(fpn_norm=kind, p6="conv"))
    documented = dict(neck(kind, 5))
    assert {k: tuple(v.shape) for k, v in ours.items() if k.startswith("neck.")} == documented


@pytest.mark.slow
def test_one_to_one_both_ways(model):
    keys = list(model.state_dict())
    theirs = [to_mmdet_key(key) for key in keys]
    assert len(set(theirs)) == len(keys)
    assert [from_mmdet_key(key) for key in theirs] == keys


@pytest.mark.slow
def test_the_size_is_the_published_one(model):
    assert sum(p.numel() for p in model.parameters()) / 1e6 == pytest.approx(46.6, abs=0.05)


@pytest.mark.slow
def test_a_checkpoint_goes_in_and_comes_out(model):
    generator = torch.Generator().manual_seed(3)
    state = {
        key: torch.rand(value.shape, generator=generator)
        if value.is_floating_point()
        else value.clone()
        for key, value in to_mmdet_state_dict(model).items()
    }
    load_mmdet_state_dict(model, state)
    out = to_mmdet_state_dict(model)
    assert all(torch.equal(out[key], value) for key, value in state.items())


@pytest.mark.slow
def test_another_number_of_classes_is_named(model):
    state = to_mmdet_state_dict(model)
    state["mask_head.conv_cls.weight"] = torch.zeros(3, 512, 3, 3)
    del state["neck.fpn_convs.0.conv.bias"]
    with pytest.raises(WeightsUnavailable, match=r"fpn_convs\.0.*conv_cls\.weight"):
        load_mmdet_state_dict(model, state)


def test_a_foreign_key_is_named():
    with pytest.raises(ValueError, match=r"rpn_head\.conv"):
        from_mmdet_key("rpn_head.conv.weight")
    with pytest.raises(ValueError, match="MobileNetV2"):
        to_mmdet_key("backbone.body.features.0.0.weight")
