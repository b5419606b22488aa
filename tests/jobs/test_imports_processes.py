"""Imports by real workers, killed in the middle of each stage, and beside a training."""

import io
import json
import subprocess
import zipfile
from collections.abc import Callable
from typing import Any

import pytest
from fastapi.testclient import TestClient
from PIL import Image as PILImage
from sqlalchemy import func, select

from app.db.models import Annotation, Category, Image, ImportFile, Job, JobState
from app.db.session import Database
from app.settings import Settings

pytestmark = [pytest.mark.service, pytest.mark.both_stacks]

Start = Callable[..., subprocess.Popen[bytes]]
IMAGES, EACH = 120, 400  # so that every stage is told of several times


def archive() -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as packed:
        for i in range(IMAGES):
            image = io.BytesIO()
            colour = (i % 256, 7 * i % 256, 90)
            PILImage.new("RGB", (300, 200), colour).save(image, "PNG")
            packed.writestr(f"{i}.png", image.getvalue())
    return buffer.getvalue()


def document() -> dict[str, Any]:
    return {
        "images": [{"id": i, "file_name": f"{i}.png"} for i in range(IMAGES)],
        "annotations": [
            {"id": EACH * i + j, "image_id": i, "category_id": j % 2, "point": [j / 2, j % 200]}
            for i in range(IMAGES)
            for j in range(EACH)
        ],
        "categories": [{"id": 0, "name": "a"}, {"id": 1, "name": "b"}],
    }


@pytest.fixture
def asked(client: TestClient) -> dict[str, Any]:
    """A data set that is importing."""
    files = [
        ("annotations", ("points.json", json.dumps(document()).encode())),
        ("images", ("images.zip", archive())),
    ]
    answer = client.post("/datasets", files=files, headers={"Prefer": "respond-async"})
    assert answer.status_code == 202, answer.text
    body: dict[str, Any] = answer.json()
    return body


@pytest.fixture
def amid(job_row: Callable[[str], Job]) -> Callable[[str, str], bool]:
    """Whether the job is in the middle of this stage."""

    def of(job_id: str, stage: str) -> bool:
        job = job_row(job_id)
        return job.stage == stage and 2 * (job.step or 0) >= (job.of or 1)

    return of


@pytest.mark.parametrize("stage", ["annotations", "images", "rows"])
def test_kill_9_in_every_stage(
    start: Start,
    asked: dict[str, Any],
    client: TestClient,
    job_row: Callable[[str], Job],
    until: Callable[..., None],
    amid: Callable[[str, str], bool],
    expire: Callable[[str], None],
    database: Database,
    settings: Settings,
    stored: Callable[[str], set[str]],
    stage: str,
) -> None:
    job_id, url = asked["report"]["progress"]["job_id"], f"/datasets/{asked['id']}"
    worker = start("tests.jobs.lingering_worker", stage, "io")
    until(lambda: amid(job_id, stage))
    worker.kill()
    worker.wait()
    assert client.get(url).json()["status"] == "importing"
    expire(job_id)
    start("worker.main", "io")
    until(lambda: client.get(url).json()["status"] != "importing")
    body, job = client.get(url).json(), job_row(job_id)
    assert (body["status"], job.state, job.attempt) == ("ready", JobState.SUCCEEDED, 2)
    assert (body["images"], body["annotations"]) == (IMAGES, IMAGES * EACH)
    until(lambda: len(stored(settings.storage)) == IMAGES + 1)  # and no archive
    tables = (Category, Image, Annotation, ImportFile)
    with database.read() as session:
        found = [session.scalar(select(func.count()).select_from(t)) for t in tables]
    assert found == [2, IMAGES, IMAGES * EACH, 0]
    until(lambda: not list((settings.data_dir / "jobs").iterdir()))


def test_beside_a_training(
    start: Start,
    asked: dict[str, Any],
    client: TestClient,
    new_job: Callable[..., str],
    job_row: Callable[[str], Job],
    until: Callable[..., None],
    settings: Settings,
) -> None:
    """An import does not wait for the training that came before it."""
    training = new_job()
    queues = () if settings.embedded else ("io",)
    start("worker.main", *queues, trainer=("--steps", "1000", "--sleep", "0.05"))
    if not settings.embedded:
        start("worker.main", "train", trainer=("--steps", "1000", "--sleep", "0.05"))
    until(lambda: client.get(f"/datasets/{asked['id']}").json()["status"] == "ready")
    until(lambda: job_row(training).state is JobState.RUNNING)


def test_sigterm_gives_the_import_back(
    start: Start,
    asked: dict[str, Any],
    client: TestClient,
    job_row: Callable[[str], Job],
    until: Callable[..., None],
    amid: Callable[[str, str], bool],
) -> None:
    job_id, url = asked["report"]["progress"]["job_id"], f"/datasets/{asked['id']}"
    worker = start("tests.jobs.lingering_worker", "images", "io")
    until(lambda: amid(job_id, "images"))
    worker.terminate()
    worker.wait(60)
    assert job_row(job_id).state is JobState.QUEUED
    start("worker.main", "io")
    until(lambda: client.get(url).json()["status"] == "ready")
