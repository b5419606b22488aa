"""The base install: the client and its commands work, the others say which extra they need.

A virtual environment of links to the distributions that the project's metadata asks for without
any extra; whatever else is installed here does not exist there.
"""

import json
import subprocess
import tomllib
import venv
from collections.abc import Callable
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from app.predict.model_cache import Runtime
from sapnet.types import Category
from sapnet_client import Client, Segmentation
from tests.distributions import required

ROOT = Path(__file__).resolve().parents[3]
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def light(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The Python of the environment."""
    folder = tmp_path_factory.mktemp("light")
    venv.create(folder, with_pip=False)
    (packages,) = folder.glob("lib/*/site-packages")
    base = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["dependencies"]
    distributions = [*required(base).values(), metadata.distribution("sapnet-service")]
    for distribution in distributions:
        tops = {Path(str(file)).parts[0] for file in distribution.files or []}
        for top in tops - {"..", "__pycache__"}:
            source = Path(str(distribution.locate_file(top)))
            target = packages / top
            if source.exists() and not target.exists() and not top.startswith("__editable__"):
                target.symlink_to(source)
    (packages / "project.pth").write_text(str(ROOT))
    return folder / "bin" / "python"


class Square:
    """A model that sees the same square in every image."""

    categories = (Category(7, "cell"),)

    def predict(self, image: np.ndarray, score_threshold: float = 0.1) -> list[dict[str, Any]]:
        mask = np.zeros(image.shape[:2])
        mask[:4, :4] = 1
        rle = Segmentation.of(mask)
        segmentation = {"size": list(rle.size), "counts": rle.counts}
        box = [0.0, 0.0, 4.0, 4.0]
        return [{"category_id": 7, "segmentation": segmentation, "bbox": box, "score": 0.9}]


def run(light: Path, *arguments: str, folder: Path) -> subprocess.CompletedProcess[str]:
    command = [str(light), *arguments]
    return subprocess.run(command, capture_output=True, text=True, cwd=folder, check=False)


def test_it_has_no_torch_and_the_client(light: Path, tmp_path: Path) -> None:
    for library in ("torch", "fastapi", "sqlalchemy", "scipy"):
        assert run(light, "-c", f"import {library}", folder=tmp_path).returncode == 1, library
    done = run(light, "-c", "import sapnet_client", folder=tmp_path)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("module", ["app.cli", "sapnet"])
def test_help_and_version(light: Path, module: str, tmp_path: Path) -> None:
    done = run(light, "-m", module, "--help", folder=tmp_path)
    assert done.returncode == 0, done.stderr
    done = run(light, "-m", module, "--version", folder=tmp_path)
    assert done.stdout.split() == ["sapnet-service", metadata.version("sapnet-service")]


@pytest.mark.parametrize(
    "command",
    [
        ["app.cli", "serve"],
        ["app.cli", "worker"],
        ["app.cli", "migrate"],
        ["app.cli", "doctor"],
        ["app.cli", "keys", "list"],
        ["app.cli", "keys", "create", "anna"],
        ["sapnet", "train", "--points", "p.json", "--images", ".", "--out", "o"],
        ["sapnet", "propose", "--points", "p.json", "--images", ".", "--store", "s"],
        ["sapnet", "run", "job.json"],
        ["sapnet", "predict", "model.pt", "a.png"],
        ["sapnet", "onnx", "export", "model.pt", "m.onnx"],
        ["sapnet", "mmdet", "export", "model.pt", "m.pth"],
        ["sapnet", "evaluate", "p.json", "--truth", "p.json"],
    ],
    ids=" ".join,
)
def test_others_name_the_extra_in_one_line(light: Path, command: list[str], tmp_path: Path) -> None:
    Image.fromarray(np.zeros((4, 4, 3), np.uint8)).save(tmp_path / "a.png")
    point = {"id": 1, "image_id": 1, "category_id": 1, "point": [1, 1]}
    point |= {"segmentation": [[0, 0, 3, 0, 3, 3]], "bbox": [0, 0, 3, 3], "area": 9, "iscrowd": 0}
    document = {
        "images": [{"id": 1, "file_name": "a.png", "height": 4, "width": 4}],
        "categories": [{"id": 1, "name": "x"}],
        "annotations": [point],
    }
    (tmp_path / "p.json").write_text(json.dumps(document))
    done = run(light, "-m", *command, folder=tmp_path)
    said = [line for line in done.stderr.splitlines() if line.strip()]
    assert done.returncode == 1, done.stderr
    assert len(said) == 1, done.stderr
    assert "pip install 'sapnet-service[service]'" in said[0]


@pytest.mark.parametrize(
    ("extra", "command"),
    [
        ("mcp", ["mcp"]),
        ("cvat", ["cvat", "pull", "3"]),
        ("hub", ["hub", "push-model", "best", "anna/cells"]),
        ("hub", ["hub", "pull-dataset", "anna/cells"]),
    ],
)
def test_commands_of_an_extra_name_it_in_one_line(
    light: Path, extra: str, command: list[str], tmp_path: Path
) -> None:
    done = run(light, "-m", "app.cli", *command, folder=tmp_path)
    said = [line for line in done.stderr.splitlines() if line.strip()]
    assert done.returncode == 1, done.stderr
    assert len(said) == 1, done.stderr
    assert f"pip install 'sapnet-service[{extra}]'" in said[0]


def test_it_uses_a_running_service(
    light: Path,
    client: Client,
    photos: tuple[Path, Path],
    worked: str,
    serve_also: Callable[[Runtime], str],
    tmp_path: Path,
) -> None:
    images, points = photos
    command = ("-m", "app.cli", "train", "--images", str(images), "--points", str(points))
    done = run(light, *command, "--url", worked, folder=tmp_path)
    assert done.returncode == 0, done.stderr
    (job, *_) = client.jobs()
    listed = run(light, "-m", "app.cli", "status", "--url", worked, folder=tmp_path)
    assert job.id in listed.stdout, listed.stderr
    masks = run(light, "-m", "app.cli", "masks", job.id, "--url", worked, folder=tmp_path)
    assert len(masks.stdout.splitlines()) == 6, masks.stderr
    url = serve_also(Runtime(2, loader=lambda path: Square()))  # type: ignore[arg-type,return-value]
    command = ("-m", "app.cli", "predict", job.id, str(images), "--url", url)
    done = run(light, *command, folder=tmp_path)
    assert done.returncode == 0, done.stderr
    found = json.loads((tmp_path / "predictions" / "predictions.json").read_text())
    assert [result["score"] for result in found] == [0.9] * 4
