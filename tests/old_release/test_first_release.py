"""What the first release left on disk is read, listed, predicted with and trained on from.

`first.tar.xz` is the data folder of its service, `first.json` what it answered (see make.py). The
present code's own service is started on a copy of that folder.
"""

import json
import os
import subprocess
import sys
import tarfile
import time
import urllib.request
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from sapnet_client import Client

FOLDER = Path(__file__).parent
FIRST: dict[str, Any] = json.loads((FOLDER / "first.json").read_text())
OVERRIDES = {  # the model's sizes (see make.py), and a short training
    "backbone.fpn_channels": 16,
    "solo.channels": 16,
    "solo.stacked_convs": 1,
    "solo.mask_channels": 16,
    "solo.mask_feature_channels": 16,
    "solo.score_threshold": 0.01,
    "solo.keep_threshold": 0.0,
    "train.epochs": 2,
    "train.batch_size": 2,
    "teacher.epochs": 1,
    "teacher.min_steps": 6,
    "data.short_sides": [64],
    "data.max_long_side": 96,
}
pytestmark = pytest.mark.service


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Of the present service on the first release's data."""
    folder = tmp_path_factory.mktemp("first")
    with tarfile.open(FOLDER / "first.tar.xz") as archive:
        archive.extractall(folder, filter="data")
    environment = {**os.environ, "SAPNET_DATA_DIR": str(folder / "var"), "PYTHONUNBUFFERED": "1"}
    command = [sys.executable, "-m", "app.cli", "serve", "--port", "0"]
    with (folder / "log").open("w") as log:
        process = subprocess.Popen(command, env=environment, stdout=log, stderr=log)
    try:
        yield wait_for_address(process, folder / "log")
    finally:
        process.terminate()
        process.wait(60)


def wait_for_address(process: subprocess.Popen[bytes], log: Path) -> str:
    while process.poll() is None:
        for line in log.read_text().splitlines():
            if " is at http" in line:
                return line.split(" is at ")[1].split()[0]
        time.sleep(0.05)
    raise AssertionError(log.read_text())


@pytest.fixture
def client(url: str) -> Iterator[Client]:
    with Client(url, key=FIRST["key"], progress=False) as client:
        yield client


def get(url: str, path: str) -> Any:
    names = {name: FIRST[name] for name in ("dataset", "job", "model")}
    request = urllib.request.Request(
        url + path.format(**names), headers={"authorization": f"Bearer {FIRST['key']}"}
    )
    with urllib.request.urlopen(request) as answer:
        return json.load(answer)


def missing(expected: Any, answer: Any, where: str = "") -> list[str]:
    """Where the answer lacks something of what is expected, or differs; more fields are fine."""
    if isinstance(expected, dict) and isinstance(answer, dict):
        lost = [f"{where}/{name}: gone" for name in expected if name not in answer]
        both = [name for name in expected if name in answer]
        return lost + [m for n in both for m in missing(expected[n], answer[n], f"{where}/{n}")]
    if isinstance(expected, list) and isinstance(answer, list) and len(expected) == len(answer):
        pairs = enumerate(zip(expected, answer, strict=True))
        return [m for i, (e, a) in pairs for m in missing(e, a, f"{where}/{i}")]
    if isinstance(expected, float) and isinstance(answer, float | int):
        return [] if answer == pytest.approx(expected, abs=2e-3) else [f"{where}: {answer}"]
    return [] if expected == answer else [f"{where}: {answer!r}, it was {expected!r}"]


@pytest.mark.parametrize("path", FIRST["answers"])
def test_every_answer_has_what_it_had(url: str, path: str) -> None:
    assert missing(FIRST["answers"][path], get(url, path)) == []


def test_its_files_are_there(client: Client, tmp_path: Path) -> None:
    (export,) = client.exports(FIRST["job"])
    assert json.loads(unzipped(client.download_export(export, tmp_path)))["annotations"]
    assert client.download_checkpoint(FIRST["job"], tmp_path / "model.pt").stat().st_size > 10**6
    assert client.download_model(FIRST["model"], tmp_path, format="safetensors").exists()
    assert client.download_report(FIRST["job"], tmp_path / "report.html").exists()
    assert len(client.image_bytes(FIRST["dataset"], 1)) > 1000


def unzipped(path: Path) -> bytes:
    if path.suffix == ".json":
        return path.read_bytes()
    with zipfile.ZipFile(path) as archive:
        (name,) = [name for name in archive.namelist() if name.endswith(".json")]
        return archive.read(name)


def test_its_review_goes_on(client: Client) -> None:
    counts = client.review_counts(FIRST["job"])
    mask = next(iter(client.review(FIRST["job"])))
    assert client.accept(mask).status == "accepted"
    assert client.review_counts(FIRST["job"]) != counts


def test_its_model_is_trained_on_from(client: Client) -> None:
    corrected = client.corrections(FIRST["job"])
    assert corrected.annotations > 0
    job = client.train(
        corrected, preset="demo", seed=1, overrides=OVERRIDES, from_model=FIRST["model"]
    )
    job = client.wait(job, timeout=600)
    assert job.model_id not in (None, FIRST["model"])
    image = client.image_bytes(FIRST["dataset"], 1)
    results = client.predict(job.model_id, image, score=0.0)
    assert results
    assert all(list(result.segmentation.size) == [96, 96] for result in results)
