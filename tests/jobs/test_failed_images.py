"""An image that storage has lost, or that fails in the run, is an event and ends no job."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from fastapi.testclient import TestClient
from sqlalchemy import update

from app.db.models import Image, Job, JobState
from app.db.session import Database
from app.errors import BlobMissing
from worker.jobs import train
from worker.jobs.execute import execute
from worker.jobs.train import prepare
from worker.runtime.types import Outcome, WorkerContext

from .conftest import context_of

NewJob = Callable[..., str]
NewWorker = Callable[..., WorkerContext]
ENTRY = {"image_id": 99, "file_name": "99.png", "stage": "proposals", "error": "no file was given"}


def test_an_image_that_storage_lost_is_left_to_the_run(
    new_job: NewJob, new_worker: NewWorker, database: Database
) -> None:
    job_id, worker = new_job(), new_worker()
    with database.begin() as session:
        session.execute(update(Image).where(Image.image_id == 99).values(sha256="f" * 64))
    path = prepare(context_of(worker, job_id))
    job = json.loads(path.read_text())
    assert list(job["image_paths"]) == ["12"]
    assert (job["max_bad_images"], job["reserve_bytes"]) == (0.05, 16 << 20)
    with database.begin() as session:
        session.execute(update(Image).values(sha256="f" * 64))
    with pytest.raises(BlobMissing):
        prepare(context_of(worker, job_id))


@pytest.mark.slow
def test_images_that_were_set_aside_are_in_the_report(
    new_job: NewJob,
    new_worker: NewWorker,
    job_row: Callable[[str], Job],
    client: TestClient,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    read = train._json

    def with_entry(path: Path) -> dict[str, object]:
        found = read(path)
        return {**found, "set_aside": [ENTRY]} if path.name == "report.json" else found

    monkeypatch.setattr(train, "_json", with_entry)
    job_id = new_job()
    assert execute(job_id, new_worker()) is Outcome.ENDED
    job = job_row(job_id)
    assert (job.state, job.reason) == (JobState.SUCCEEDED_WITH_WARNINGS, "images_set_aside")
    assert client.get(f"/jobs/{job_id}").json()["reason"] == "images_set_aside"
    assert client.get(f"/jobs/{job_id}/report").json()["set_aside"] == [ENTRY]
