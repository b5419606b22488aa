"""The ONNX file finds what PyTorch finds, on images of many shapes; and it does without torch."""

import json
import subprocess
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
import torchvision
from PIL import Image
from pycocotools import mask as coco_mask
from typer.testing import CliRunner

from sapnet.cli.main import app
from sapnet.config.resolve import resolve_config
from sapnet.data.samples import to_tensor
from sapnet.data.synthetic import draw_scene
from sapnet.errors import WeightsUnavailable
from sapnet.segmenters.checkpoint import Predictor, save_artifact
from sapnet.segmenters.onnx.predictor import OnnxPredictor, network_input
from sapnet.training.model import build_model
from sapnet.types import Category

CATEGORIES = (Category(4, "cell"), Category(9, "dust"))
SIZES = [(224, 224), (97, 400), (400, 97), (130, 200), (321, 123)]


@pytest.mark.parametrize(
    ("size", "content"), [((97, 33), (64, 22)), ((30, 40), (96, 128)), ((1, 1), (64, 64))]
)
def test_the_input_is_what_training_saw(size, content):
    """Pillow's resize against torch's, which reads colours as floats too."""
    image = np.random.default_rng(0).integers(0, 256, (*size, 3), dtype=np.uint8)
    got = network_input(image, content)
    assert got.shape == (1, 3, -(-content[0] // 64) * 64, -(-content[1] // 64) * 64)
    mean, scale = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    expected = (to_tensor(image, content) * scale[:, None, None] + mean[:, None, None]) * 255
    inside = got[0, :, : content[0], : content[1]]
    np.testing.assert_allclose(inside, expected.numpy(), atol=1e-3)
    assert got.sum() == pytest.approx(inside.sum())


def test_what_is_no_model_of_ours(tmp_path):
    path = tmp_path / "model.onnx"
    for content in (b"", b"no model"):
        path.write_bytes(content)
        with pytest.raises(WeightsUnavailable, match=r"model\.onnx"):
            OnnxPredictor(path)
    with pytest.raises(WeightsUnavailable, match=r"none\.onnx"):
        OnnxPredictor(tmp_path / "none.onnx")


@pytest.fixture(scope="module")
def lively(tmp_path_factory):
    """A MobileNetV2 of random numbers whose norms have seen some. With those it is made with, its
    features would be of 1e-9 at the top: rounding, which GroupNorm would then make large."""
    path = tmp_path_factory.mktemp("weights") / "mobilenet.pt"
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(0)
        network = torchvision.models.mobilenet_v2(weights=None)
        for _ in range(30):
            network(torch.randn(4, 3, 96, 96))
    torch.save(network.state_dict(), path)
    return path


@pytest.fixture(scope="module", params=["package", "file", "random"])
def exported(request, tmp_path_factory, tiny, lively):
    """A segmenter in memory, and as ONNX; with frozen norms, and without. It is not trained, but
    so loose that it finds much: ragged masks, on which any difference would show. Its class
    weights are enlarged: as they begin, all scores would be nearly one."""
    loose = {"score_threshold": 0.001, "keep_threshold": 0.0, "mask_threshold": 0.45}
    overrides = {**tiny, **{f"solo.{name}": value for name, value in loose.items()}}
    body = None if request.param == "package" else "mobilenet_v2"
    config = resolve_config(overrides=overrides, body=body)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="mobilenet_v2 starts from random")
        path = lively if request.param == "file" else None
        model, origin = build_model(config, 2, path, seed=3, allow_download=False)
    with torch.no_grad():
        model.segmenter.head.conv_cls.weight.mul_(50)
    folder = tmp_path_factory.mktemp("onnx")
    meta = {
        "categories": [{"id": c.id, "name": c.name} for c in CATEGORIES],
        "config": config.to_dict(),
        "weights": {"kind": origin.kind, "detail": origin.detail, "sha256": origin.sha256},
        "seed": 3,
    }
    save_artifact(folder, model.segmenter, meta)
    out = folder / "out.onnx"
    command = ["onnx", "export", str(folder / "model.safetensors"), str(out)]
    result = CliRunner().invoke(app, command)
    assert result.exit_code == 0, result.output
    return Predictor(model.segmenter.eval(), config, CATEGORIES, meta), out


@pytest.mark.slow
def test_masks_equal_torchs(exported):
    """Twenty scenes of five shapes, and a single pixel."""
    memory, path = exported
    deployed = OnnxPredictor(path)
    assert deployed.categories == CATEGORIES
    rng = np.random.default_rng(0)
    images = [draw_scene(SIZES[n % len(SIZES)], rng)[0] for n in range(20)]
    compared, worst, apart = 0, 1.0, []
    for image in [*images, np.full((1, 1, 3), 7, np.uint8)]:
        expected, got = memory.predict(image, 0.0), deployed.predict(image, 0.0)
        assert len(got) == len(expected)
        apart += [abs(a["score"] - b["score"]) for a, b in zip(got, expected, strict=True)]
        for result in expected:  # several may have one mask, at different scores
            alike = [
                r["segmentation"]
                for r in got
                if r["category_id"] == result["category_id"]
                and abs(r["score"] - result["score"]) < 0.01
            ]
            ious = coco_mask.iou([result["segmentation"]], alike, [0] * len(alike))
            compared, worst = compared + 1, min(worst, float(np.max(ious, initial=0.0)))
    print(f"{compared} instances, least IoU {worst:.6f}")
    assert compared > 400
    assert worst >= 0.99
    # rounding decides of a pixel that is at the threshold, and a mask of few pixels feels one
    assert np.quantile(apart, 0.98) < 1e-4
    assert max(apart) < 0.01


@pytest.mark.slow
def test_a_threshold_and_an_image_without_anything(exported):
    _, path = exported
    image = draw_scene((128, 160), np.random.default_rng(1))[0]
    deployed = OnnxPredictor(path)
    every = deployed.predict(image, 0.0)
    middle = every[len(every) // 2]["score"]
    cut = deployed.predict(image, middle)
    assert cut == [r for r in every if r["score"] >= middle]
    assert 0 < len(cut) < len(every)
    assert deployed.predict(image, 1.1) == []


@pytest.mark.slow
def test_from_the_shell_and_without_torch(exported, tmp_path):
    _, path = exported
    image = tmp_path / "scene.png"
    Image.fromarray(draw_scene((128, 160), np.random.default_rng(1))[0]).save(image)
    out = tmp_path / "results.json"
    command = ["predict", str(path), str(image), "--out", str(out), "--score", "0"]
    code = f"""
import sys
sys.modules["torch"] = None  # an import of it fails
from sapnet.cli.main import app
app({command!r})
"""
    subprocess.run([sys.executable, "-c", code], check=True, cwd=Path(__file__).parents[2])
    found = json.loads(out.read_text())
    assert found
    assert {r["file_name"] for r in found} == {"scene.png"}
    assert {r["category_id"] for r in found} <= {4, 9}
