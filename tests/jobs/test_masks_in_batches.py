"""The masks of a training are recorded a batch at a time, and seen all together or not at all."""

import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from fastapi.testclient import TestClient
from sqlalchemy import event, func, insert, select

from app.db.models import Annotation, Job, JobState, Model, PseudoMask
from app.db.session import Database
from app.settings import Settings
from worker.jobs import mask_rows
from worker.jobs.execute import execute
from worker.jobs.train import prepare, record
from worker.runtime.lease import Lease, LeaseLost, acquire_lease
from worker.runtime.subprocess import Trainer
from worker.runtime.types import Outcome, WorkerContext

from .conftest import context_of

pytestmark = [pytest.mark.slow, pytest.mark.both_stacks]

NewJob = Callable[..., str]
NewWorker = Callable[..., WorkerContext]
MANY = 1_203  # masks: three batches
MOST = 500  # masks that one transaction may write


@pytest.fixture
def job_id(database: Database, dataset_id: str, new_job: NewJob) -> str:
    """Of a data set with MANY points."""
    with database.begin() as session:
        rows = [
            {
                "dataset_id": dataset_id,
                "annotation_id": 10_000 + i,
                "image_id": 12,
                "category_id": 0,
                "x": 5.0,
                "y": 5.0,
            }
            for i in range(MANY - 3)
        ]
        session.execute(insert(Annotation), rows)
    return new_job()


def masks(database: Database) -> int:
    with database.read() as session:
        return session.scalar(select(func.count()).select_from(PseudoMask)) or 0


def trained(worker: WorkerContext, lease: Lease) -> Path:
    """The job's folder, with results that are not recorded yet."""
    job_file = prepare(context_of(worker, lease))
    trainer = Trainer([*worker.settings.trainer_command, str(job_file)], workdir=job_file.parent)
    assert list(trainer.events())[-1]["event"] == "done"
    trainer.wait()
    return job_file.parent


def leased(worker: WorkerContext, job_id: str) -> Lease:
    lease = acquire_lease(worker.database, job_id, worker.owner, worker.settings)
    assert lease is not None
    return lease


@pytest.fixture
def after_batches(monkeypatch: pytest.MonkeyPatch) -> Callable[[int, Callable[[], None]], None]:
    """Has something happen once so many batches of masks are written."""

    def arrange(count: int, happens: Callable[[], None]) -> None:
        pauses: list[float] = []

        def pause(seconds: float) -> None:
            pauses.append(seconds)
            if len(pauses) == count:
                happens()

        monkeypatch.setattr(mask_rows, "time", SimpleNamespace(sleep=pause))

    return arrange


def test_no_transaction_writes_more_than_a_batch(
    job_id: str, new_worker: NewWorker, database: Database, client: TestClient
) -> None:
    written: list[int] = [0]

    def began(*_: Any) -> None:
        written.append(0)

    def executed(_connection: Any, _cursor: Any, statement: str, parameters: Any, *_: Any) -> None:
        if statement.startswith("INSERT INTO pseudo_mask"):
            written[-1] += len(parameters) if isinstance(parameters, list) else 1

    event.listen(database.engine, "begin", began)
    event.listen(database.engine, "before_cursor_execute", executed)
    assert execute(job_id, new_worker()) is Outcome.ENDED
    assert masks(database) == MANY
    assert max(written) <= MOST
    lines = client.get(f"/jobs/{job_id}/pseudo-masks", headers={"accept": "application/x-ndjson"})
    assert len({json.loads(line)["id"] for line in lines.text.splitlines()}) == MANY


def test_killed_between_two_batches_the_next_attempt_writes_them_once(
    job_id: str,
    new_worker: NewWorker,
    database: Database,
    client: TestClient,
    expire: Callable[[str], None],
    after_batches: Any,
) -> None:
    worker = new_worker()
    lease = leased(worker, job_id)
    trained(worker, lease)

    def dies() -> None:
        raise SystemExit

    after_batches(2, dies)
    with pytest.raises(SystemExit):
        record(context_of(worker, lease), [])
    assert 0 < masks(database) < MANY
    assert client.get(f"/jobs/{job_id}/pseudo-masks").status_code == 409, "seen by nobody"
    expire(job_id)
    assert execute(job_id, new_worker()) is Outcome.ENDED
    assert masks(database) == MANY
    with database.read() as session:
        assert len(session.scalars(select(Model)).all()) == 1
    assert client.get(f"/jobs/{job_id}/pseudo-masks").status_code == 200


def test_a_stale_attempt_writes_no_further_batch(
    job_id: str,
    new_worker: NewWorker,
    database: Database,
    expire: Callable[[str], None],
    after_batches: Any,
) -> None:
    stale, other = new_worker(), new_worker()
    lease = leased(stale, job_id)
    trained(stale, lease)

    def taken_over() -> None:
        expire(job_id)
        assert execute(job_id, other) is Outcome.ENDED

    after_batches(1, taken_over)
    with pytest.raises(LeaseLost):
        record(context_of(stale, lease), [])
    assert masks(database) == MANY
    with database.read() as session:
        assert session.get_one(Job, job_id).attempt == 2


def test_cancelled_between_two_batches_nothing_is_left(
    job_id: str,
    new_worker: NewWorker,
    database: Database,
    client: TestClient,
    settings: Settings,
    after_batches: Any,
    remove_deleted: Callable[[Settings], None],
    job_row: Callable[[str], Job],
) -> None:
    worker = new_worker(poll_seconds=60.0)  # its heartbeat never hears of the cancel

    def cancel() -> None:
        assert client.post(f"/jobs/{job_id}/cancel").status_code == 202

    after_batches(2, cancel)
    assert execute(job_id, worker) is Outcome.ENDED
    assert job_row(job_id).state is JobState.CANCELLED
    assert masks(database) > 0
    assert client.get(f"/jobs/{job_id}/pseudo-masks").status_code == 409
    remove_deleted(settings)
    assert masks(database) == 0
