"""The log of a job's events: what is told, in which order, and who may write it."""

import threading
import time
from collections.abc import Callable
from datetime import timedelta
from itertools import pairwise
from typing import Any

import pytest
from fastapi.testclient import TestClient
from sqlalchemy import delete, func, select, update

from app.db.columns import now
from app.db.models import Dataset, EventType, Job, JobEvent, JobState, Reason
from app.db.session import Database
from app.jobs import events
from app.jobs.reaper import reap
from worker.jobs.execute import execute
from worker.jobs.transitions import release
from worker.polling import work_once
from worker.runtime.job_events import Journal
from worker.runtime.lease import LeaseLost, acquire_lease
from worker.runtime.progress import Progress
from worker.runtime.types import Outcome, WorkerContext

pytestmark = pytest.mark.both_stacks

NewJob = Callable[..., str]
NewWorker = Callable[..., WorkerContext]
Told = list[tuple[str, dict[str, Any]]]


@pytest.fixture
def log_of(database: Database) -> Callable[[str], list[JobEvent]]:
    def read(job_id: str) -> list[JobEvent]:
        with database.read() as session:
            found = events.after(session, job_id, 0, 10_000)
            assert [e.seq for e in found] == list(range(1, len(found) + 1))
            last = session.scalar(select(Job.last_event).where(Job.id == job_id))
        assert last == len(found)
        assert all(a.moment <= b.moment for a, b in pairwise(found))
        return found

    return read


LogOf = Callable[[str], list[JobEvent]]


def told(log: list[JobEvent], *left_out: str) -> Told:
    return [(e.type, e.data) for e in log if e.type not in left_out]


@pytest.mark.slow
def test_the_whole_way(
    client: TestClient, dataset_id: str, new_worker: NewWorker, log_of: LogOf
) -> None:
    body = {"dataset_id": dataset_id}
    job_id = client.post("/jobs/train", json=body).raise_for_status().json()["id"]
    worker = new_worker("--steps", "3", progress_event_seconds=3600)
    assert execute(job_id, worker) is Outcome.ENDED
    job = client.get(f"/jobs/{job_id}").json()
    log = log_of(job_id)
    assert told(log, "progress") == [
        ("created", {"state": "queued", "kind": "train", "dataset_id": dataset_id}),
        ("state", {"state": "running", "reason": None}),
        ("warning", {"message": "weights are random"}),
        ("stage", {"stage": "train", "status": "started"}),
        ("stage", {"stage": "train", "status": "ended"}),
        (
            "end",
            {
                "state": "succeeded_with_warnings",
                "reason": job["reason"],
                "error": None,
                "model_id": job["model_id"],
            },
        ),
    ]
    assert [e.attempt for e in log] == [0] + [1] * (len(log) - 1)
    first, last = (e.data for e in log if e.type == "progress")  # however long it takes
    assert [(p["stage"], p["of"]) for p in (first, last)] == [("train", 3)] * 2
    assert (first["step"], last["step"]) == (1, 3)
    assert set(last) == {"stage", "step", "of", "progress", "eta_seconds", "losses"}


@pytest.mark.slow
def test_a_failure_is_told_before_the_end(
    new_job: NewJob, new_worker: NewWorker, log_of: LogOf
) -> None:
    job_id = new_job()
    execute(job_id, new_worker("--fail"))
    why = {"reason": "non_finite_loss", "error": "loss term 'psm' became nan at step 3"}
    assert told(log_of(job_id))[-2:] == [
        ("error", why),
        ("end", {"state": "failed", **why, "model_id": None}),
    ]


@pytest.mark.slow
def test_a_setback_and_the_attempt_after_it(
    new_job: NewJob, new_worker: NewWorker, log_of: LogOf
) -> None:
    job_id, worker = new_job(), new_worker("--crash-at", "2")
    assert execute(job_id, worker) is Outcome.RELEASED
    assert execute(job_id, worker) is Outcome.ENDED
    log = log_of(job_id)
    (setback,) = (e for e in log if e.type == "setback")
    assert setback.data["reason"] == "trainer_died"
    assert "SIGKILL" in setback.data["error"]
    states = [(e.attempt, e.data["state"]) for e in log if e.type in ("state", "end")]
    assert states == [
        (1, "running"),
        (1, "queued"),
        (2, "running"),
        (2, "succeeded_with_warnings"),
    ]
    warnings = [e for e in log if e.type == "warning"]
    assert len(warnings) == 1, "one of the first attempt is not told again"
    assert [e.attempt for e in log if e.data.get("status") == "started"] == [1, 2]


@pytest.mark.slow
def test_a_worker_that_goes_home_is_no_setback(
    new_job: NewJob, new_worker: NewWorker, log_of: LogOf
) -> None:
    job_id = new_job()
    worker = new_worker("--steps", "999", "--sleep", "0.01", stopping=lambda: True)
    assert execute(job_id, worker) is Outcome.RELEASED
    assert told(log_of(job_id), "stage", "progress", "warning")[-1] == (
        "state",
        {"state": "queued", "reason": "worker_stopped"},
    )
    assert "setback" not in [e.type for e in log_of(job_id)]


@pytest.mark.parametrize("by", ["reaper", "worker"])
def test_a_worker_that_fell_silent(
    by: str, new_job: NewJob, new_worker: NewWorker, log_of: LogOf, database: Database
) -> None:
    job_id, silent, other = new_job(), new_worker(), new_worker()
    assert acquire_lease(database, job_id, silent.owner, silent.settings) is not None
    past = update(Job).where(Job.id == job_id).values(lease_until=now() - timedelta(seconds=1))
    with database.begin() as session:
        session.execute(past)
    if by == "reaper":
        assert reap(database) == [(job_id, "train")]
    assert acquire_lease(database, job_id, other.owner, other.settings) is not None
    log = log_of(job_id)
    assert [e.data["reason"] for e in log if e.type == "setback"] == ["worker_lost"]
    assert (log[-1].attempt, log[-1].data["state"]) == (2, "running")


@pytest.mark.slow
def test_cancel(client: TestClient, new_job: NewJob, new_worker: NewWorker, log_of: LogOf) -> None:
    queued, running = new_job(), new_job()
    worker = new_worker()
    lease = acquire_lease(worker.database, running, worker.owner, worker.settings)
    assert lease is not None
    for job_id in (queued, running, running):  # asked for twice, told once
        client.post(f"/jobs/{job_id}/cancel").raise_for_status()
    end = {"state": "cancelled", "reason": "cancel_requested", "error": None, "model_id": None}
    assert told(log_of(queued)) == [("cancel_requested", {}), ("end", end)]
    assert told(log_of(running))[1:] == [
        ("cancel_requested", {}),
        ("state", {"state": "cancelling", "reason": "cancel_requested"}),
    ]
    assert client.post(f"/jobs/{queued}/cancel").status_code in (202, 409)
    assert len(log_of(queued)) == 2


def test_a_stale_attempt_tells_nothing(
    new_job: NewJob, new_worker: NewWorker, log_of: LogOf, database: Database
) -> None:
    job_id, first, second = new_job(), new_worker(), new_worker()
    lease = acquire_lease(database, job_id, first.owner, first.settings)
    assert lease is not None
    with database.begin() as session:
        session.execute(update(Job).values(lease_until=now() - timedelta(seconds=1)))
    assert acquire_lease(database, job_id, second.owner, second.settings) is not None
    before = len(log_of(job_id))
    with pytest.raises(LeaseLost):
        release(database, lease, Reason.TRAINER_DIED, "it died")
    assert len(log_of(job_id)) == before


@pytest.mark.slow
def test_what_is_rolled_back_leaves_no_gap(
    new_job: NewJob, new_worker: NewWorker, log_of: LogOf, database: Database
) -> None:
    job_id = new_job()

    def fails() -> None:
        with database.begin() as session:
            events.append(session, job_id, [(EventType.WARNING, {"message": "never"})])
            raise RuntimeError("later")

    with pytest.raises(RuntimeError, match="later"):
        fails()
    assert execute(job_id, new_worker()) is Outcome.ENDED
    assert "never" not in [e.data.get("message") for e in log_of(job_id)]


def test_nothing_is_told_of_a_job_that_is_gone(database: Database) -> None:
    with database.begin() as session:
        events.append(session, "gone", [(EventType.WARNING, {"message": "m"})])
        events.append(session, "gone", [])
        events.append_state(session, "gone")
        assert session.scalar(select(func.count()).select_from(JobEvent)) == 0


@pytest.mark.slow
def test_events_go_with_their_job(
    new_job: NewJob, new_worker: NewWorker, database: Database
) -> None:
    execute(new_job(), new_worker())
    with database.begin() as session:
        session.execute(delete(Dataset))
        assert session.scalar(select(func.count()).select_from(JobEvent)) == 0


@pytest.mark.slow
def test_numbers_become_visible_in_their_order(new_job: NewJob, database: Database) -> None:
    """Writers beside each other, and a reader that must never see a number before a lower one."""
    job_id, writers, each = new_job(), 3, 8
    seen: list[int] = []

    def write() -> None:
        for i in range(each):
            with database.begin() as session:
                new = [(EventType.WARNING, {"message": str(i)})] * (1 + i % 2)
                events.append(session, job_id, new)
                time.sleep(0.002)  # its number is taken, and not to be seen yet

    def read() -> None:
        while len(seen) < expected:
            with database.read() as session:
                seen.extend(e.seq for e in events.after(session, job_id, max(seen, default=0), 7))

    expected = writers * sum(1 + i % 2 for i in range(each))
    threads = [threading.Thread(target=write) for _ in range(writers)]
    threads.append(threading.Thread(target=read))
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert seen == list(range(1, expected + 1))


def columns(stage: str, step: int, **values: Any) -> dict[str, Any]:
    return {"stage": stage, "step": step, "of": 9, "progress": 0.1, **values}


def test_progress_is_told_now_and_then() -> None:
    journal = Journal()
    kinds: list[str] = []
    for step in range(1, 10):
        found = journal.of(columns("train", step), 60)
        journal.mark_written(found)
        kinds += [kind for kind, _ in found]
    assert kinds == ["stage", "progress", "progress"], "where the stage begins and where it ends"
    assert journal.of(columns("train", 9), 60) == []
    assert [kind for kind, _ in journal.of(columns("train", 9), 0)] == ["progress"]


def test_what_could_not_be_written_is_told_with_the_next() -> None:
    journal = Journal(["old"])
    lost = journal.of({**columns("proposals", 1), "warnings": ["old", "new"]}, 60)
    assert [kind for kind, _ in lost] == ["warning", "stage", "progress"]
    again = journal.of({**columns("proposals", 2), "warnings": ["old", "new"]}, 60)
    assert [kind for kind, _ in again] == ["warning", "stage", "progress"]
    journal.mark_written(again)
    following = journal.of({**columns("train", 1), "warnings": ["old", "new"]}, 60)
    assert [(kind, data.get("status")) for kind, data in following] == [
        ("stage", "ended"),
        ("stage", "started"),
        ("progress", None),
    ]
    assert journal.of({}, 0) == journal.of({"proposal_generator": "x"}, 0) == []


def test_images_that_are_set_aside_are_told_once() -> None:
    entry = {"image_id": 17, "file_name": "a.jpg", "stage": "proposals", "error": "it is gone"}
    journal = Journal()
    journal.set_aside({"event": "image_set_aside", **entry})
    lost = journal.of(columns("proposals", 1), 60)
    again = journal.of(columns("proposals", 2), 60)
    assert lost[0] == again[0] == ("image_set_aside", entry)
    journal.mark_written(again)
    assert journal.of(columns("proposals", 3), 60) == []


def test_validations_are_events_and_told_once() -> None:
    entry = {"step": 8, "of": 80, "against": "ground truth", "figures": {"AP": 0.4, "AP50": 0.7}}
    progress = Progress("train", 7, [], {"proposals": 0.2, "train": 0.8})
    progress.take({"event": "validation", **entry})
    columns_now = columns("train", 9)
    assert ("validation", entry) in progress.journal.of(columns_now, 60)
    progress.journal.mark_written(progress.journal.of(columns_now, 60))
    assert progress.journal.of(columns_now, 60) == []


@pytest.mark.slow
def test_a_succeeded_job_has_one_end(
    new_job: NewJob, new_worker: NewWorker, log_of: LogOf, database: Database
) -> None:
    worker, job_id = new_worker(), new_job()
    assert work_once(worker) is True
    lease = acquire_lease(database, job_id, worker.owner, worker.settings)
    assert lease is None
    assert [e.type for e in log_of(job_id)].count("end") == 1
    assert log_of(job_id)[-1].type == "end"
    assert log_of(job_id)[-1].data["state"] == JobState.SUCCEEDED_WITH_WARNINGS
