"""From claim to end: the states a job goes through, and the fence round every write."""

import json
import threading
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import pytest
from sqlalchemy import delete, select, update

from app.blobs import pinned
from app.columns import now
from app.db import Database
from app.models import BlobPin, Dataset, Job, JobState, Model, PseudoMask, Reason
from app.reaper import waiting
from app.storage import Storage
from worker.embedded import loop, tidy, work_once
from worker.fence import Claim, LeaseLost, claim, write
from worker.jobs import Outcome, Worker, execute, how_it_died
from worker.prepare import prepare
from worker.record import BadResult, release, succeed

pytestmark = pytest.mark.both_stacks

NewJob = Callable[..., str]
NewWorker = Callable[..., Worker]
Row = Callable[[str], Job]


def set_row(database: Database, job_id: str, **values: object) -> None:
    with database.begin() as session:
        session.execute(update(Job).where(Job.id == job_id).values(values))


@pytest.mark.slow
def test_a_job_succeeds(
    new_job: NewJob, new_worker: NewWorker, job_row: Row, database: Database, storage: Storage
) -> None:
    job_id, worker = new_job(), new_worker()
    assert execute(job_id, worker) is Outcome.ENDED
    job = job_row(job_id)
    assert job.state is JobState.SUCCEEDED_WITH_WARNINGS
    assert (job.stage, job.step, job.of, job.progress) == ("train", 4, 4, 1.0)
    assert (job.warnings, job.attempt, job.setbacks) == (["weights are random"], 1, 0)
    assert (job.proposal_generator, job.weights_origin) == ("fake", "random")
    assert job.losses == {"psm": 0.25}
    assert job.metrics == {"pseudo_masks": None, "model": None, "proposals": {}}
    assert job.report == {"seconds": {"train": 1.0}, "peak_memory_mb": 1}
    assert job.started_at is not None
    assert job.finished_at is not None
    assert job.lease_until is job.error is None
    assert job.reason == "warnings"
    with database.read() as session:
        masks = session.scalars(select(PseudoMask).order_by(PseudoMask.pk)).all()
        model = session.get_one(Model, job.model_id)
        assert session.scalars(select(BlobPin)).all() == []
    assert [(m.annotation_id, m.image_id, m.category_id) for m in masks] == [
        (501, 12, 0),
        (502, 12, 7),
        (900, 99, 0),
    ]
    assert (masks[0].x, masks[0].y, masks[0].w, masks[0].h, masks[0].area) == (0, 18, 3, 5, 15)
    assert model.categories == [{"id": 0, "name": "cell"}, {"id": 7, "name": "dust"}]
    assert storage.read(model.sha256) == b"weights of seed 3" * 1000
    assert model.size == len(b"weights of seed 3" * 1000)
    assert b"a log line" in storage.read(str(job.log_sha))
    assert storage.read(str(job.gallery_sha)).startswith(b"\x89PNG")
    assert not (worker.settings.data_dir / "jobs" / job_id).exists()


@pytest.mark.slow
def test_a_second_execute_is_refused(new_job: NewJob, new_worker: NewWorker) -> None:
    job_id = new_job()
    assert execute(job_id, new_worker()) is Outcome.ENDED
    assert execute(job_id, new_worker()) is Outcome.REFUSED
    assert execute("no such job", new_worker()) is Outcome.REFUSED


@pytest.mark.slow
def test_an_error_of_the_trainer_is_the_jobs(
    new_job: NewJob, new_worker: NewWorker, job_row: Row, storage: Storage
) -> None:
    job_id = new_job()
    assert execute(job_id, new_worker("--fail")) is Outcome.ENDED
    job = job_row(job_id)
    assert (job.state, job.reason) == (JobState.FAILED, "non_finite_loss")
    assert job.error == "loss term 'psm' became nan at step 3"
    assert job.model_id is None
    assert b"a log line" in storage.read(str(job.log_sha))


@pytest.mark.slow
def test_a_trainer_that_was_killed_is_started_again_and_goes_on(
    new_job: NewJob, new_worker: NewWorker, job_row: Row, starts: Callable[[str], list[int]]
) -> None:
    job_id, worker = new_job(), new_worker("--crash-at", "2")
    assert execute(job_id, worker) is Outcome.RELEASED
    job = job_row(job_id)
    assert (job.state, job.owner, job.attempt) == (JobState.QUEUED, None, 1)
    assert job.error is not None
    assert "SIGKILL" in job.error
    assert len(starts(job_id)) == 1
    assert execute(job_id, worker) is Outcome.ENDED
    job = job_row(job_id)
    assert (job.state, job.attempt, job.error) == (JobState.SUCCEEDED_WITH_WARNINGS, 2, None)


@pytest.mark.slow
def test_a_trainer_that_always_crashes_is_given_up(
    new_job: NewJob, new_worker: NewWorker, job_row: Row, database: Database
) -> None:
    job_id, worker = new_job(), new_worker("--crash-always")  # max_attempts=3
    seen = []
    for _ in range(4):
        seen.append(execute(job_id, worker))
        set_row(database, job_id, lease_until=None)  # its delay is over
    assert seen == [Outcome.RELEASED, Outcome.DELAYED, Outcome.DELAYED, Outcome.ENDED]
    job = job_row(job_id)
    assert (job.state, job.reason, job.attempt) == (JobState.FAILED, "crashed", 4)
    assert job.error is not None
    assert "3 attempts in a row" in job.error
    assert "SIGKILL" in job.error


def test_a_delayed_job_is_not_taken_before_its_time(
    new_job: NewJob, new_worker: NewWorker, database: Database
) -> None:
    job_id = new_job()
    set_row(database, job_id, lease_until=now() + timedelta(seconds=30))
    assert execute(job_id, new_worker()) is Outcome.REFUSED
    assert work_once(new_worker()) is False


@pytest.mark.slow
def test_cancel_while_it_runs(
    new_job: NewJob, new_worker: NewWorker, job_row: Row, database: Database
) -> None:
    job_id = new_job()
    worker = new_worker("--steps", "9999", "--sleep", "0.02")
    outcome: list[Outcome] = []
    thread = threading.Thread(target=lambda: outcome.append(execute(job_id, worker)))
    thread.start()
    while job_row(job_id).stage != "train":
        assert thread.is_alive()
    set_row(database, job_id, state=JobState.CANCELLING, cancel_requested=True)
    thread.join(10)
    assert outcome == [Outcome.ENDED]
    job = job_row(job_id)
    assert (job.state, job.model_id, job.error) == (JobState.CANCELLED, None, None)
    assert not (worker.settings.data_dir / "jobs" / job_id).exists()


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
    new_job: NewJob, new_worker: NewWorker, job_row: Row, database: Database, storage: Storage
) -> None:
    job_id = new_job()
    worker = new_worker(poll_seconds=60.0)  # its heartbeat never hears of the cancel
    held = claim(database, job_id, worker.owner, worker.settings)
    assert held is not None
    workdir = finished_workdir(worker, held)
    set_row(database, job_id, state=JobState.CANCELLING, cancel_requested=True)
    with pytest.raises(LeaseLost):
        succeed(database, storage, held, workdir, [])
    with database.read() as session:
        assert session.scalars(select(PseudoMask)).all() == []
    assert job_row(job_id).state is JobState.CANCELLING


def finished_workdir(worker: Worker, held: Claim) -> Path:
    """A work folder with a whole result in it, as a trainer that is done leaves it."""
    from worker.trainer import Trainer

    job_file = prepare(worker.database, worker.storage, worker.settings, held.job_id, lambda: False)
    assert job_file is not None
    command = [*worker.settings.trainer_command, str(job_file)]
    trainer = Trainer(command, workdir=job_file.parent)
    assert list(trainer.events())[-1]["event"] == "done"
    trainer.wait()
    return job_file.parent


@pytest.mark.slow
def test_a_worker_that_goes_home_leaves_the_job_to_the_next(
    new_job: NewJob, new_worker: NewWorker, job_row: Row
) -> None:
    job_id = new_job()
    told: list[bool] = []
    args = ("--steps", "40", "--sleep", "0.02")
    worker = new_worker(*args, stopping=lambda: bool(told))
    thread = threading.Thread(target=loop, args=(worker,))
    thread.start()
    while job_row(job_id).stage != "train":
        assert thread.is_alive()
    told.append(True)
    thread.join(10)
    job = job_row(job_id)
    assert (job.state, job.owner, job.setbacks) == (JobState.QUEUED, None, 0)
    assert work_once(new_worker(*args)) is True
    job = job_row(job_id)
    assert (job.state, job.attempt) == (JobState.SUCCEEDED_WITH_WARNINGS, 2)


@pytest.mark.slow
def test_a_stale_lease_is_taken_up_and_the_old_attempt_writes_nothing(
    new_job: NewJob, new_worker: NewWorker, job_row: Row, database: Database, storage: Storage
) -> None:
    job_id = new_job()
    first, second = new_worker(), new_worker()
    held = claim(database, job_id, first.owner, first.settings)
    assert held is not None
    assert claim(database, job_id, second.owner, second.settings) is None
    workdir = finished_workdir(first, held)
    set_row(database, job_id, lease_until=now() - timedelta(seconds=1))
    newer = claim(database, job_id, second.owner, second.settings)
    assert newer is not None
    assert newer.attempt == held.attempt + 1
    with pytest.raises(LeaseLost), database.begin() as session:
        write(session, held, progress=0.9)
    with pytest.raises(LeaseLost):
        succeed(database, storage, held, workdir, [])
    with pytest.raises(LeaseLost):
        release(database, held, Reason.TRAINER_DIED, "killed")
    job = job_row(job_id)
    assert (job.owner, job.progress, job.state) == (second.owner, 0.0, JobState.RUNNING)
    with database.read() as session:
        assert session.scalars(select(PseudoMask)).all() == []
        assert session.scalars(select(BlobPin)).all() == []
    assert not storage.exists(sha_of_model(workdir))


def sha_of_model(workdir: Path) -> str:
    from app.storage import sha256_of

    return sha256_of(workdir / "result" / "model.pt")


@pytest.mark.slow
def test_a_worker_that_lost_its_lease_stops_its_trainer(
    new_job: NewJob, new_worker: NewWorker, job_row: Row, database: Database
) -> None:
    job_id = new_job()
    worker = new_worker("--steps", "9999", "--sleep", "0.02")
    outcome: list[Outcome] = []
    thread = threading.Thread(target=lambda: outcome.append(execute(job_id, worker)))
    thread.start()
    while job_row(job_id).stage != "train":
        assert thread.is_alive()
    set_row(database, job_id, owner="another", attempt=2)
    thread.join(10)
    assert outcome == [Outcome.LOST]
    job = job_row(job_id)
    assert (job.owner, job.state) == ("another", JobState.RUNNING)


@pytest.mark.slow
def test_a_heartbeat_keeps_a_long_job(
    new_job: NewJob, new_worker: NewWorker, job_row: Row, database: Database
) -> None:
    job_id = new_job()
    worker = new_worker("--steps", "80", "--sleep", "0.05", lease_seconds=2)
    thread = threading.Thread(target=execute, args=(job_id, worker))
    thread.start()
    while thread.is_alive():
        with database.read() as session:
            assert job_row(job_id).state is not JobState.RUNNING or waiting(session) == []
    assert job_row(job_id).attempt == 1
    assert job_row(job_id).state is JobState.SUCCEEDED_WITH_WARNINGS


@pytest.mark.slow
def test_a_job_that_is_deleted_meanwhile_ends_quietly(
    new_job: NewJob, new_worker: NewWorker, job_row: Row, database: Database
) -> None:
    job_id = new_job()
    worker = new_worker("--steps", "9999", "--sleep", "0.02")
    outcome: list[Outcome] = []
    thread = threading.Thread(target=lambda: outcome.append(execute(job_id, worker)))
    thread.start()
    while job_row(job_id).stage != "train":
        assert thread.is_alive()
    with database.begin() as session:
        session.execute(delete(Dataset))
    thread.join(10)
    assert outcome == [Outcome.LOST]


def test_a_lost_blob_fails_the_job_and_names_it(
    new_job: NewJob, new_worker: NewWorker, job_row: Row, storage: Storage
) -> None:
    import hashlib

    sha = hashlib.sha256(b"an image").hexdigest()
    storage.delete(sha)
    job_id = new_job()
    assert execute(job_id, new_worker()) is Outcome.ENDED
    job = job_row(job_id)
    assert (job.state, job.reason) == (JobState.FAILED, "blob_missing")
    assert sha in str(job.error)


@pytest.mark.slow
@pytest.mark.parametrize("broken", ["model.pt", "metrics.json", "pseudo_masks.ndjson"])
def test_a_result_that_is_not_as_agreed_is_refused_whole(
    broken: str, new_job: NewJob, new_worker: NewWorker, database: Database, storage: Storage
) -> None:
    worker = new_worker()
    held = claim(database, new_job(), worker.owner, worker.settings)
    assert held is not None
    workdir = finished_workdir(worker, held)
    sha = sha_of_model(workdir)
    path = workdir / "result" / broken
    if broken == "pseudo_masks.ndjson":
        path.write_text(path.read_text() + '{"id": 1}\n')
    else:
        path.unlink()
    with pytest.raises(BadResult, match=broken):
        succeed(database, storage, held, workdir, [])
    with database.read() as session:
        assert session.scalars(select(PseudoMask)).all() == []
        assert session.scalars(select(Model)).all() == []
    assert not storage.exists(sha)


def test_job_json(
    new_job: NewJob, new_worker: NewWorker, database: Database, storage: Storage
) -> None:
    truth = storage.put_bytes(b'{"truth": 1}')
    job_id = new_job(truth_sha=truth)
    worker = new_worker()
    job_file = prepare(database, storage, worker.settings, job_id, lambda: False)
    assert job_file is not None
    job = json.loads(job_file.read_text())
    assert Path(job["truth"]).read_bytes() == b'{"truth": 1}'
    assert set(job["image_paths"]) == {"12", "99"}
    assert all(Path(path).read_bytes() == b"an image" for path in job["image_paths"].values())
    assert (job["seed"], job["preset"], job["method"]) == (3, "cpu", "sapnet++")
    assert job["proposals"] == {"kind": "hierarchy"}
    assert job["backbone_weights"] is None
    assert Path(job["workdir"]) == job_file.parent
    points = json.loads(Path(job["points"]).read_text())
    assert points["images"][0] == {"id": 12, "file_name": "12.png", "width": 40, "height": 30}
    assert points["annotations"][1] == {
        "id": 502,
        "image_id": 12,
        "category_id": 7,
        "point": [39.5, 20.5],
    }
    assert prepare(database, storage, worker.settings, job_id, lambda: True) is None


def test_tidy_removes_the_folders_of_jobs_that_are_over(
    new_job: NewJob, new_worker: NewWorker
) -> None:
    worker = new_worker()
    running, over = new_job(), new_job(state=JobState.CANCELLED)
    folders = {name: worker.settings.folder("jobs", name) for name in (running, over, "gone")}
    tidy(worker)
    assert [name for name, folder in folders.items() if folder.exists()] == [running]


def test_one_job_among_many_claimants(
    new_job: NewJob, new_worker: NewWorker, database: Database
) -> None:
    job_id = new_job()
    workers = [new_worker() for _ in range(8)]
    claims: list[Claim | None] = []

    def take(worker: Worker) -> None:
        claims.append(claim(database, job_id, worker.owner, worker.settings))

    threads = [threading.Thread(target=take, args=(w,)) for w in workers]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sum(c is not None for c in claims) == 1
    assert len(claims) == 8


@pytest.mark.slow
def test_a_blob_in_use_elsewhere_survives_a_failed_result(
    new_job: NewJob, new_worker: NewWorker, database: Database, storage: Storage
) -> None:
    sha = storage.put_bytes(b"an image")
    with pytest.raises(BadResult), pinned(database, storage, [sha]):
        raise BadResult("no")
    assert storage.exists(sha)
    assert execute(new_job(), new_worker()) is Outcome.ENDED


@pytest.mark.parametrize(
    ("code", "says"), [(-9, "memory"), (-11, "SIGSEGV"), (2, "code 2"), (None, "never started")]
)
def test_how_it_died(code: int | None, says: str) -> None:
    assert says in how_it_died(code)
