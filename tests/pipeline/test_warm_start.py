"""Trainings that go on from a model: its weights, its classes wherever they stand now."""

import json
from dataclasses import asdict, replace

import pytest
import torch

from sapnet.config.presets import cpu, light_r18
from sapnet.config.resolve import architecture_differences, resolve_config
from sapnet.errors import InvalidConfig, WeightsUnavailable
from sapnet.pipeline.run import Run
from sapnet.segmenters.backbones import BackboneWithFpn, WeightsOrigin
from sapnet.segmenters.checkpoint import load_predictor, save_artifact
from sapnet.segmenters.importing import import_model
from sapnet.segmenters.solov2 import SoloHead, SoloV2
from sapnet.segmenters.solov2.mmdet import export_mmdet
from sapnet.segmenters.solov2.mmdet_keys import to_mmdet_state_dict
from sapnet.training.model import build_model
from sapnet.training.warm_start import class_sources, go_on_from
from sapnet.types import Category

CATS, DOGS, OWLS = Category(3, "cat"), Category(7, "dog"), Category(9, "owl")


@pytest.fixture
def config(tiny):
    return resolve_config("sapnet++", "cpu", tiny, body="mobilenet_v2")


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


@pytest.mark.slow
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
def test_a_model_that_began_with_the_packages_weights(tiny, tmp_path):
    """As every one of `cpu` does that is given no weights."""
    config = resolve_config("sapnet++", "cpu", tiny)
    path, before = saved(tmp_path, config, [CATS])
    described = import_model(path, tmp_path / "again")
    assert described["weights"]["kind"] == "package"
    for file in (path, tmp_path / "again" / "model.safetensors"):
        model, origin = go_on_from(file, config, [CATS], seed=1)
        assert origin.kind == "package"
        after = model.segmenter.state_dict()
        assert all(torch.equal(after[name], before[name]) for name in before)


@pytest.mark.slow
def test_classes_are_found_by_id_and_name(config, tmp_path):
    path, before = saved(tmp_path, config, [CATS, DOGS])
    notes = []
    wanted = [DOGS, Category(1, "big cat"), OWLS]
    model, _ = go_on_from(path, config, wanted, seed=1, note=notes.append)
    after = model.segmenter.state_dict()
    for name in ("weight", "bias"):
        key = f"head.conv_cls.{name}"
        assert torch.equal(after[key][1], before[key][1])  # dogs, second by id in both
        assert torch.equal(after[key][0], before[key][0])  # the most similar name
        assert torch.allclose(after[key][2], before[key].mean(0))
    (note,) = notes
    assert "'big cat' as 'cat', 'owl' as their mean" in note
    others = [n for n in before if "conv_cls" not in n]
    assert all(torch.equal(after[n], before[n]) for n in others)


@pytest.mark.parametrize(
    ("name", "labels"),
    [
        ("Traffic_Light", [1]),
        ("cells", [0]),
        ("tennis ball", [2]),
        ("owl", [0, 1, 2]),
        ("", [0, 1, 2]),
    ],
)
def test_new_classes_begin_as_the_most_similar(name, labels):
    earlier = [Category(1, "cell"), Category(2, "traffic light"), Category(3, "sports ball")]
    assert class_sources([Category(9, name)], earlier) == [labels]
    assert class_sources([Category(9, name)], []) == [[]]


@pytest.mark.slow
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


@pytest.mark.slow
def test_another_architecture(config, tmp_path):
    path, _ = saved(tmp_path, config, [CATS])
    paper = replace(config, backbone=replace(config.backbone, name="resnet18"))
    with pytest.raises(InvalidConfig, match=r"backbone\.name is 'resnet18', the model's 'mob"):
        go_on_from(path, paper, [CATS], seed=0)
    (tmp_path / "none.pt").write_bytes(b"no model")
    with pytest.raises(WeightsUnavailable):
        go_on_from(tmp_path / "none.pt", config, [CATS], seed=0)


@pytest.mark.slow
def test_of_other_widths_what_fits_is_taken(config, tmp_path):
    path, before = saved(tmp_path, config, [CATS])
    changes = {**settings_of(config), "solo.channels": 32}
    wider = resolve_config("sapnet++", "cpu", changes, body="mobilenet_v2")
    notes = []
    model, _ = go_on_from(path, wider, [CATS], seed=0, note=notes.append)
    after = model.segmenter.state_dict()
    left = {name for name in after if after[name].shape != before[name].shape}
    assert left
    assert all(name.startswith("head.") for name in left)
    assert all(torch.equal(after[n], before[n]) for n in set(after) - left)
    (note,) = notes
    assert note.startswith(f"{len(left)} of {len(after)} tensors begin anew, head.")
    assert note.endswith("solo.channels is 32, the model's 16")


@pytest.mark.slow
def test_a_light_solov2_of_mmdetection_goes_in_learns_and_comes_out(generator, tmp_path):
    """The training step is a plain one: that of a run is the same module's, and takes minutes."""
    settings = dict.fromkeys(("channels", "mask_channels", "mask_feature_channels"), 16)
    base = light_r18()
    config = replace(
        base,
        backbone=replace(base.backbone, fpn_channels=16),
        solo=replace(base.solo, **settings),
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        backbone = BackboneWithFpn(config.backbone, pretrained=True)
        state = to_mmdet_state_dict(SoloV2(backbone, SoloHead(3, 16, config.solo)))
    torch.save({"state_dict": state, "meta": {"CLASSES": ["a", "b", "c"]}}, tmp_path / "in.pth")
    classes = [Category(4, "c"), Category(9, "b")]
    model, origin = go_on_from(tmp_path / "in.pth", config, classes, seed=0)
    segmenter = model.segmenter
    assert torch.equal(segmenter.head.conv_cls.bias[1], state["mask_head.conv_cls.bias"][1])
    image = torch.randn(1, 3, 64, 64, generator=generator)
    learning = [p for p in segmenter.parameters() if p.requires_grad]
    optimizer = torch.optim.SGD(learning, lr=0.1)
    segmenter(image)[1].mask_features.square().mean().backward()
    optimizer.step()
    meta = {"categories": [asdict(c) for c in classes], "config": config.to_dict()}
    save_artifact(tmp_path, segmenter, {**meta, "weights": asdict(origin)})
    export_mmdet(tmp_path / "model.pt", tmp_path / "out.pth")
    again = import_model(tmp_path / "out.pth", tmp_path / "again")
    assert (again["weights"]["detail"], again["categories"]) == ("in.pth", meta["categories"])
    back = load_predictor(tmp_path / "again" / "model.pt", device="cpu", ready=False).segmenter
    with torch.no_grad():
        one, two = segmenter.eval()(image)[1], back(image)[1]
    assert all(map(torch.equal, one.cls_logits, two.cls_logits))
    assert all(map(torch.equal, one.kernels, two.kernels))
    assert torch.equal(one.mask_features, two.mask_features)
    out = torch.load(tmp_path / "out.pth", weights_only=True)["state_dict"]
    changed = {
        key for key in state if "conv_cls" not in key and not torch.equal(out[key], state[key])
    }
    assert "mask_head.mask_feature_head.conv_pred.conv.weight" in changed
    assert "backbone.conv1.weight" not in changed  # frozen


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
    assert "backbone.name is 'efficientnet_lite0', the model's 'resnet50'" in paper
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
