"""`sapnet evaluate --model`: a trained model on a split, images in folders of their own."""

import json

import pytest
from typer.testing import CliRunner

from sapnet.cli.main import app
from sapnet.data.annotations.ground_truth import read_truth
from sapnet.data.images import read_rgb
from sapnet.evaluation import average_precision
from sapnet.evaluation.detections import detect
from sapnet.segmenters.checkpoint import load_predictor


def call(*arguments):
    return CliRunner().invoke(app, ["evaluate", *(str(a) for a in arguments)])


@pytest.fixture
def split(scenes, tmp_path):
    """The scenes, each in a folder of its own as Cityscapes' are. (images, truth)"""
    truth = json.loads(scenes.truth.read_text())
    for image in truth["images"]:
        folder = tmp_path / "images" / f"city {image['id']}"
        folder.mkdir(parents=True)
        (folder / "a.png").symlink_to(scenes.images / image["file_name"])
        image["file_name"] = f"{folder.name}/a.png"
    path = tmp_path / "instances.json"
    path.write_text(json.dumps(truth))
    return tmp_path / "images", path


@pytest.mark.slow
def test_the_same_as_predicting_image_by_image(finished, split):
    images, path = split
    model = finished.spec.workdir / "result" / "model.pt"
    predictor, truth = load_predictor(model), read_truth(path)
    told = []
    files = {image["id"]: images / image["file_name"] for image in truth["images"]}
    found = detect(predictor, files, truth, lambda *step: told.append(step))
    want = []
    for image in truth["images"]:
        results = predictor.predict(read_rgb(images / image["file_name"]), score_threshold=0.0)
        want += [{"image_id": image["id"], **result} for result in results]
    assert found == want
    assert told == [(1, 4), (2, 4), (3, 4), (4, 4)]
    result = call("--model", model, "--images", images, "--truth", path)
    assert result.exit_code == 0, result.output
    figures = json.loads(result.stdout)
    assert figures == {k: average_precision(want, truth, kind=k) for k in ("segm", "bbox")}


@pytest.mark.slow
def test_either_results_or_a_model(finished, split, tmp_path):
    images, path = split
    model = finished.spec.workdir / "result" / "model.pt"
    results = tmp_path / "results.json"
    results.write_text("[]")
    for arguments in ([], ["--model", model], [results, "--model", model, "--images", images]):
        result = call(*arguments, "--truth", path)
        assert result.exit_code == 1
        assert "either a file of results" in result.output
        assert "Traceback" not in result.output


@pytest.mark.slow
def test_a_missing_image_is_named(finished, split):
    images, path = split
    (images / "city 1" / "a.png").unlink()
    model = finished.spec.workdir / "result" / "model.pt"
    result = call("--model", model, "--images", images, "--truth", path)
    assert result.exit_code == 1
    assert "city 1/a.png" in result.output.replace("\n", "")
