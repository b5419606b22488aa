"""The checkpoint that leaves the house: it predicts as the model in memory did."""

import json
import shutil
import warnings
import zipfile

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.numpy import save_file

from sapnet.config.resolve import resolve_config
from sapnet.data.images import read_rgb
from sapnet.errors import WeightsUnavailable
from sapnet.segmenters.checkpoint import Predictor, load_predictor, save_artifact
from sapnet.training.model import build_model
from sapnet.types import Category

CATEGORIES = (Category(4, "cell"), Category(9, "dust"))


@pytest.fixture(scope="module", params=["package", "file", "random"])
def saved(request, tmp_path_factory, tiny, weights):
    """A segmenter in memory, and the same on disk; with frozen norms, and without."""
    loose = {"score_threshold": 0.001, "keep_threshold": 0.0, "mask_threshold": 0.45}
    overrides = {**tiny, **{f"solo.{name}": value for name, value in loose.items()}}
    body = None if request.param == "package" else "mobilenet_v2"
    config = resolve_config(overrides=overrides, body=body)
    path = weights if request.param == "file" else None
    model, origin = _quietly(config, path)
    assert origin.kind == request.param
    folder = tmp_path_factory.mktemp("artifact")
    meta = {
        "categories": [{"id": c.id, "name": c.name} for c in CATEGORIES],
        "config": config.to_dict(),
        "weights": {"kind": origin.kind, "detail": origin.detail, "sha256": origin.sha256},
        "seed": 3,
    }
    save_artifact(folder, model.segmenter, meta)
    return Predictor(model.segmenter.eval(), config, CATEGORIES, meta), folder / "model.pt"


def _quietly(config, path):
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="mobilenet_v2 starts from random")
        return build_model(config, 2, path, seed=3, allow_download=False)


@pytest.mark.slow
@pytest.mark.parametrize("size", [(64, 200), (1, 1), (97, 33)])
def test_the_same_predictions(saved, size):
    memory, path = saved
    disk = load_predictor(path, device="cpu", ready=False)
    image = np.random.default_rng(0).integers(0, 256, (*size, 3), dtype=np.uint8)
    expected = memory.predict(image, 0.0)
    assert disk.predict(image, 0.0) == expected
    assert disk.categories == CATEGORIES
    assert disk.config == memory.config
    assert disk.meta["seed"] == 3
    for result in expected:
        assert result["category_id"] in {4, 9}
        assert result["segmentation"]["size"] == list(size)
        assert 0 < result["score"] <= 1
    scores = [r["score"] for r in expected]
    assert scores == sorted(scores, reverse=True)
    if size != (1, 1):  # else the comparison would show nothing
        middle = scores[len(scores) // 2]
        cut = memory.predict(image, middle)
        assert cut == [r for r in expected if r["score"] >= middle]
        assert 0 < len(cut) < len(expected)


@pytest.mark.slow
@torch.inference_mode()
def test_what_is_loaded_to_predict_says_the_same(saved):
    memory, path = saved
    images = torch.randn(1, 3, 64, 128, generator=torch.Generator().manual_seed(0))
    slow, quick = (
        memory.segmenter(images)[1],
        load_predictor(path, device="cpu").segmenter(images)[1],
    )
    pairs = zip(
        [*slow.cls_logits, *slow.kernels, slow.mask_features],
        [*quick.cls_logits, *quick.kernels, quick.mask_features],
        strict=True,
    )
    for expected, got in pairs:
        assert (got - expected).abs().max() <= 1e-4 * expected.abs().max()


@pytest.mark.slow
def test_the_description_stands_beside(saved):
    _, path = saved
    beside = json.loads(path.with_suffix(".json").read_text())
    assert beside == json.loads(torch.load(path, weights_only=True)["meta"])
    assert [c["name"] for c in beside["categories"]] == ["cell", "dust"]
    names = {"model.pt", "model.safetensors", "model.json"}
    assert {p.name for p in path.parent.iterdir()} == names


@pytest.mark.slow
def test_the_same_in_safetensors(saved):
    """What other programs read: the weights by their names, and `meta` in the header."""
    memory, path = saved
    beside = path.with_suffix(".safetensors")
    with safe_open(beside, framework="numpy") as held:
        assert set(held.keys()) == set(memory.segmenter.state_dict())
        assert json.loads(held.metadata()["sapnet"]) == json.loads(
            path.with_suffix(".json").read_text()
        )
    image = np.random.default_rng(0).integers(0, 256, (64, 90, 3), dtype=np.uint8)
    expected = load_predictor(path, device="cpu").predict(image, 0.0)
    assert expected
    assert load_predictor(beside, device="cpu").predict(image, 0.0) == expected


@pytest.mark.slow
@pytest.mark.parametrize("damage", ["cut", "foreign", "header"])
def test_safetensors_that_are_not_ours(saved, tmp_path, damage):
    _, path = saved
    content = path.with_suffix(".safetensors").read_bytes()
    bad = tmp_path / "bad.safetensors"
    if damage == "cut":
        bad.write_bytes(content[:-100])
    elif damage == "header":
        bad.write_bytes((1 << 62).to_bytes(8, "little") + content[8:])
    else:
        save_file({"weight": np.zeros(3, np.float32)}, bad)
    with pytest.raises(WeightsUnavailable, match=r"bad\.safetensors"):
        load_predictor(bad)


@pytest.mark.slow
def test_a_whole_run_leaves_a_model_that_predicts(finished, scenes):
    if finished.error:
        raise finished.error
    predictor = load_predictor(finished.spec.workdir / "result" / "model.pt")
    assert [c.name for c in predictor.categories] == ["beetle", "mushroom", "flower"]
    image = read_rgb(sorted(scenes.images.iterdir())[0])
    for result in predictor.predict(image, 0.0):
        assert result["category_id"] in {1, 2, 3}


def damage(kind, path):
    content = torch.load(path, weights_only=True)
    meta = json.loads(content["meta"])
    if kind == "missing":
        path.unlink()
    elif kind == "empty":
        path.write_bytes(b"")
    elif kind == "text":
        path.write_text("these are no weights")
    elif kind == "cut off":
        path.write_bytes(path.read_bytes()[:50_000])
    elif kind == "a zip":
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("x", "y")
    elif kind == "a tensor":
        torch.save(torch.zeros(3), path)
    elif kind == "a state dict":
        torch.save(content["state_dict"], path)
    elif kind == "an object":
        torch.save({"meta": print}, path)
    elif kind == "no JSON":
        torch.save({**content, "meta": "{"}, path)
    elif kind == "a number":
        torch.save({**content, "meta": "3"}, path)
    elif kind == "a list":
        torch.save({**content, "meta": "[{}]"}, path)
    elif kind == "nested":
        torch.save({**content, "meta": "[" * 100_000}, path)
    elif kind == "format":
        torch.save({**content, "meta": json.dumps({**meta, "format": 2})}, path)
    elif kind == "no categories":
        del meta["categories"]
        torch.save({**content, "meta": json.dumps(meta)}, path)
    elif kind == "a class more":
        meta["categories"].append({"id": 11, "name": "mite"})
        torch.save({**content, "meta": json.dumps(meta)}, path)
    elif kind == "a setting":
        meta["config"]["backbone"]["name"] = "vgg"
        torch.save({**content, "meta": json.dumps(meta)}, path)
    elif kind == "a key less":
        content["state_dict"].popitem()
        torch.save(content, path)


@pytest.mark.slow
@pytest.mark.parametrize(
    "kind",
    [
        "missing",
        "empty",
        "text",
        "cut off",
        "a zip",
        "a tensor",
        "a state dict",
        "an object",
        "no JSON",
        "a number",
        "a list",
        "nested",
        "format",
        "no categories",
        "a class more",
        "a setting",
        "a key less",
    ],
)
def test_damaged_and_foreign_files_are_refused(finished, tmp_path, kind):
    path = tmp_path / "model.pt"
    shutil.copy(finished.spec.workdir / "result" / "model.pt", path)
    damage(kind, path)
    with pytest.raises(WeightsUnavailable, match=r"model\.pt"):
        load_predictor(path)
