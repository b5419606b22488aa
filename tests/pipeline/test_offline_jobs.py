"""Job files of a model that is trained: predictions of many images, and ONNX."""

import json
import subprocess
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from sapnet.config.resolve import resolve_config
from sapnet.data.images import read_rgb
from sapnet.data.masks import area, holds_points
from sapnet.data.synthetic import draw_scene
from sapnet.errors import InvalidConfig, Stopped, WeightsUnavailable
from sapnet.pipeline.events import Progressed, Warned
from sapnet.pipeline.offline_jobs import PredictJob, job_of
from sapnet.segmenters.checkpoint import load_predictor, save_artifact
from sapnet.training.model import build_model


@pytest.fixture(scope="module")
def model(tmp_path_factory, tiny):
    """A segmenter that is not trained, and so loose that it finds something."""
    loose = {"solo.score_threshold": 0.001, "solo.keep_threshold": 0.0}
    config = resolve_config(overrides={**tiny, **loose}, body="mobilenet_v2")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        network, origin = build_model(config, 1, None, seed=3, allow_download=False)
    folder = tmp_path_factory.mktemp("model")
    meta = {
        "categories": [{"id": 5, "name": "cell"}],
        "config": config.to_dict(),
        "weights": {"kind": origin.kind, "detail": origin.detail, "sha256": origin.sha256},
    }
    save_artifact(folder, network.segmenter, meta)
    return folder / "model.pt"


@pytest.fixture
def job_file(model, tmp_path):
    """Three images, one that is none, and one that could not be had; numbers with gaps."""
    rng = np.random.default_rng(0)
    images = []
    for number in (0, 1, 4):
        path = tmp_path / f"{number}.png"
        Image.fromarray(draw_scene((96, 100 + number), rng)[0]).save(path)
        images.append({"number": number, "path": str(path)})
    (tmp_path / "text").write_text("no image")
    images.insert(2, {"number": 2, "path": str(tmp_path / "text")})
    images.insert(3, {"number": 3, "error": "it could not be fetched"})
    document = {"kind": "predict", "model": str(model), "workdir": str(tmp_path), "score": 0.0}
    path = tmp_path / "JOB.json"
    path.write_text(json.dumps({**document, "images": images, "max_pixels": 10**6}))
    return path


def lines(folder):
    text = (folder / "result" / "predictions.ndjson").read_text()
    return [json.loads(line) for line in text.splitlines()]


@pytest.mark.slow
def test_a_line_an_image(job_file, model, tmp_path):
    events = []
    report = job_of(job_file)(events.append, lambda: False)
    assert report["peak_memory_mb"] > 0
    found = lines(tmp_path)
    assert [line["number"] for line in found] == [0, 1, 2, 3, 4]
    assert "no image of a known format" in found[2]["error"]
    assert found[3] == {"number": 3, "error": "it could not be fetched"}
    predictor = load_predictor(model, device="cpu")
    for number in (0, 1, 4):
        expected = predictor.predict(read_rgb(tmp_path / f"{number}.png"), 0.0)
        assert expected
        size = [96, 100 + number]
        assert found[number] == {"number": number, "size": size, "results": expected}
    progress = [e for e in events if isinstance(e, Progressed)]
    assert [(e.stage, e.step, e.of) for e in progress] == [
        ("predict", step, 5) for step in range(1, 6)
    ]
    assert [e.message for e in events if isinstance(e, Warned)] == [
        "2 of 5 images could not be read; each says why"
    ]


@pytest.mark.slow
@pytest.mark.parametrize("how", [{"mirror": True}, {"tiles": 64}, {"tiles": "off", "mirror": True}])
def test_tiles_and_mirror_images(job_file, model, tmp_path, how):
    content = json.loads(job_file.read_text())
    job_file.write_text(json.dumps(content | how | {"images": content["images"][:1]}))
    job_of(job_file)(lambda event: None, lambda: False)
    predictor = load_predictor(model, device="cpu")
    image = read_rgb(tmp_path / "0.png")
    (line,) = lines(tmp_path)
    assert line["results"] == predictor.predict(image, 0.0, **how)
    plain = predictor.predict(image, 0.0)
    assert line["results"] != plain
    if how == {"mirror": True}:
        turned = np.ascontiguousarray(image[:, ::-1])
        other = [r["bbox"] for r in predictor.predict(turned, 0.0, mirror=True)]
        mirrored = sorted([100 - x - w, y, w, h] for x, y, w, h in other)
        assert mirrored == sorted(r["bbox"] for r in line["results"])


@pytest.mark.slow
def test_stopped_and_cut_off_it_goes_on_as_if_it_had_not_been(job_file, tmp_path, monkeypatch):
    job_of(job_file)(lambda event: None, lambda: False)
    whole = lines(tmp_path)
    events = []
    with pytest.raises(Stopped, match="2 of 5"):
        job_of(job_file)(events.append, lambda: len(events) == 2)
    part = tmp_path / "predictions.part"
    with part.open("ab") as file:
        file.write(b'{"number": 2, "er')  # killed while it wrote
    read = []
    monkeypatch.setattr(
        "sapnet.pipeline.offline_jobs.read_rgb", lambda *a: read.append(a) or read_rgb(*a)
    )
    job_of(job_file)(lambda event: None, lambda: False)
    assert lines(tmp_path) == whole
    assert len(read) == 2  # the text and the last image
    assert not part.exists()


@pytest.mark.slow
def test_no_image_at_all(job_file, tmp_path):
    document = json.loads(job_file.read_text()) | {"images": []}
    job_file.write_text(json.dumps(document))
    assert isinstance(job_of(job_file), PredictJob)
    job_of(job_file)(lambda event: None, lambda: True)
    assert lines(tmp_path) == []


@pytest.mark.slow
def test_as_the_worker_starts_it(job_file, tmp_path):
    command = [sys.executable, "-m", "sapnet.cli", "run", str(job_file)]
    root = Path(__file__).parents[2]
    done = subprocess.run(command, capture_output=True, text=True, cwd=root, check=True)
    events = [json.loads(line) for line in done.stdout.splitlines()]
    assert [e["event"] for e in events] == ["progress"] * 5 + ["warning", "done"]
    assert len(lines(tmp_path)) == 5


@pytest.mark.slow
@pytest.mark.parametrize(
    "change", [{"kind": "magic"}, {"images": [{}]}, {"surprise": 1}, {"model": None}]
)
def test_job_files_that_are_wrong(job_file, change):
    job_file.write_text(json.dumps(json.loads(job_file.read_text()) | change))
    with pytest.raises(InvalidConfig, match=r"JOB\.json"):
        job_of(job_file)


def test_a_training_has_no_kind(tmp_path):
    (tmp_path / "JOB.json").write_text(json.dumps({"points": "x"}))
    assert job_of(tmp_path / "JOB.json") is None


@pytest.mark.slow
def test_onnx_by_a_job(model, tmp_path):
    from sapnet.segmenters.onnx.predictor import OnnxPredictor

    path = tmp_path / "JOB.json"
    path.write_text(json.dumps({"kind": "onnx", "model": str(model), "workdir": str(tmp_path)}))
    events = []
    job_of(path)(events.append, lambda: False)
    assert [(e.stage, e.step) for e in events] == [("onnx", 0), ("onnx", 1)]
    predictor = OnnxPredictor(tmp_path / "result" / "model.onnx")
    image = draw_scene((96, 120), np.random.default_rng(0))[0]
    expected = load_predictor(model, device="cpu").predict(image, 0.0)
    assert len(predictor.predict(image, 0.0)) == len(expected) > 0


@pytest.mark.slow
def test_a_model_from_elsewhere_is_written_anew(model, tmp_path):
    events = []
    path = tmp_path / "JOB.json"
    document = {"kind": "import", "file": str(model), "name": "a.pt", "workdir": str(tmp_path)}
    path.write_text(json.dumps(document))
    job_of(path)(events.append, lambda: False)
    assert [(e.stage, e.step) for e in events] == [("model", 0), ("model", 1)]
    again = load_predictor(tmp_path / "result" / "model.safetensors", device="cpu")
    assert again.categories == load_predictor(model, device="cpu").categories
    (tmp_path / "bad").write_bytes(b"no model")
    path.write_text(json.dumps({**document, "file": str(tmp_path / "bad")}))
    with pytest.raises(WeightsUnavailable, match=r"a\.pt was not taken"):
        job_of(path)(events.append, lambda: False)


@pytest.mark.slow
def test_objects_to_be_reviewed(job_file, model, tmp_path):
    """Each has a point inside of it; what is known already is not found again."""
    document = json.loads(job_file.read_text())
    job_file.write_text(json.dumps(document | {"label": True}))
    events = []
    job_of(job_file)(events.append, lambda: False)
    found = lines(tmp_path)
    assert any("their quality is their score" in e.message for e in events if isinstance(e, Warned))
    results = [result for line in found for result in line.get("results", [])]
    assert results
    for result in results:
        assert holds_points(result["segmentation"], np.array([result["point"]])).all()
        assert result["quality"] == pytest.approx(result["score"], abs=1e-4)
        assert result["area"] == area(result["segmentation"])
    known = [result["point"] for result in found[0]["results"]][:1]
    document["images"][0]["annotated"] = known
    job_file.write_text(json.dumps(document | {"label": True}))
    job_of(job_file)(events.append, lambda: False)
    left = lines(tmp_path)[0]["results"]
    assert len(left) < len(found[0]["results"])
    assert not any(holds_points(r["segmentation"], np.array(known)).any() for r in left)
