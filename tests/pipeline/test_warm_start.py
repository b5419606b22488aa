"""Trainings that go on from a model: its weights, its classes wherever they stand now."""

import json
from dataclasses import replace

import pytest
import torch

from sapnet.config.presets import cpu
from sapnet.config.resolve import architecture_differences, resolve_config
from sapnet.errors import InvalidConfig, WeightsUnavailable
from sapnet.pipeline.run import Run
from sapnet.segmenters.backbones import BackboneWithFpn, WeightsOrigin
from sapnet.segmenters.checkpoint import load_predictor, save_artifact
from sapnet.segmenters.solov2 import SoloV2
from sapnet.training.model import build_model
from sapnet.training.warm_start import go_on_from
from sapnet.types import Category

CATS, DOGS, OWLS = Category(3, "cat"), Category(7, "dog"), Category(9, "owl")


@pytest.fixture
def config(tiny):
    return resolve_config("sapnet++", "cpu", tiny)


def saved(folder, config, categories, **weights):
    """A model.pt with weights of its own, and what they are."""
    model, origin = build_model(config, len(categories), None, seed=5, allow_download=False)
    with torch.no_grad():
        for place, value in enumerate(model.segmenter.parameters()):
            value.add_(0.01 * (place + 1))
    meta = {
        "categories": [{"id": c.id, "name": c.name} for c in categories],
        "config": config.to_dict(),
        "weights": {"kind": origin.kind, "detail": origin.detail, **weights},
    }
    save_artifact(folder, model.segmenter, meta)
    return folder / "model.pt", model.segmenter.state_dict()


def test_the_same_classes_are_the_same_model(config, tmp_path):
    path, before = saved(tmp_path, config, [CATS, DOGS])
    model, origin = go_on_from(path, config, [DOGS, CATS], seed=1)  # labels go by id
    after = model.segmenter.state_dict()
    assert set(after) == set(before)
    assert all(torch.equal(after[name], before[name]) for name in before)
    assert origin.kind == "random"
    assert origin.in_words().startswith(f"model {origin.model[:12]}, which began with random")
    assert model.training


@pytest.mark.slow
def test_classes_are_found_by_id_and_name(config, tmp_path):
    path, before = saved(tmp_path, config, [CATS, DOGS])
    fresh, _ = build_model(config, 3, None, seed=1, allow_download=False)
    model, _ = go_on_from(path, config, [DOGS, Category(1, "bee"), OWLS], seed=1)
    after = model.segmenter.state_dict()
    for name in ("weight", "bias"):
        key = f"head.conv_cls.{name}"
        assert torch.equal(after[key][1], before[key][1])  # dogs, second by id in both
        for new in (0, 2):
            assert torch.equal(after[key][new], fresh.segmenter.state_dict()[key][new])
    others = [n for n in before if "conv_cls" not in n]
    assert all(torch.equal(after[n], before[n]) for n in others)
    renamed, _ = go_on_from(path, config, [replace(CATS, name="kitten")], seed=1)
    assert not torch.equal(
        renamed.segmenter.head.conv_cls.weight[0], before["head.conv_cls.weight"][0]
    )


def test_what_began_with_weights_is_built_as_such(config, tmp_path):
    """Frozen norms, or GroupNorm: by what the first of the line began with."""
    solo = SoloV2(
        BackboneWithFpn(config.backbone, pretrained=True),
        build_model(config, 1, None, seed=0, allow_download=False)[0].segmenter.head,
    )
    meta = {"categories": [{"id": 3, "name": "cat"}], "config": config.to_dict()}
    origin = {"kind": "file", "detail": "imagenet.pt", "sha256": "00"}
    save_artifact(tmp_path, solo, {**meta, "weights": origin})
    model, began = go_on_from(tmp_path / "model.pt", config, [CATS], seed=0)
    assert (began.kind, began.detail, began.sha256) == ("file", "imagenet.pt", "00")
    assert isinstance(began, WeightsOrigin)
    frozen = [p for p in model.segmenter.backbone.body.parameters() if not p.requires_grad]
    assert frozen


def test_another_architecture(config, tmp_path):
    path, _ = saved(tmp_path, config, [CATS])
    wider = resolve_config("sapnet++", "cpu", {**settings_of(config), "solo.channels": 32})
    with pytest.raises(InvalidConfig, match=r"solo\.channels is 32, the model's 16"):
        go_on_from(path, wider, [CATS], seed=0)
    (tmp_path / "none.pt").write_bytes(b"no model")
    with pytest.raises(WeightsUnavailable):
        go_on_from(tmp_path / "none.pt", config, [CATS], seed=0)


def settings_of(config):
    return {"backbone.fpn_channels": config.backbone.fpn_channels} | {
        f"solo.{name}": getattr(config.solo, name)
        for name in ("channels", "stacked_convs", "mask_channels", "mask_feature_channels")
    }


def test_architectures_are_compared_by_what_shapes_weights():
    mine = cpu()
    assert architecture_differences(mine, json.loads(json.dumps(mine.to_dict()))) == []
    demo = resolve_config("sapnet", "demo").to_dict()
    assert architecture_differences(mine, demo) == []  # other grids, the same weights
    paper = architecture_differences(mine, resolve_config("sapnet", "paper_r50_1x").to_dict())
    assert "backbone.name is 'mobilenet_v2', the model's 'resnet50'" in paper
    assert len(architecture_differences(mine, {})) == 8


@pytest.mark.slow
def test_the_first_loss_is_lower_than_from_scratch(make_spec, tmp_path):
    """And the run is another one: its folder cannot be taken up without the model."""

    def run(name, **changes):
        events = []
        spec = make_spec(tmp_path / name, **changes)
        Run(spec, lambda event: events.append(event.to_dict()), lambda: False)()
        started = next(e for e in events if e["event"] == "start")
        losses = [e["losses"] for e in events if e.get("stage") == "train" and "losses" in e]
        return spec, started, losses

    longer = {"overrides": {"train.epochs": 12}}
    first, _, scratch = run("first", **longer)
    model = first.workdir / "result" / "model.pt"
    spec, started, going_on = run("second", initial_model=model)
    assert started["weights_origin"].startswith("model ")
    for term in ("mask", "cls"):
        assert going_on[0][term] < scratch[0][term], (going_on[0], scratch[0])
    meta = json.loads((spec.workdir / "result" / "model.json").read_text())
    assert meta["weights"]["model"]
    assert load_predictor(spec.workdir / "result" / "model.pt", device="cpu").categories
    with pytest.raises(InvalidConfig, match="initial_model was"):
        Run(replace(spec, initial_model=None), lambda _: None, lambda: False)()
