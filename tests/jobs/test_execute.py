"""From lease to end: the states a job goes through. Who may write: test_lease.py."""

import json
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from obstore.store import MemoryStore
from pydantic import ValidationError
from sqlalchemy import select

from app.db.models import BlobPin, Job, JobState, Model, PseudoMask
from app.db.session import Database
from app.settings import Settings
from app.storage.garbage_collection import pinned
from app.storage.store import BucketStorage, FolderStorage, Storage
from worker.jobs import context
from worker.jobs.context import StopRequested
from worker.jobs.execute import execute
from worker.jobs.train import prepare
from worker.jobs.transitions import BadResult
from worker.polling import clean_up, loop, work_once
from worker.runtime.lease import Lease
from worker.runtime.process_end import how_it_died
from worker.runtime.types import Outcome, WorkerContext

from .conftest import Training, context_of

pytestmark = pytest.mark.both_stacks

NewJob = Callable[..., str]
NewWorker = Callable[..., WorkerContext]
Row = Callable[[str], Job]
SetRow = Callable[..., None]


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
def test_what_may_not_happen_again_is_tried_again(
    new_job: NewJob, new_worker: NewWorker, job_row: Row
) -> None:
    """Out of memory, say: other work on the machine may have held it."""
    job_id = new_job()
    assert execute(job_id, new_worker("--fail", "--reason", "attempt_failed")) is Outcome.RELEASED
    job = job_row(job_id)
    assert (job.state, job.reason) == (JobState.QUEUED, "attempt_failed")
    assert "psm" in str(job.error)
    assert execute(job_id, new_worker()) is Outcome.ENDED
    assert job_row(job_id).error is None


@pytest.mark.slow
def test_a_trainer_that_always_crashes_is_given_up(
    new_job: NewJob, new_worker: NewWorker, job_row: Row, set_row: SetRow
) -> None:
    job_id, worker = new_job(), new_worker("--crash-always")  # max_attempts=3
    seen = []
    for _ in range(4):
        seen.append(execute(job_id, worker))
        set_row(job_id, lease_until=None)  # its delay is over
    assert seen == [Outcome.RELEASED, Outcome.DELAYED, Outcome.DELAYED, Outcome.ENDED]
    job = job_row(job_id)
    assert (job.state, job.reason, job.attempt) == (JobState.FAILED, "crashed", 4)
    assert job.error is not None
    assert "3 attempts in a row" in job.error
    assert "SIGKILL" in job.error


@pytest.mark.slow
def test_cancel_while_it_runs(training: Training, job_row: Row, set_row: SetRow) -> None:
    job_id, worker = training.job_id, training.worker
    set_row(job_id, state=JobState.CANCELLING, cancel_requested=True)
    assert training.outcome() is Outcome.ENDED
    job = job_row(job_id)
    assert (job.state, job.model_id, job.error) == (JobState.CANCELLED, None, None)
    assert not (worker.settings.data_dir / "jobs" / job_id).exists()


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


def test_job_json(new_job: NewJob, new_worker: NewWorker, storage: Storage) -> None:
    truth = storage.put_bytes(b'{"truth": 1}')
    job_id = new_job(truth_sha=truth)
    worker = new_worker()
    job_file = prepare(context_of(worker, job_id))
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

    def stop() -> None:
        raise StopRequested

    with pytest.raises(StopRequested):
        prepare(context_of(worker, job_id, stop))


def test_how_far_the_fetching_of_images_is(
    new_worker: NewWorker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is told, and can be stopped; the files are the job's own, whatever the cache forgets."""
    monkeypatch.setattr(context, "REPORT_EVERY", 2)
    bucket = BucketStorage("memory://", tmp_path / "cache", MemoryStore())
    shas = [bucket.put_bytes(bytes([n])) for n in range(5)]
    told: list[tuple[str, int, int]] = []
    stops = 0

    def stop() -> None:
        nonlocal stops
        stops += 1

    attempt = replace(
        context_of(new_worker(), "a", stop),
        storage=bucket,
        report_progress=lambda *event: told.append(event),
    )
    files = attempt.image_files(shas)
    assert told == [("fetch", 2, 5), ("fetch", 4, 5)]
    assert stops == 3
    assert {Path(str(path)).parent.parent for path in files.values()} == {attempt.workdir}
    told.clear()
    folder = FolderStorage(tmp_path / "blobs")
    replace(attempt, storage=folder).image_files([folder.put_bytes(b"x"), folder.put_bytes(b"y")])
    assert told == []


@pytest.mark.parametrize(("setbacks", "processes"), [(1, None), (2, None), (3, 1), (9, 1)])
def test_after_setbacks_a_training_goes_on_in_one_process(
    new_job: NewJob, new_worker: NewWorker, setbacks: int, processes: int | None
) -> None:
    worker = new_worker()
    lease = Lease(new_job(), worker.owner, setbacks, setbacks, False)
    job = json.loads(prepare(context_of(worker, lease)).read_text())
    assert job["max_processes"] == processes


@pytest.mark.parametrize("devices", ["all", "0,2", "cpu,cpu"])
def test_the_trainer_hears_of_the_devices(settings: Settings, devices: str) -> None:
    named = settings.model_copy(update={"devices": devices})
    assert named.trainer_environment["SAPNET_DEVICES"] == devices


def test_settings_take_no_devices_that_cannot_be(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SAPNET_DEVICES", "0,0")
    with pytest.raises(ValidationError, match="each once"):
        Settings(_env_file=None)  # type: ignore[call-arg]


@pytest.mark.slow
def test_a_preset_is_chosen_once(new_job: NewJob, new_worker: NewWorker, job_row: Row) -> None:
    """The next attempt is given the one that the first has chosen, wherever it runs."""
    job_id = new_job(preset="auto")
    worker = new_worker("--crash-at", "2")
    assert json.loads(prepare(context_of(worker, job_id)).read_text())["preset"] == "auto"
    assert execute(job_id, worker) in (Outcome.RELEASED, Outcome.DELAYED)
    job = job_row(job_id)
    assert (job.preset, job.preset_reasons) == ("cpu", ["2 cores and no GPU.", "It is fake."])
    assert json.loads(prepare(context_of(worker, job_id)).read_text())["preset"] == "cpu"


def test_clean_up_removes_the_folders_of_jobs_that_are_over(
    new_job: NewJob, new_worker: NewWorker
) -> None:
    worker = new_worker()
    running, over = new_job(), new_job(state=JobState.CANCELLED)
    folders = {name: worker.settings.folder("jobs", name) for name in (running, over, "gone")}
    clean_up(worker)
    assert [name for name, folder in folders.items() if folder.exists()] == [running]


@pytest.mark.slow
def test_a_blob_in_use_elsewhere_survives_a_failed_result(
    new_job: NewJob, new_worker: NewWorker, database: Database, storage: Storage
) -> None:
    sha = storage.put_bytes(b"an image")
    with pytest.raises(BadResult), pinned(database, storage, [sha]):
        raise BadResult("no")
    assert storage.exists(sha)
    assert execute(new_job(), new_worker()) is Outcome.ENDED


@pytest.mark.parametrize(("code", "says"), [(-9, "memory"), (-11, "SIGSEGV"), (2, "code 2")])
def test_how_it_died(code: int, says: str) -> None:
    assert says in how_it_died(code)
