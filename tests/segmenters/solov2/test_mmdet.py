"""Files to and from mmdetection: what goes out comes back, and what does not fit is named."""

import json
from argparse import Namespace
from dataclasses import replace

import pytest
import torch
from typer.testing import CliRunner

from sapnet.cli.mmdet import app
from sapnet.config.presets import cpu, light_r18, light_r50, paper_r50_1x
from sapnet.errors import WeightsUnavailable
from sapnet.segmenters.backbones import BackboneConfig, BackboneWithFpn
from sapnet.segmenters.checkpoint import Predictor, save_artifact
from sapnet.segmenters.solov2 import SoloHead, SoloV2
from sapnet.segmenters.solov2.mmdet import _config, _names, _settings, export_mmdet, import_mmdet
from sapnet.segmenters.solov2.mmdet_keys import to_mmdet_state_dict
from sapnet.types import Category

CATEGORIES = [{"id": 3, "name": "cell"}, {"id": 9, "name": "nucleus"}]


def small_config(name="resnet18", **backbone):
    config = paper_r50_1x()
    solo = replace(
        config.solo,
        num_grids=(8, 6, 4, 3, 2),
        channels=32,
        stacked_convs=2,
        mask_channels=16,
        mask_feature_channels=24,
    )
    return replace(config, solo=solo, backbone=BackboneConfig(name, fpn_channels=64, **backbone))


def build(config, pretrained=True):
    backbone = BackboneWithFpn(config.backbone, pretrained=pretrained)
    return SoloV2(backbone, SoloHead(len(CATEGORIES), config.backbone.fpn_channels, config.solo))


def save_model(folder, config, kind="file"):
    meta = {
        "categories": CATEGORIES,
        "config": config.to_dict(),
        "weights": {"kind": kind, "detail": "-", "sha256": None},
    }
    save_artifact(folder, build(config, kind != "random"), meta)
    return folder / "model.pt"


def content(path):
    return torch.load(path, weights_only=True)


def same_tensors(one, two):
    assert list(one) == list(two)
    assert all(torch.equal(value, two[key]) for key, value in one.items())


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return save_model(tmp_path_factory.mktemp("model"), small_config())


@pytest.fixture(scope="module")
def exported(model, tmp_path_factory):
    out = tmp_path_factory.mktemp("exported") / "solov2.pth"
    result = CliRunner().invoke(app, ["export", str(model), str(out)])
    assert result.exit_code == 0
    assert json.loads(result.stdout)["mask_head"]["num_classes"] == 2
    return out


@pytest.mark.slow
def test_out_and_back_is_the_same_model(model, exported, tmp_path):
    result = CliRunner().invoke(app, ["import", str(exported), str(tmp_path)])
    assert result.exit_code == 0
    assert "2 classes" in result.stdout
    same_tensors(content(model)["state_dict"], content(tmp_path / "model.pt")["state_dict"])
    described, before = (
        json.loads((f / "model.json").read_text()) for f in (tmp_path, model.parent)
    )
    assert described == before


@pytest.mark.slow
def test_a_file_of_mmdetection_goes_in_and_out_identically(exported, tmp_path):
    """Without our description in its `meta`: all that is known is read off the tensors."""
    state = content(exported)["state_dict"]
    meta = {"dataset_meta": {"classes": ("a", "b")}, "epoch": 12}
    torch.save({"state_dict": state, "meta": meta}, tmp_path / "theirs.pth")
    import_mmdet(tmp_path / "theirs.pth", tmp_path)
    settings = export_mmdet(tmp_path / "model.pt", tmp_path / "again.pth")
    same_tensors(state, content(tmp_path / "again.pth")["state_dict"])
    description = json.loads((tmp_path / "model.json").read_text())
    assert description["categories"] == [{"id": 1, "name": "a"}, {"id": 2, "name": "b"}]
    assert description["weights"]["detail"] == "theirs.pth"
    assert settings["mask_head"]["num_grids"] == [40, 36, 24, 16, 12]


@pytest.mark.parametrize(
    ("meta", "names"),
    [
        ({"dataset_meta": {"classes": ("a", "b")}}, ["a", "b"]),
        ({"CLASSES": ["c", "d"]}, ["c", "d"]),
        ({"CLASSES": ("too", "many", "names")}, ["1", "2"]),
        ({"CLASSES": None}, ["1", "2"]),
        ({}, ["1", "2"]),
    ],
)
def test_names_of_the_classes(meta, names):
    assert _names(meta, 2) == names


@pytest.mark.slow
@pytest.mark.parametrize("name", ["resnet18", "resnet34", "resnet50", "resnet101"])
@pytest.mark.parametrize(("norm", "kind"), [("none", None), ("batch", "BN"), ("group", "GN")])
@pytest.mark.parametrize(("p6", "extra"), [("pool", False), ("conv", "on_output")])
def test_the_architecture_is_read_off_the_tensors(name, norm, kind, p6, extra):
    config = small_config(name, fpn_norm=norm, p6=p6)
    with torch.device("meta"):  # shapes without values
        segmenter = build(config)
    got = _config(to_mmdet_state_dict(segmenter))
    assert got.backbone == config.backbone
    assert got.solo == replace(config.solo, num_grids=paper_r50_1x().solo.num_grids)
    settings = _settings(Predictor(segmenter, got, (Category(1, "a"), Category(2, "b")), {}))
    assert settings["backbone"] == {"depth": int(name.removeprefix("resnet"))}
    neck, head = settings["neck"], settings["mask_head"]
    assert (neck["out_channels"], neck["add_extra_convs"]) == (64, extra)
    assert (neck["norm_cfg"] or {"type": None})["type"] == kind
    assert (head["num_classes"], head["feat_channels"], head["stacked_convs"]) == (2, 32, 2)
    assert head["mask_feature_head"] == {"feat_channels": 24, "out_channels": 16}


def test_the_light_head_brings_its_ranges_and_input_size():
    with torch.device("meta"):
        segmenter = build(light_r18())
    got = _config(to_mmdet_state_dict(segmenter))
    assert (got.backbone, got.solo) == (light_r18().backbone, light_r18().solo)
    assert got.data == light_r50().data
    settings = _settings(Predictor(segmenter, got, (Category(1, "a"), Category(2, "b")), {}))
    assert settings["neck"]["in_channels"] == [64, 128, 256, 512]
    assert settings["mask_head"]["feat_channels"] == 256
    assert settings["mask_head"]["mask_feature_head"] == {"feat_channels": 128, "out_channels": 128}


@pytest.mark.slow
def test_what_has_no_such_layout_is_said(tmp_path):
    mobile = replace(small_config(), backbone=replace(cpu().backbone, fpn_channels=64))
    with pytest.raises(ValueError, match="MobileNetV2"):
        export_mmdet(save_model(tmp_path, mobile), tmp_path / "out.pth")
    with pytest.raises(ValueError, match="random weights"):
        export_mmdet(save_model(tmp_path, mobile, "random"), tmp_path / "out.pth")
    assert not (tmp_path / "out.pth").exists()


def broken(case, state):
    if case == "missing":
        del state["mask_head.conv_cls.bias"]
    elif case == "shape":
        state["neck.lateral_convs.1.conv.weight"] = torch.zeros(64, 8, 1, 1)
    elif case == "depth":
        state["backbone.layer3.2.conv1.weight"] = torch.zeros(1)
    elif case == "deformable":
        state["mask_head.cls_convs.1.conv.conv_offset.weight"] = torch.zeros(1)
    elif case == "other":
        state["rpn_head.conv.weight"] = torch.zeros(1)
    return {"state_dict": {}} if case == "empty" else {"state_dict": state}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("case", "says"),
    [
        ("missing", r"conv_cls\.bias"),
        ("shape", r"another shape .*lateral_convs\.1"),
        ("depth", "3 basic blocks in stage 3"),
        ("deformable", "DCN"),
        ("other", r"rpn_head\.conv"),
        ("empty", "no mmdetection SOLOv2"),
        ("bare", 'no "state_dict"'),
        ("objects", "as tensors"),
        ("absent", "as tensors"),
    ],
)
def test_a_file_that_does_not_fit(case, says, exported, tmp_path):
    path = tmp_path / "bad.pth"
    if case == "objects":  # code must never run on loading: weights_only refuses foreign classes
        torch.save({"state_dict": {}, "meta": Namespace(x=1)}, path)
    elif case != "absent":
        state = dict(content(exported)["state_dict"])
        torch.save(state if case == "bare" else broken(case, state), path)
    with pytest.raises(WeightsUnavailable, match=says):
        import_mmdet(path, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_the_command_says_what_is_wrong_in_a_line(tmp_path):
    result = CliRunner().invoke(app, ["import", str(tmp_path / "absent.pth"), str(tmp_path / "no")])
    assert result.exit_code == 1
    assert isinstance(result.exception, SystemExit)
