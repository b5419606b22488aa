"""`sapnet-service` for those who use a running service, against the real app."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from pycocotools.coco import COCO
from typer.testing import CliRunner, Result

from app.cli import client as cli_client
from app.cli.main import app
from sapnet_client import Client, Segmentation
from sapnet_client.types import Prediction

Photos = tuple[Path, Path]


@pytest.fixture(autouse=True)
def _here(worked: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SAPNET_URL", worked)


def call(*arguments: str) -> Result:
    result = CliRunner().invoke(app, [*arguments])
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result


@pytest.fixture
def job(photos: Photos) -> str:
    """Of a training by the command of that name."""
    done = call("train", "--images", str(photos[0]), "--points", str(photos[1]))
    assert done.exit_code == 0, done.output
    (line,) = {li for li in done.stderr.splitlines() if li.startswith("Job ") and ":" not in li}
    return line.removeprefix("Job ")


@pytest.mark.slow
def test_train_leaves_its_results(job: str, client: Client) -> None:
    found = json.loads(Path("results/masks.json").read_text())
    assert [image["file_name"] for image in found["images"]] == ["a.png", "b.png", "deep/c.png"]
    assert found["categories"] == [{"id": 7, "name": "cell"}]
    assert [a["id"] for a in found["annotations"]] == [10, 11, 20, 21, 30, 31]
    coco = COCO("results/masks.json")
    assert coco.annToMask(coco.anns[10]).sum() == coco.anns[10]["area"]
    assert Path("results/model.pt").read_bytes().startswith(b"weights of seed 0")
    assert json.loads(Path("results/metrics.json").read_text())["seconds"] == {"train": 1.0}
    assert Path("results/gallery.png").exists()
    assert Path("results/report.html").read_text().startswith("<!doctype html>")


@pytest.mark.slow
def test_wait_fetches_them_again(job: str) -> None:
    done = call("wait", job, "--out", "again")
    assert done.exit_code == 0
    assert Path("again/masks.json").read_bytes() == Path("results/masks.json").read_bytes()
    assert str(Path("again/model.pt")) in done.stdout


@pytest.mark.slow
def test_status_and_masks(job: str) -> None:
    assert job in call("status").stdout
    assert "succeeded" in call("status", job).stderr
    lines = call("masks", job).stdout.splitlines()
    assert [json.loads(line)["id"] for line in lines] == [10, 11, 20, 21, 30, 31]
    few = call("masks", job, "--min-quality", "0.5").stdout.splitlines()
    assert [json.loads(line)["id"] for line in few] == [11, 21, 31]


@pytest.mark.slow
def test_export_and_review(job: str) -> None:
    done = call("export", job, "--format", "coco-polygons", "--out", "out/", "--min-quality", "0.5")
    assert done.exit_code == 0, done.output
    path = Path(done.stdout.strip())
    assert (path.parent, path.stat().st_size > 100) == (Path("out"), True)
    assert "format" in call("export", job, "--format", "magic").stderr
    listed = call("review", job, "--worst", "2").stdout
    assert "open 6  accepted 0  corrected 0  rejected 0" in listed
    assert f"{job}.10" in listed
    assert f"{job}.11" not in listed, "the worst alone"


@pytest.mark.slow
def test_label_accept_and_a_new_version(job: str, client: Client) -> None:
    answer = call("label", job, "--image", "3")
    assert answer.exit_code == 0, answer.output
    labelled = answer.stdout.split()[-1]
    assert client.job(labelled).kind == "label"
    answer = call("review", labelled, "--accept-from", "0.5")
    assert (answer.exit_code, answer.stdout.split()[:4]) == (0, ["open", "0", "accepted", "1"])
    answer = call("corrections", job, labelled, "--name", "more")
    assert answer.exit_code == 0, answer.output
    made = client.dataset(answer.stdout.split()[-1])
    assert (made.name, made.annotations) == ("more", 7)


@pytest.mark.slow
def test_cancel(server: str, photos: Photos, client: Client) -> None:
    job = client.train(client.create_dataset(*photos))
    client.wait(job)
    assert "succeeded" in call("cancel", job.id).output  # it is over: said, not hidden


@pytest.mark.slow
def test_what_is_wrong_is_said(photos: Photos, tmp_path: Path) -> None:
    points = json.loads(photos[1].read_text())
    points["annotations"][0]["point"] = [999, 999]
    (tmp_path / "wrong.json").write_text(json.dumps(points))
    done = call("train", "--images", str(photos[0]), "--points", "wrong.json")
    assert done.exit_code == 1
    assert "/annotations/0/point" in done.stderr
    nowhere = call("train", "--images", "nowhere", "--points", str(photos[1]))
    assert "no folder 'nowhere'" in nowhere.stderr
    unset = call("train", "--images", "x", "--points", "y", "--set", "train.epochs")
    assert unset.exit_code == 2
    assert "write --set train.epochs=6" in unset.stderr
    adam = ("--set", "train.optimizer=adam")
    unknown = call("train", "--images", str(photos[0]), "--points", str(photos[1]), *adam)
    assert "must be 'sgd' or 'adamw', not 'adam'" in " ".join(unknown.stderr.split())
    gone = call("status", "--url", "http://127.0.0.1:9")
    assert (gone.exit_code, "sapnet-service serve" in " ".join(gone.stderr.split())) == (1, True)


@pytest.mark.slow
def test_predict(job: str, photos: Photos, monkeypatch: pytest.MonkeyPatch) -> None:
    """The files and their names; what a model sees is the service's own test."""
    seen: list[tuple[str, str]] = []
    asked: list[dict[str, Any]] = []
    mask = Segmentation.of(np.eye(3))
    one = Prediction(category_id=7, segmentation=mask, bbox=[0, 0, 3, 3], score=0.9)

    def predict(_: Client, model: str, image: Path, **how: Any) -> list[Prediction]:
        seen.append((model, image.name))
        asked.append(how)
        return [one]

    monkeypatch.setattr(Client, "predict", predict)
    monkeypatch.setattr(Client, "overlay", lambda *_, **__: b"image")
    done = call("predict", job, str(photos[0]), "--overlays")
    assert done.exit_code == 0, done.output
    found = json.loads(Path("predictions/predictions.json").read_text())
    assert [Path(f["file_name"]).name for f in found] == ["a.png", "b.png", "c.png", "other.png"]
    assert found[0]["segmentation"] == {"size": [3, 3], "counts": mask.counts}
    with Client(progress=False) as client:
        assert {model for model, _ in seen} == {client.job(job).model_id}
    assert Path("predictions/a.overlay.png").read_bytes() == b"image"
    assert asked[0] == {"score": None, "tiles": "auto", "mirror": False}
    done = call("predict", job, str(photos[0]), "--tiles", "64", "--mirror", "--score", "0.4")
    assert done.exit_code == 0, done.output
    assert asked[-1] == {"score": 0.4, "tiles": "64", "mirror": True}


@pytest.mark.slow
def test_demo_is_the_script(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "app.cli", "demo", "--stack", "none"]
    root = Path(cli_client.__file__).parents[2]
    done = subprocess.run(command, capture_output=True, text=True, cwd=root, check=False)
    assert done.returncode == 2
    assert "--stack is embedded or redis" in done.stderr


@pytest.mark.slow
def test_no_torch_is_loaded() -> None:
    code = (
        "import app.cli.main, sys; assert 'torch' not in sys.modules and 'PIL' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("option", "value", "words"),
    [
        ("--preset", "cpuu", ("preset 'cpuu'", "'demo'", "did you mean 'cpu'")),
        ("--method", "sapnet+++", ("method 'sapnet+++'", "'consensus'", "did you mean 'sapnet++'")),
        ("--set", "train.epoch=3", ("'train.epoch'", "'train.epochs'")),
        ("--set", "train.epochs=many", ("'train.epochs'", "a whole number")),
        ("--set", "train.epochs=0", ("train.epochs", "above 0")),
    ],
)
def test_a_wrong_setting_is_reported_before_the_upload(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, option: str, value: str, words: tuple[str]
) -> None:
    """Nobody listens at the address, and no image is read."""
    monkeypatch.setenv("SAPNET_URL", "http://127.0.0.1:9")
    missing = str(tmp_path / "none")
    done = call("train", "--images", missing, "--points", missing, option, value)
    assert done.exit_code == 1
    (line,) = done.stderr.splitlines()
    for word in words:
        assert word in line


@pytest.mark.slow
def test_a_dry_run_sends_nothing(photos: Photos, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody listens at the address."""
    monkeypatch.setenv("SAPNET_URL", "http://127.0.0.1:9")
    images, points = map(str, photos)
    done = call("train", "--images", images, "--points", points, "--preset", "demo", "--dry-run")
    assert done.exit_code == 0, done.output
    assert done.stdout.startswith("demo, on this machine: about ")
    chosen = call("train", "--images", images, "--points", points, "--dry-run")
    assert "3 images, 6 objects." in chosen.stdout
    assert ", on this machine: about " in chosen.stdout
    assert "pseudo-masks" in done.stdout
    for wrong in (str(photos[1]), "https://127.0.0.1:9/images/"):
        refused = call("train", "--images", wrong, "--points", points, "--dry-run")
        assert (refused.exit_code, "no folder" in refused.stderr) == (1, True)
    refused = call("train", "--images", images, "--points", images, "--dry-run")
    assert (refused.exit_code, "json" in refused.stderr) == (1, True)


@pytest.mark.slow
def test_a_model_from_elsewhere(client: Client, tmp_path: Path) -> None:
    torch.save({"state_dict": {"w": torch.ones(3)}}, tmp_path / "solov2-ab.pth")
    done = call("models", "import", str(tmp_path / "solov2-ab.pth"))
    assert done.exit_code == 0, done.output
    assert "1 classes (cell)" in done.stderr
    model = client.model(done.stdout.strip())
    assert model.name == "solov2-ab"
    client.delete_model(model)
    torch.save({"state_dict": {"wrong": torch.ones(3)}}, tmp_path / "other.pth")
    failed = call("models", "import", str(tmp_path / "other.pth"), "--name", "x")
    assert (failed.exit_code, "keys 1 of another shape" in failed.stderr) == (1, True)
    (tmp_path / "bad.pth").write_bytes(b"no model")
    refused = call("models", "import", str(tmp_path / "bad.pth"))
    assert (refused.exit_code, "neither of torch nor of saf" in refused.stderr) == (1, True)


@pytest.mark.slow
def test_next_images_of_a_data_set(client: Client, photos: Photos) -> None:
    document = json.loads(photos[1].read_text())
    first = document["images"][0]
    document["annotations"] = [a for a in document["annotations"] if a["image_id"] != first["id"]]
    photos[1].write_text(json.dumps(document))
    dataset = client.create_dataset(*photos).id
    done = call("next", dataset)
    assert done.exit_code == 0, done.output
    assert first["file_name"] in done.stdout
    told = json.loads(call("next", dataset, "--json").stdout)
    assert (told["image_id"], told["masks"]) == (first["id"], 0)
    assert call("next", dataset, "--review").exit_code == 0
    assert call("next", "none").exit_code == 1


@pytest.mark.slow
def test_statistics_of_a_data_set(client: Client, photos: Photos) -> None:
    dataset = client.create_dataset(*photos).id
    done = call("statistics", dataset)
    assert done.exit_code == 0, done.output
    assert "cell" in done.stdout
    assert "images were compared; ask again" in done.stdout
    told = json.loads(call("statistics", dataset, "--json").stdout)
    assert (told["dataset_id"], told["annotations"]) == (dataset, 6)
    assert call("statistics", "none").exit_code == 1
