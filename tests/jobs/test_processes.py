"""Workers and the service as real processes, killed and stopped in the middle of a job."""

import os
import signal
import subprocess
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import httpx2
import pytest
from sqlalchemy import func, select, update

from app.db.columns import now
from app.db.models import Job, JobState, PseudoMask
from app.db.session import Database

pytestmark = pytest.mark.service

NewJob = Callable[..., str]
Row = Callable[[str], Job]
Expire = Callable[[str], None]
Until = Callable[..., None]
Starts = Callable[[str], list[int]]
Alive = Callable[[int], bool]
Children = Callable[[int], list[int]]
Start = Callable[..., subprocess.Popen[bytes]]

DONE = JobState.SUCCEEDED_WITH_WARNINGS
REST = ("--steps", "4")  # of a trainer that goes on where an endless one was broken off


def masks(database: Database) -> int:
    with database.read() as session:
        return session.scalar(select(func.count()).select_from(PseudoMask)) or 0


def stage(job_row: Row, job_id: str) -> Callable[[], bool]:
    return lambda: (job_row(job_id).step or 0) >= 3


def test_kill_9_of_the_worker(
    start: Start,
    new_job: NewJob,
    job_row: Row,
    until: Until,
    starts: Starts,
    alive: Alive,
    expire: Expire,
    database: Database,
) -> None:
    job_id = new_job()
    worker = start("worker.main")
    until(stage(job_row, job_id))
    (trainer,) = starts(job_id)
    worker.kill()
    worker.wait()
    until(lambda: not alive(trainer))
    assert job_row(job_id).state is JobState.RUNNING
    expire(job_id)
    start("worker.main", trainer=REST)
    until(lambda: job_row(job_id).state is DONE)
    assert (job_row(job_id).attempt, masks(database)) == (2, 3)


def test_kill_9_of_the_trainer(
    start: Start, new_job: NewJob, job_row: Row, until: Until, database: Database
) -> None:
    job_id = new_job()
    start("worker.main", trainer=("--crash-at", "3"))  # it sends itself the signal
    until(lambda: job_row(job_id).state is DONE)
    assert (job_row(job_id).attempt, masks(database)) == (2, 3)


def test_sigterm_of_the_worker(
    start: Start,
    new_job: NewJob,
    job_row: Row,
    until: Until,
    starts: Starts,
    alive: Alive,
) -> None:
    job_id = new_job()
    worker = start("worker.main")
    until(stage(job_row, job_id))
    worker.terminate()
    assert worker.wait(60) == 0
    assert not alive(starts(job_id)[0])
    job = job_row(job_id)
    assert (job.state, job.setbacks, job.owner) == (JobState.QUEUED, 0, None)
    start("worker.main", trainer=REST)
    until(lambda: job_row(job_id).state is DONE)


def test_two_workers_share_the_work(
    start: Start, new_job: NewJob, job_row: Row, until: Until, database: Database
) -> None:
    jobs = [new_job() for _ in range(6)]
    for _ in range(2):
        start("worker.main", trainer=("--steps", "4", "--sleep", "0.05"))
    until(lambda: all(job_row(j).state is DONE for j in jobs))
    assert [job_row(j).attempt for j in jobs] == [1] * 6
    assert masks(database) == 18


@pytest.fixture
def served(
    start: Start,
    tmp_path: Path,
    until: Until,
    database: Database,  # put in place before, not under, the service
) -> tuple[subprocess.Popen[bytes], str]:
    process = start("app.cli", "serve", "--port", "0")
    output = tmp_path / "output.txt"
    until(lambda: "sapnet-service is at " in output.read_text())
    url = output.read_text().split("sapnet-service is at ")[1].split()[0]

    def ready() -> bool:
        try:
            return httpx2.get(f"{url}/readyz").is_success
        except httpx2.TransportError:
            return False

    until(ready)
    return process, url


def test_serve_runs_api_and_worker_and_stops_both(
    served: tuple[subprocess.Popen[bytes], str],
    children: Children,
    new_job: NewJob,
    job_row: Row,
    until: Until,
    starts: Starts,
    alive: Alive,
    dataset_id: str,
) -> None:
    process, url = served
    body = {"dataset_id": dataset_id}
    job_id = httpx2.post(f"{url}/jobs/train", json=body, timeout=60).raise_for_status().json()["id"]
    until(stage(job_row, job_id))
    (worker,), (trainer,) = children(process.pid), starts(job_id)
    process.terminate()
    assert process.wait(60) == 0
    assert not alive(worker)
    assert not alive(trainer)
    assert job_row(job_id).state is JobState.QUEUED


def test_serve_starts_a_worker_that_died_again(
    served: tuple[subprocess.Popen[bytes], str],
    children: Children,
    new_job: NewJob,
    job_row: Row,
    until: Until,
) -> None:
    process, url = served
    until(lambda: children(process.pid))
    os.kill(children(process.pid)[0], signal.SIGKILL)
    job_id = new_job()
    until(stage(job_row, job_id))
    answer = httpx2.post(f"{url}/jobs/{job_id}/cancel", timeout=60)
    assert answer.json().get("state") == "cancelling", answer.text
    until(lambda: job_row(job_id).state is JobState.CANCELLED)


def test_kill_9_of_serve_leaves_nothing_running(
    served: tuple[subprocess.Popen[bytes], str],
    children: Children,
    new_job: NewJob,
    job_row: Row,
    until: Until,
    starts: Starts,
    alive: Alive,
) -> None:
    process, _ = served
    job_id = new_job()
    until(stage(job_row, job_id))
    (worker,), (trainer,) = children(process.pid), starts(job_id)
    process.kill()
    process.wait()
    until(lambda: not alive(worker) and not alive(trainer))
    assert job_row(job_id).state is JobState.QUEUED  # the worker left it in order


def test_a_paused_worker_comes_back_and_writes_nothing(
    start: Start,
    new_job: NewJob,
    job_row: Row,
    until: Until,
    starts: Starts,
    alive: Alive,
    database: Database,
) -> None:
    job_id = new_job()
    paused = start("worker.main")
    until(stage(job_row, job_id))
    (trainer,) = starts(job_id)
    with database.begin() as session:  # it must not be stopped while it holds SQLite's lock
        session.execute(update(Job).values(lease_until=now() - timedelta(seconds=1)))
        paused.send_signal(signal.SIGSTOP)
        os.waitpid(paused.pid, os.WUNTRACED)  # all its threads stand still
    other = start("worker.main", trainer=REST)
    until(lambda: job_row(job_id).attempt == 2)
    owner = job_row(job_id).owner
    paused.send_signal(signal.SIGCONT)  # its trainer held the folder's lock until now
    until(lambda: not alive(trainer) or job_row(job_id).state is DONE)
    until(lambda: job_row(job_id).state is DONE)
    assert job_row(job_id).owner == owner
    assert masks(database) == 3
    assert other.poll() is None


def test_a_queued_job_that_was_cancelled_is_never_started(
    start: Start, new_job: NewJob, job_row: Row, until: Until, database: Database, starts: Starts
) -> None:
    cancelled, wanted = new_job(), new_job()
    with database.begin() as session:
        query = update(Job).where(Job.id == cancelled)
        session.execute(query.values(state=JobState.CANCELLED, cancel_requested=True))
    start("worker.main", trainer=())
    until(lambda: job_row(wanted).state is DONE)
    assert starts(cancelled) == []
    assert job_row(cancelled).attempt == 0
