"""The same jobs over Celery, Redis and PostgreSQL: lost, repeated and redelivered messages."""

import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from fastapi.testclient import TestClient
from redis import Redis
from redis.exceptions import RedisError
from sqlalchemy import func, select, text

from app.db.models import Job, JobState, PseudoMask
from app.db.session import Database
from app.jobs.kinds import TRAIN
from app.jobs.queue import send
from app.jobs.reaper import run_once
from app.main import create_app
from app.settings import Settings
from app.storage.store import Storage

pytestmark = [
    pytest.mark.service,
    pytest.mark.skipif(shutil.which("redis-server") is None, reason="no redis-server installed"),
    pytest.mark.parametrize("stack", ["full"], indirect=True),
]

NewJob = Callable[..., str]
Row = Callable[[str], Job]
Expire = Callable[[str], None]
Until = Callable[..., None]
Starts = Callable[[str], list[int]]
Alive = Callable[[int], bool]
Start = Callable[..., subprocess.Popen[bytes]]
StartWorker = Callable[..., subprocess.Popen[bytes]]

DONE = JobState.SUCCEEDED_WITH_WARNINGS


@pytest.fixture
def broker_url(tmp_path: Path, until: Until) -> Iterator[str]:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    options = ["--port", str(port), "--save", "", "--dir", str(tmp_path)]
    process = subprocess.Popen(["redis-server", *options], stdout=subprocess.DEVNULL)

    def answers() -> bool:
        try:
            return bool(Redis(port=port).ping())
        except RedisError:
            return False

    until(answers)
    yield f"redis://127.0.0.1:{port}/0"
    process.kill()
    process.wait()


@pytest.fixture
def start_worker(start: Start, broker_url: str) -> StartWorker:
    def run(*trainer: str) -> subprocess.Popen[bytes]:
        options = {"trainer": trainer} if trainer else {}
        return start("worker.main", SAPNET_BROKER_URL=broker_url, **options)

    return run


def masks(database: Database) -> int:
    with database.read() as session:
        return session.scalar(select(func.count()).select_from(PseudoMask)) or 0


def under_way(job_row: Row, job_id: str) -> Callable[[], bool]:
    return lambda: (job_row(job_id).step or 0) >= 3


def test_from_post_to_result(
    settings: Settings,
    database: Database,
    broker_url: str,
    dataset_id: str,
    start_worker: StartWorker,
    job_row: Row,
    until: Until,
) -> None:
    app = create_app(settings.model_copy(update={"broker_url": broker_url}))
    with TestClient(app) as client:
        job_id = client.post("/jobs/train", json={"dataset_id": dataset_id}).json()["id"]
    assert Redis.from_url(broker_url).llen(TRAIN) == 1
    start_worker("--steps", "4")
    until(lambda: job_row(job_id).state is DONE)
    assert masks(database) == 3
    assert job_row(job_id).attempt == 1


def test_a_broker_that_is_away_loses_no_job(
    settings: Settings, database: Database, dataset_id: str, job_row: Row
) -> None:
    away = settings.model_copy(update={"broker_url": "redis://127.0.0.1:1/0"})
    with TestClient(create_app(away)) as client:
        answer = client.post("/jobs/train", json={"dataset_id": dataset_id})
    assert answer.status_code == 202
    assert job_row(answer.json()["id"]).state is JobState.QUEUED


def test_a_message_that_was_lost_is_sent_again(
    new_job: NewJob, start_worker: StartWorker, job_row: Row, until: Until
) -> None:
    job_id = new_job()  # a row, and no message
    start_worker("--steps", "4")
    until(lambda: job_row(job_id).state is DONE)


def test_a_backlog_is_not_sent_twice(
    new_job: NewJob, database: Database, broker_url: str, settings: Settings
) -> None:
    jobs = [new_job() for _ in range(3)]
    connected = settings.model_copy(update={"broker_url": broker_url})
    for _ in range(3):
        run_once(database, connected)
        assert Redis.from_url(broker_url).llen(TRAIN) == len(jobs)


def test_a_job_that_is_sent_many_times_runs_once(
    new_job: NewJob,
    start_worker: StartWorker,
    job_row: Row,
    until: Until,
    broker_url: str,
    database: Database,
    storage: Storage,
) -> None:
    """Five messages, three workers: the log holds one start of a trainer."""
    job_id = new_job()
    for _ in range(5):
        assert send(job_id, broker_url)
    for _ in range(3):
        start_worker("--steps", "40", "--sleep", "0.1")
    until(lambda: job_row(job_id).state is DONE)
    until(lambda: Redis.from_url(broker_url).llen(TRAIN) == 0)
    assert (job_row(job_id).attempt, masks(database)) == (1, 3)
    log = storage.read(str(job_row(job_id).log_sha))
    assert log.count(b"a log line of the trainer") == 1


def test_kill_9_of_the_worker_alone(
    new_job: NewJob,
    start_worker: StartWorker,
    job_row: Row,
    until: Until,
    starts: Starts,
    alive: Alive,
    broker_url: str,
) -> None:
    """Its pool's process hears of it, has the trainer write its checkpoint, and gives the job back
    without waiting for the lease."""
    job_id = new_job()
    send(job_id, broker_url)
    worker = start_worker()
    until(under_way(job_row, job_id))
    (trainer,) = starts(job_id)
    pool = int(Path(f"/proc/{trainer}/stat").read_text().rsplit(")", 1)[1].split()[1])
    worker.kill()
    worker.wait()
    until(lambda: job_row(job_id).state is JobState.QUEUED)
    assert (job_row(job_id).reason, job_row(job_id).setbacks) == ("worker_stopped", 0)
    until(lambda: not alive(trainer) and not alive(pool))
    start_worker("--steps", "4")
    until(lambda: job_row(job_id).state is DONE)
    assert job_row(job_id).attempt == 2


def test_a_restart_of_the_database_does_not_end_the_job(
    new_job: NewJob,
    start_worker: StartWorker,
    job_row: Row,
    until: Until,
    broker_url: str,
    database: Database,
) -> None:
    """Its connections are cut off, as by a restart; the training goes on and its end is written."""
    job_id = new_job()
    send(job_id, broker_url)
    start_worker("--steps", "60", "--sleep", "0.05")
    until(under_way(job_row, job_id))
    cut = text(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid <> pg_backend_pid()"
    )
    for _ in range(5):
        with database.engine.connect() as connection:
            connection.execute(cut)
        time.sleep(0.3)
    until(lambda: job_row(job_id).state is DONE)
    assert (job_row(job_id).attempt, masks(database)) == (1, 3)


def test_a_worker_of_one_queue_leaves_the_others_alone(
    new_job: NewJob, start: Start, job_row: Row, until: Until, broker_url: str
) -> None:
    job_id = new_job()
    send(job_id, broker_url)
    options = {"SAPNET_BROKER_URL": broker_url, "trainer": ("--steps", "4")}
    start("app.cli", "worker", "--queues", "io,predict", **options)
    until(lambda: Redis.from_url(broker_url).exists("_kombu.binding.io"))
    time.sleep(1)
    assert Redis.from_url(broker_url).llen(TRAIN) == 1
    start("app.cli", "worker", "--queues", "train", **options)
    until(lambda: job_row(job_id).state is DONE)


def test_kill_9_of_worker_and_pool(
    new_job: NewJob,
    start_worker: StartWorker,
    job_row: Row,
    until: Until,
    starts: Starts,
    alive: Alive,
    expire: Expire,
    broker_url: str,
    database: Database,
) -> None:
    job_id = new_job()
    send(job_id, broker_url)
    worker = start_worker()
    until(under_way(job_row, job_id))
    (trainer,) = starts(job_id)
    pool = int(Path(f"/proc/{trainer}/stat").read_text().rsplit(")", 1)[1].split()[1])
    assert pool != worker.pid
    os.kill(pool, signal.SIGSTOP)  # else it may give the job back once its worker is gone
    worker.kill()
    os.kill(pool, signal.SIGKILL)
    worker.wait()
    until(lambda: not alive(trainer))
    assert job_row(job_id).state is JobState.RUNNING
    expire(job_id)  # the message stays with the dead worker for a day
    start_worker("--steps", "4")
    until(lambda: job_row(job_id).state is DONE)
    assert (job_row(job_id).attempt, masks(database)) == (2, 3)


def test_sigterm_hands_the_job_over(
    new_job: NewJob,
    start_worker: StartWorker,
    job_row: Row,
    until: Until,
    starts: Starts,
    alive: Alive,
    broker_url: str,
) -> None:
    job_id = new_job()
    send(job_id, broker_url)
    worker = start_worker()
    until(under_way(job_row, job_id))
    worker.terminate()
    worker.wait(100)
    assert not alive(starts(job_id)[0])
    job = job_row(job_id)
    assert (job.state, job.setbacks) == (JobState.QUEUED, 0)
    start_worker("--steps", "4")
    until(lambda: job_row(job_id).state is DONE)
    assert job_row(job_id).attempt == 2


def test_a_trainer_that_dies_is_started_again(
    new_job: NewJob, start_worker: StartWorker, job_row: Row, until: Until, broker_url: str
) -> None:
    job_id = new_job()
    send(job_id, broker_url)
    start_worker("--crash-at", "2")
    until(lambda: job_row(job_id).state is DONE)
    assert job_row(job_id).attempt == 2


def test_a_restart_of_redis_does_not_end_the_job(
    new_job: NewJob,
    start_worker: StartWorker,
    job_row: Row,
    until: Until,
    broker_url: str,
    tmp_path: Path,
) -> None:
    job_id = new_job()
    send(job_id, broker_url)
    start_worker("--steps", "120", "--sleep", "0.05")
    until(under_way(job_row, job_id))
    Redis.from_url(broker_url).shutdown(nosave=True)
    time.sleep(1)
    port = broker_url.rsplit(":", 1)[1].split("/")[0]
    again = subprocess.Popen(
        ["redis-server", "--port", port, "--save", "", "--dir", str(tmp_path)],
        stdout=subprocess.DEVNULL,
    )
    try:
        until(lambda: job_row(job_id).state is DONE)
        assert job_row(job_id).attempt == 1
        following = new_job()
        send(following, broker_url)
        until(lambda: job_row(following).state is DONE)
    finally:
        again.kill()
        again.wait()
