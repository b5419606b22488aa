"""The lease round every write: one worker a job, and a result whole or not at all."""

import threading
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import pytest
from sqlalchemy import delete, select

from app.db.columns import now
from app.db.models import BlobPin, Dataset, Job, JobState, Model, PseudoMask, Reason
from app.db.session import Database
from app.storage.store import Storage
from sapnet.utils.files import file_sha256
from worker.jobs.execute import execute
from worker.jobs.train import prepare, record
from worker.jobs.transitions import BadResult, release
from worker.polling import work_once
from worker.runtime.lease import Lease, LeaseLost, acquire_lease, write
from worker.runtime.subprocess import Trainer
from worker.runtime.types import Outcome, WorkerContext

from .conftest import Training, context_of

pytestmark = pytest.mark.both_stacks

NewJob = Callable[..., str]
NewWorker = Callable[..., WorkerContext]
Row = Callable[[str], Job]
SetRow = Callable[..., None]


def finished_workdir(worker: WorkerContext, lease: Lease) -> Path:
    """A work folder with a whole result in it, as a trainer that is done leaves it."""
    job_file = prepare(context_of(worker, lease))
    command = [*worker.settings.trainer_command, str(job_file)]
    trainer = Trainer(command, workdir=job_file.parent)
    assert list(trainer.events())[-1]["event"] == "done"
    trainer.wait()
    return job_file.parent


def sha_of_model(workdir: Path) -> str:
    return file_sha256(workdir / "result" / "model.pt")


def test_a_delayed_job_is_not_taken_before_its_time(
    new_job: NewJob, new_worker: NewWorker, set_row: SetRow
) -> None:
    job_id = new_job()
    set_row(job_id, lease_until=now() + timedelta(seconds=30))
    assert execute(job_id, new_worker()) is Outcome.REFUSED
    assert work_once(new_worker()) is False


def test_one_job_among_many_claimants(
    new_job: NewJob, new_worker: NewWorker, database: Database
) -> None:
    job_id = new_job()
    workers = [new_worker() for _ in range(8)]
    leases: list[Lease | None] = []

    def take(worker: WorkerContext) -> None:
        leases.append(acquire_lease(database, job_id, worker.owner, worker.settings))

    threads = [threading.Thread(target=take, args=(w,)) for w in workers]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sum(lease is not None for lease in leases) == 1
    assert len(leases) == 8


def test_a_cancelled_job_whose_worker_died_is_cancelled_by_the_next(
    new_job: NewJob, new_worker: NewWorker, job_row: Row
) -> None:
    job_id = new_job(
        state=JobState.CANCELLING,
        cancel_requested=True,
        owner="dead",
        attempt=1,
        lease_until=now() - timedelta(seconds=1),
    )
    assert execute(job_id, new_worker()) is Outcome.ENDED
    assert job_row(job_id).state is JobState.CANCELLED


@pytest.mark.slow
def test_a_cancel_that_comes_before_the_result_is_honoured(
    new_job: NewJob,
    new_worker: NewWorker,
    job_row: Row,
    set_row: SetRow,
    database: Database,
    storage: Storage,
) -> None:
    job_id = new_job()
    worker = new_worker(poll_seconds=60.0)  # its heartbeat never hears of the cancel
    lease = acquire_lease(database, job_id, worker.owner, worker.settings)
    assert lease is not None
    finished_workdir(worker, lease)
    set_row(job_id, state=JobState.CANCELLING, cancel_requested=True)
    with pytest.raises(LeaseLost):
        record(context_of(worker, lease), [])
    with database.read() as session:
        assert session.scalars(select(PseudoMask)).all() == []
    assert job_row(job_id).state is JobState.CANCELLING


@pytest.mark.slow
def test_a_stale_lease_is_taken_up_and_the_old_attempt_writes_nothing(
    new_job: NewJob,
    new_worker: NewWorker,
    job_row: Row,
    set_row: SetRow,
    database: Database,
    storage: Storage,
) -> None:
    job_id = new_job()
    first, second = new_worker(), new_worker()
    lease = acquire_lease(database, job_id, first.owner, first.settings)
    assert lease is not None
    assert acquire_lease(database, job_id, second.owner, second.settings) is None
    workdir = finished_workdir(first, lease)
    set_row(job_id, lease_until=now() - timedelta(seconds=1))
    newer = acquire_lease(database, job_id, second.owner, second.settings)
    assert newer is not None
    assert newer.attempt == lease.attempt + 1
    with pytest.raises(LeaseLost), database.begin() as session:
        write(session, lease, progress=0.9)
    with pytest.raises(LeaseLost):
        record(context_of(first, lease), [])
    with pytest.raises(LeaseLost):
        release(database, lease, Reason.TRAINER_DIED, "killed")
    job = job_row(job_id)
    assert (job.owner, job.progress, job.state) == (second.owner, 0.0, JobState.RUNNING)
    with database.read() as session:
        assert session.scalars(select(PseudoMask)).all() == []
        assert session.scalars(select(BlobPin)).all() == []
    assert not storage.exists(sha_of_model(workdir))


@pytest.mark.slow
def test_a_worker_that_lost_its_lease_stops_its_trainer(
    training: Training, job_row: Row, set_row: SetRow
) -> None:
    set_row(training.job_id, owner="another", attempt=2)
    assert training.outcome() is Outcome.LOST
    job = job_row(training.job_id)
    assert (job.owner, job.state) == ("another", JobState.RUNNING)


@pytest.mark.slow
def test_a_heartbeat_keeps_a_long_job(
    training: Training,
    new_worker: NewWorker,
    job_row: Row,
    set_row: SetRow,
    until: Callable[..., None],
) -> None:
    job_id, leases = training.job_id, {}

    def renewed() -> bool:
        job = job_row(job_id)
        leases[job.lease_until] = job.state
        return len(leases) > 3

    until(renewed)
    assert list(leases) == sorted(leases)
    assert set(leases.values()) == {JobState.RUNNING}
    assert execute(job_id, new_worker()) is Outcome.REFUSED
    set_row(job_id, state=JobState.CANCELLING, cancel_requested=True)
    assert training.outcome() is Outcome.ENDED
    assert job_row(job_id).attempt == 1


@pytest.mark.slow
def test_a_job_that_is_deleted_meanwhile_ends_quietly(
    training: Training, database: Database
) -> None:
    with database.begin() as session:
        session.execute(delete(Dataset))
    assert training.outcome() is Outcome.LOST


@pytest.mark.slow
@pytest.mark.parametrize("broken", ["model.pt", "metrics.json", "pseudo_masks.ndjson"])
def test_a_result_that_is_not_as_agreed_is_refused_whole(
    broken: str, new_job: NewJob, new_worker: NewWorker, database: Database, storage: Storage
) -> None:
    worker = new_worker()
    lease = acquire_lease(database, new_job(), worker.owner, worker.settings)
    assert lease is not None
    workdir = finished_workdir(worker, lease)
    sha = sha_of_model(workdir)
    path = workdir / "result" / broken
    if broken == "pseudo_masks.ndjson":
        path.write_text(path.read_text() + '{"id": 1}\n')
    else:
        path.unlink()
    with pytest.raises(BadResult, match=broken):
        record(context_of(worker, lease), [])
    with database.read() as session:
        assert session.scalars(select(PseudoMask)).all() == []
        assert session.scalars(select(Model)).all() == []
    assert not storage.exists(sha)
