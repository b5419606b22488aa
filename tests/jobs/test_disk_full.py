"""A disk that is full: a clear failure, what was there stays whole, and the service lives on."""

import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from fastapi.testclient import TestClient
from sqlalchemy import update

from app.db.models import Job, JobState
from app.db.session import Database
from app.settings import Settings
from worker.jobs.execute import execute
from worker.runtime.types import Outcome, WorkerContext

MB = 1 << 20
QUEUED = JobState.QUEUED


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 24 MB."""
    folder = tmp_path / "small"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=24m", "tmpfs", str(folder)]
    if os.geteuid() != 0 or subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("only root can mount a small file system")
    yield folder
    subprocess.run(["umount", "--lazy", str(folder)], check=True)


@pytest.fixture
def settings(settings: Settings, small_disk: Path) -> Settings:
    return settings.model_copy(update={"data_dir": small_disk, "reserve_bytes": 4 * MB})


@pytest.fixture
def fill(small_disk: Path) -> Callable[[int], Path]:
    """fill(room): a file that leaves `room` bytes."""

    def write(room: int) -> Path:
        path = small_disk / "filler"
        path.unlink(missing_ok=True)
        disk = os.statvfs(small_disk)
        with path.open("wb") as file:
            os.posix_fallocate(file.fileno(), 0, disk.f_bavail * disk.f_frsize - room)
        return path

    return write


@pytest.mark.slow
def test_an_upload_that_does_not_fit(client: TestClient, small_disk: Path) -> None:
    big = {"annotations": ("points.json", b"{}"), "images": ("a.png", os.urandom(40 * MB))}
    answer = client.post("/datasets", data={"name": "big"}, files=big)
    assert answer.status_code == 507, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.json()["type"] == "/problems/insufficient-storage"
    assert list((small_disk / "uploads").iterdir()) == []
    assert client.get("/datasets").status_code == 200
    assert client.get("/readyz").status_code == 200


@pytest.mark.slow
def test_a_database_that_cannot_grow(
    client: TestClient, dataset_id: str, fill: Callable[[int], Path]
) -> None:
    filler = fill(0)
    answer = client.post("/jobs/train", json={"dataset_id": dataset_id})
    assert answer.status_code == 507, answer.text
    assert client.get("/jobs").json()["jobs"] == []
    filler.unlink()
    assert client.post("/jobs/train", json={"dataset_id": dataset_id}).status_code == 202


@pytest.mark.slow
def test_a_job_whose_results_do_not_fit_fails_soon_and_says_so(
    new_job: Callable[..., str],
    new_worker: Callable[..., WorkerContext],
    job_row: Callable[[str], Job],
    fill: Callable[[int], Path],
    client: TestClient,
    database: Database,
) -> None:
    """Some attempts, since somebody may make room; then it is told."""
    job_id, worker = new_job(), new_worker("--model-mb", "6")
    filler = fill(10 * MB)
    seen = []
    for attempt in range(3):
        seen.append(execute(job_id, worker))
        if attempt < 2:
            assert (job_row(job_id).state, job_row(job_id).reason) == (QUEUED, "disk_full")
            with database.begin() as session:  # its delay is over
                session.execute(update(Job).values(lease_until=None))
    assert seen == [Outcome.DELAYED, Outcome.DELAYED, Outcome.ENDED]
    job = job_row(job_id)
    assert (job.state, job.reason, job.attempt) == (JobState.FAILED, "disk_full", 3)
    assert "No space left" in str(job.error)
    assert client.get(f"/jobs/{job_id}").json()["reason"] == "disk_full"
    filler.unlink()
    following = new_job()
    assert execute(following, new_worker()) is Outcome.ENDED
    assert job_row(following).state is JobState.SUCCEEDED_WITH_WARNINGS
