"""A real Label Studio, from PyPI, with the service as its backend: the page's own commands.

`make test` makes its environment (tools/label_studio.sh). The training is the stand-in's, and its
model a square, so that the time goes into what is between the two servers.
"""

import json
import os
import re
import shutil
import subprocess
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import uvicorn
from PIL import Image as PILImage
from pycocotools import mask as coco_mask
from sqlalchemy import select

from app.auth import keys
from app.auth.scope import Scope
from app.db.models import Job, JobState, LabelStudioProject
from app.main import create_app
from app.predict.model_cache import Runtime
from app.settings import Settings
from sapnet.types import ByteArray, Category
from tests.conftest import free_port, running
from worker.jobs.execute import execute

pytestmark = [pytest.mark.slow, pytest.mark.service]

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs" / "integrations" / "label-studio.md"
FOLDER = ROOT / "build" / "label-studio"
LEGACY = "0123456789abcdef0123456789abcdef01234567"


@pytest.fixture(scope="module")
def label_studio(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Its URL; it has one account, whose legacy token is `LEGACY`."""
    if not (FOLDER / ".installed").exists():
        pytest.skip("Label Studio is not installed: make build/label-studio/.installed")
    data = tmp_path_factory.mktemp("label-studio") / "data"
    shutil.copytree(FOLDER / "data", data)
    port = free_port()
    environment = {
        "LABEL_STUDIO_BASE_DATA_DIR": str(data),
        "LABEL_STUDIO_USE_DEFAULT_BANNED_SUBNETS": "false",
        "SECRET_KEY": "tests",
        "COLLECT_ANALYTICS": "false",
        "LATEST_VERSION_CHECK": "false",
    }
    command = [str(FOLDER / "venv/bin/label-studio"), "start", "--no-browser", "--port", str(port)]
    assigned = [f"{name}={value}" for name, value in environment.items()]
    with running(["env", *assigned, *command], port, seconds=500):
        yield f"http://localhost:{port}"


@pytest.fixture(scope="module")
def personal_token(label_studio: str) -> str:
    """An account has one."""
    asked = urllib.request.Request(
        f"{label_studio}/api/token/",
        b"{}",
        {"Authorization": f"Token {LEGACY}", "Content-Type": "application/json"},
    )
    with urllib.request.urlopen(asked) as answer:
        return str(json.load(answer)["token"])


@pytest.fixture
def settings(settings: Settings, label_studio: str, personal_token: str) -> Settings:
    return settings.model_copy(
        update={"label_studio_url": label_studio, "label_studio_token": personal_token}
    )


class BrightSquare:
    """A model that finds what is bright, as any of its classes."""

    categories = tuple(Category(i, "apple") for i in range(3))

    def predict(self, image: ByteArray, score_threshold: float = 0.1) -> list[dict[str, Any]]:
        rle: Any = coco_mask.encode(np.asfortranarray(image[..., 0] > 128, np.uint8))
        rle["counts"] = rle["counts"].decode()
        box = coco_mask.toBbox(rle).tolist()
        return [
            {"category_id": c.id, "segmentation": rle, "bbox": box, "score": 0.9}
            for c in self.categories
        ]


@pytest.fixture
def service(settings: Settings, database: Any, new_worker: Callable[..., Any]) -> Iterator[str]:
    """The app behind a real server, and a worker in a thread; its URL."""
    app = create_app(settings)
    app.state.runtime = Runtime(2, loader=lambda path: BrightSquare())
    config = uvicorn.Config(app, port=0, log_config=None)
    server, over = uvicorn.Server(config), threading.Event()
    worker = new_worker(
        label_studio_url=settings.label_studio_url, label_studio_token=settings.label_studio_token
    )

    def work() -> None:
        while not over.wait(0.1):
            with database.read() as session:
                queued = session.scalars(select(Job.id).where(Job.state == JobState.QUEUED)).all()
            for job_id in queued:
                execute(job_id, worker)

    with config.bind_socket() as bound:
        bound.listen()
        threads = [
            threading.Thread(target=server.run, kwargs={"sockets": [bound]}),
            threading.Thread(target=work),
        ]
        for thread in threads:
            thread.start()
        yield f"http://localhost:{bound.getsockname()[1]}"
        server.should_exit = True
        over.set()
        for thread in threads:
            thread.join()


def commands(page: Path) -> list[str]:
    """What a page has its reader type."""
    return re.findall(r"^```bash\n(.*?)^```$", page.read_text(), re.MULTILINE | re.DOTALL)


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """A folder with images of a bright square, and a point in it."""
    folder = tmp_path / "work"
    (folder / "photos").mkdir(parents=True)
    document: dict[str, Any] = {"images": [], "annotations": []}
    for number in (1, 2):
        pixels = np.full((60, 80, 3), 30, np.uint8)
        pixels[20:40, 30:50] = 220
        PILImage.fromarray(pixels).save(folder / "photos" / f"{number}.png")
        image = {"id": number, "file_name": f"{number}.png", "width": 80, "height": 60}
        document["images"].append(image)
        document["annotations"].append({"id": number, "image_id": number, "point": [40.5, 30.5]})
    (folder / "points.json").write_text(json.dumps(document))
    return folder


def test_the_page_from_nothing_to_predictions(
    label_studio: str, service: str, settings: Settings, photos: Path
) -> None:
    script = "\n".join(["set -euo pipefail", *commands(PAGE)])
    environment = os.environ | {
        "LS": label_studio,
        "SAPNET": service,
        "LABEL_STUDIO_TOKEN": settings.label_studio_token or "",
        "PARAMETERS": '{"training": {"preset": "demo"}}',
    }
    began = time.monotonic()
    done = subprocess.run(
        ["bash", "-c", script],
        cwd=photos,
        env=environment,
        capture_output=True,
        text=True,
        timeout=500,
    )
    print(f"{time.monotonic() - began:.0f} s", done.stdout, done.stderr)
    assert done.returncode == 0, done.stderr
    assert "brushlabels" in done.stdout

    truth = np.zeros((60, 80), bool)
    truth[20:40, 30:50] = True
    (clicked,) = json.loads((photos / "mask.json").read_text())["data"]["result"]
    assert clicked["value"]["brushlabels"] == ["apple"]
    assert iou(decoded(clicked), truth) > 0.75
    model = (photos / "model.txt").read_text().strip()
    found = json.loads((photos / "predictions.json").read_text())
    assert {prediction["model_version"] for prediction in found} == {model}
    assert len({prediction["task"] for prediction in found}) == 2
    for prediction in found:
        for region in prediction["result"]:
            assert region["value"]["brushlabels"] == ["apple"]
            assert (decoded(region) == truth).all()


def test_a_service_with_keys_is_connected_by_basic_authentication(
    label_studio: str, service: str, settings: Settings, database: Any
) -> None:
    with database.begin() as session:
        key, _ = keys.create(session, "ann", Scope.WRITE)

    def ask(path: str, body: Any) -> tuple[int, Any]:
        asked = urllib.request.Request(
            f"{label_studio}{path}",
            json.dumps(body).encode(),
            {"Authorization": f"Token {LEGACY}", "Content-Type": "application/json"},
        )
        try:
            with urllib.request.urlopen(asked) as answer:
                return answer.status, json.loads(answer.read() or b"null")
        except urllib.error.HTTPError as error:
            return error.code, error.read().decode()

    config = re.search(r"<View>.*</View>", PAGE.read_text(), re.DOTALL)
    assert config is not None
    _, project = ask("/api/projects", {"title": "keys", "label_config": config[0]})
    backend = {"project": project["id"], "url": f"{service}/ls", "is_interactive": True}
    status, told = ask("/api/ml/", backend)
    assert status == 400
    assert "authentication parameters" in told
    login = {"auth_method": "BASIC_AUTH", "basic_auth_user": "any", "basic_auth_pass": key}
    status, connected = ask("/api/ml/", {**backend, **login})
    assert (status, connected["readable_state"]) == (201, "Connected"), connected
    assert connected["model_version"] == "clicks"
    with database.read() as session:
        (row,) = session.scalars(select(LabelStudioProject))
    assert (row.owner, row.token) == ("ann", LEGACY)


def iou(one: np.ndarray[Any, Any], other: np.ndarray[Any, Any]) -> float:
    return float((one & other).sum() / (one | other).sum())


def decoded(region: dict[str, Any]) -> np.ndarray[Any, Any]:
    """By Label Studio's own converter."""
    program = (
        "import json, sys; from label_studio_sdk.converter.brush import decode_rle; "
        "print(json.dumps(decode_rle(json.load(sys.stdin)).tolist()))"
    )
    done = subprocess.run(
        [FOLDER / "venv/bin/python", "-c", program],
        input=json.dumps(region["value"]["rle"]),
        capture_output=True,
        text=True,
        check=True,
    )
    size = region["original_height"], region["original_width"], 4
    return np.array(json.loads(done.stdout), np.uint8).reshape(size)[..., 3] > 0
