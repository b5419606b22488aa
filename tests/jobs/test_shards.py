"""Proposals of one training by many takers: equal digit by digit, whatever dies on the way."""

import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient
from redis import Redis
from sqlalchemy import select, update

from app.db.columns import now
from app.db.models import BlobPin, EventType, Job, JobState, PseudoMask, Shard, ShardState
from app.db.session import Database
from app.jobs import events, service
from app.jobs.kinds import SHARD
from app.jobs.queue import send_shard_hints
from app.settings import Settings
from sapnet.data.synthetic import Scenes, make_scenes
from sapnet_client import Client
from worker.jobs.execute import execute
from worker.runtime.lease import LeaseLost, ShardLease, acquire_shard, write
from worker.runtime.types import Outcome, WorkerContext

NewJob = Callable[..., str]
NewWorker = Callable[..., WorkerContext]
Row = Callable[[str], Job]
Until = Callable[..., None]
Start = Callable[..., subprocess.Popen[bytes]]

ODD = Path(__file__).with_name("odd_shards.py")
IMAGES, SIZE = 8, 3
"""Images, and those of a shard: three of them, the last one of two images."""
DONE = (JobState.SUCCEEDED, JobState.SUCCEEDED_WITH_WARNINGS)
TINY = {
    "preset": "demo",
    "seed": 7,
    "request": {
        "proposals": {"kind": "hierarchy"},
        "overrides": {
            "train.epochs": 2,
            "train.batch_size": 2,
            "train.warmup_steps": 2,
            "teacher.epochs": 1,
            "teacher.min_steps": 4,
            "data.short_sides": [96],
            "data.max_long_side": 128,
        },
    },
}


def odd(*options: str) -> tuple[str, ...]:
    return (sys.executable, str(ODD), *options)


@pytest.fixture(autouse=True)
def one_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of each process, so that figures are equal."""
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).resolve().parents[2]))


@pytest.fixture(scope="module")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> Scenes:
    return make_scenes(tmp_path_factory.mktemp("scenes"), IMAGES, size=(96, 112), seed=3)


@pytest.fixture
def dataset_id(client: TestClient, scenes: Scenes) -> str:
    asking = Client(http=client, progress=False)
    return asking.create_dataset(scenes.images, scenes.points, truth=scenes.truth).id


@pytest.fixture
def sharded(new_worker: NewWorker) -> Callable[..., WorkerContext]:
    """A worker whose trainings of these scenes are cut; its trainer trains nothing."""

    def new(*options: str, takers: int = 2, **values: Any) -> WorkerContext:
        command = {"shard_command": odd(*options)} if options else {}
        return new_worker(shard_images=SIZE, shard_takers=takers, **command, **values)

    return new


def shards(database: Database, job_id: str) -> list[Shard]:
    with database.read() as session:
        return list(session.scalars(select(Shard).where(Shard.job_id == job_id).order_by(Shard.pk)))


def made(database: Database, job_id: str) -> list[tuple[Any, ...]]:
    """What was made: digests of the results, which are those of the bags in them."""
    return [(s.number, s.state, s.images, s.step, s.sha) for s in shards(database, job_id)]


@pytest.fixture
def forget(settings: Settings) -> Callable[[], None]:
    """Forget the proposals that were made before, so that they are made again."""
    return lambda: shutil.rmtree(settings.data_dir / "proposals", ignore_errors=True)


@pytest.fixture
def expected(
    new_job: NewJob,
    sharded: Callable[..., WorkerContext],
    database: Database,
    forget: Callable[[], None],
) -> list[tuple[Any, ...]]:
    """What one taker makes that nobody disturbs."""
    job_id = new_job()
    assert execute(job_id, sharded(takers=1)) is Outcome.ENDED
    forget()
    return made(database, job_id)


@pytest.fixture
def leads(database: Database) -> Any:
    """Starts a job in a thread: what it returns waits for the end."""
    with ThreadPoolExecutor(1) as pool:
        yield lambda job_id, worker: pool.submit(execute, job_id, worker).result


def running(database: Database, job_id: str) -> list[Shard]:
    return [s for s in shards(database, job_id) if s.state is ShardState.RUNNING]


def pid_of(shard: Shard) -> int:
    """Of the worker that works on it."""
    return int(str(shard.owner).split(":")[1])


def expire_all(database: Database, job_id: str) -> None:
    """Ends the leases of takers that renew them no more, which would take a minute."""
    past = now() - timedelta(seconds=1)
    left = update(Shard).where(Shard.job_id == job_id, Shard.state == ShardState.RUNNING)
    with database.begin() as session:
        session.execute(left.values(lease_until=past))


@pytest.fixture
def start_taker(start: Start) -> Callable[..., subprocess.Popen[bytes]]:
    """A worker that takes nothing but shards, one at a time."""

    def begin(*options: str, **env: str) -> subprocess.Popen[bytes]:
        values = {"SAPNET_SHARD_IMAGES": str(SIZE), "SAPNET_SHARD_TAKERS": "1", **env}
        if options:
            values["SAPNET_SHARD_COMMAND"] = json.dumps(odd(*options))
        return start("worker.main", SHARD, trainer=("--steps", "4"), **values)

    return begin


# who may take what, and write what


@pytest.fixture
def cut(new_job: NewJob, database: Database) -> Callable[..., str]:
    """A running job with shards that nobody has taken."""

    def new(count: int = 3, **values: Any) -> str:
        job_id = new_job(**{"state": JobState.RUNNING, **values})
        plan = {"max_proposals": 16, "ranges": {}, "network": False}
        of = {"job_id": job_id, "stage": "proposals", "plan": plan, "images": 3}
        with database.begin() as session:
            for n in range(count):
                session.add(Shard(**of, number=n, low=3 * n + 1, high=3 * n + 3))
        return job_id

    return new


@pytest.mark.both_stacks
@pytest.mark.slow
def test_each_shard_has_one_taker(
    cut: Callable[..., str], database: Database, settings: Settings
) -> None:
    cut(count=3)
    leases: list[ShardLease | None] = []

    def take(number: int) -> None:
        leases.append(acquire_shard(database, f"taker {number}", settings))

    threads = [threading.Thread(target=take, args=(n,)) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    taken = [lease.pk for lease in leases if lease is not None]
    assert len(taken) == len(set(taken)) == 3


@pytest.mark.both_stacks
@pytest.mark.slow
def test_a_taker_that_fell_silent_writes_nothing(
    cut: Callable[..., str], database: Database, settings: Settings
) -> None:
    job_id = cut(count=1)
    first = acquire_shard(database, "first", settings)
    assert first is not None
    assert acquire_shard(database, "second", settings) is None
    expire_all(database, job_id)
    second = acquire_shard(database, "second", settings)
    assert second is not None
    assert (second.attempt, second.setbacks) == (2, 2)
    with database.begin() as session:
        write(session, second, step=2)
    with database.begin() as session, pytest.raises(LeaseLost):
        write(session, first, state=ShardState.DONE)
    (shard,) = shards(database, job_id)
    assert (shard.owner, shard.step, shard.state) == ("second", 2, ShardState.RUNNING)


@pytest.mark.both_stacks
@pytest.mark.slow
def test_the_job_with_fewer_takers_comes_first(
    cut: Callable[..., str], database: Database, settings: Settings
) -> None:
    large, small = cut(count=4), cut(count=1)
    order = [acquire_shard(database, f"taker {n}", settings) for n in range(3)]
    assert [lease.job_id for lease in order if lease] == [large, small, large]


@pytest.mark.both_stacks
@pytest.mark.slow
def test_a_large_network_is_one_takers(
    cut: Callable[..., str], database: Database, settings: Settings
) -> None:
    with_network, without = cut(count=1), cut(count=1)
    plan = {"max_proposals": 16, "ranges": {}, "network": True}
    with database.begin() as session:
        session.execute(update(Shard).where(Shard.job_id == with_network).values(plan=plan))
    second = acquire_shard(database, "second", settings, networks=False)
    assert second is not None
    assert second.job_id == without
    assert acquire_shard(database, "second", settings, networks=False) is None
    first = acquire_shard(database, "first", settings)
    assert first is not None
    assert first.job_id == with_network


@pytest.mark.both_stacks
@pytest.mark.slow
@pytest.mark.parametrize(
    "ended",
    [
        {"state": JobState.CANCELLING, "cancel_requested": True},
        {"state": JobState.CANCELLED, "cancel_requested": True},
        {"state": JobState.FAILED},
    ],
)
def test_shards_of_a_job_that_ends_are_not_taken(
    cut: Callable[..., str],
    database: Database,
    settings: Settings,
    set_row: Callable[..., None],
    ended: dict[str, Any],
) -> None:
    job_id = cut()
    lease = acquire_shard(database, "taker", settings)
    assert lease is not None
    set_row(job_id, **ended)
    assert acquire_shard(database, "another", settings) is None
    with database.begin() as session, pytest.raises(LeaseLost):
        write(session, lease, unless_cancelled=True, state=ShardState.DONE)


# the same results


@pytest.mark.service
def test_masks_are_those_of_one_process(
    new_job: NewJob,
    new_worker: NewWorker,
    database: Database,
    job_row: Row,
    forget: Callable[[], None],
) -> None:
    command = Settings.model_fields["trainer_command"].default

    def results(**values: Any) -> Any:
        job_id = new_job(**TINY)
        worker = new_worker(**values).settings.model_copy(update={"trainer_command": command})
        ended = execute(job_id, WorkerContext(worker, database, new_worker().storage))
        job = job_row(job_id)
        assert ended is Outcome.ENDED
        assert job.state in DONE, job.error
        forget()
        with database.read() as session:
            rows = session.query(PseudoMask).filter_by(job_id=job_id).order_by(PseudoMask.pk)
            masks = [(m.annotation_id, m.segmentation, m.quality, m.extra) for m in rows]
        return job.metrics, masks

    unsharded = results(shard_images=0)
    assert len(unsharded[1]) > IMAGES
    for takers in (1, 2, 5):
        assert results(shard_images=SIZE, shard_takers=takers) == unsharded, takers


@pytest.mark.slow
def test_takers_make_what_one_makes(
    expected: list[tuple[Any, ...]],
    new_job: NewJob,
    sharded: Callable[..., WorkerContext],
    database: Database,
    job_row: Row,
    forget: Callable[[], None],
    client: TestClient,
) -> None:
    assert [row[:4] for row in expected] == [
        (0, ShardState.DONE, 3, 3),
        (1, ShardState.DONE, 3, 3),
        (2, ShardState.DONE, 2, 2),
    ]
    for takers in (2, 5):
        job_id = new_job()
        assert execute(job_id, sharded("--sleep", "0.1", takers=takers)) is Outcome.ENDED
        assert made(database, job_id) == expected
        owners = {shard.owner for shard in shards(database, job_id)}
        assert len(owners) == min(takers, 3)
        assert job_row(job_id).state in DONE
        forget()
    asking = Client(http=client, progress=False)
    counts = asking.job(job_id).shards
    assert counts is not None
    assert (counts.queued, counts.running, counts.done, counts.failed) == (0, 0, 3, 0)
    told = list(asking.shards(job_id))
    assert [(s.number, s.stage, s.state, s.images) for s in told] == [
        (0, "proposals", "done", 3),
        (1, "proposals", "done", 3),
        (2, "proposals", "done", 2),
    ]
    assert {shard.worker for shard in told} == owners
    assert all(shard.seconds > 0 for shard in told)


@pytest.mark.slow
def test_a_small_job_has_no_shards(
    new_job: NewJob, new_worker: NewWorker, database: Database, client: TestClient
) -> None:
    job_id = new_job()
    assert execute(job_id, new_worker(shard_images=IMAGES)) is Outcome.ENDED
    assert shards(database, job_id) == []
    asking = Client(http=client, progress=False)
    assert asking.job(job_id).shards is None
    assert list(asking.shards(job_id)) == []


@pytest.mark.slow
def test_results_go_when_the_job_is_over(
    expected: list[tuple[Any, ...]],
    settings: Settings,
    database: Database,
    stored: Callable[[str], set[str]],
    remove_deleted: Callable[[Settings], None],
) -> None:
    digests = {row[-1] for row in expected}
    assert digests <= stored(settings.storage)
    remove_deleted(settings)
    assert not digests & stored(settings.storage)
    with database.read() as session:
        assert session.scalars(select(Shard.sha).where(Shard.sha.is_not(None))).all() == []
        assert session.scalars(select(BlobPin)).all() == []


@pytest.mark.slow
def test_progress_counts_all_takers(
    new_job: NewJob, sharded: Callable[..., WorkerContext], database: Database
) -> None:
    job_id = new_job()
    worker = sharded("--sleep", "0.5", progress_event_seconds=0.1)
    assert execute(job_id, worker) is Outcome.ENDED
    with database.read() as session:
        told = [e.data for e in events.of_types(session, job_id, [EventType.PROGRESS])]
    steps = [data["step"] for data in told if data["stage"] == "proposals"]
    assert steps == sorted(steps)
    assert steps[-1] == IMAGES
    assert {data["of"] for data in told if data["stage"] == "proposals"} == {IMAGES}
    assert any(data["eta_seconds"] for data in told if data["stage"] == "proposals")


# what dies on the way


@pytest.fixture
def gate(tmp_path: Path) -> Path:
    """While it is there, processes wait at their first image, each with a file beside it."""
    path = tmp_path / "gates" / "gate"
    path.parent.mkdir()
    path.touch()
    return path


def waiting(gate: Path) -> int:
    """How many processes wait there."""
    return len(list(gate.parent.iterdir())) - gate.exists()


@pytest.mark.service
def test_killed_takers_and_a_killed_leader_change_nothing(
    expected: list[tuple[Any, ...]],
    new_job: NewJob,
    start: Start,
    start_taker: Callable[..., subprocess.Popen[bytes]],
    database: Database,
    job_row: Row,
    expire: Callable[[str], None],
    until: Until,
    alive: Callable[[int], bool],
    gate: Path,
) -> None:
    job_id, wait = new_job(), ("--wait-while", str(gate))

    def lead() -> subprocess.Popen[bytes]:
        command = {"SAPNET_SHARD_COMMAND": json.dumps(odd(*wait))}
        numbers = {"SAPNET_SHARD_IMAGES": str(SIZE), "SAPNET_SHARD_TAKERS": "1"}
        return start("worker.main", "train", trainer=("--steps", "4"), **command, **numbers)

    leader, taker = lead(), start_taker(*wait)
    until(lambda: waiting(gate) == 2, 300)
    assert {pid_of(s) for s in running(database, job_id)} == {leader.pid, taker.pid}
    processes = [int(file.suffix[1:]) for file in gate.parent.iterdir() if file.suffix]
    for process in (taker, leader):
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
    until(lambda: not any(map(alive, processes)))
    expire_all(database, job_id)
    expire(job_id)
    gate.unlink()
    lead()
    start_taker(*wait)
    until(lambda: job_row(job_id).state in DONE, 300)
    assert made(database, job_id) == expected
    assert all(s.failed_images == [] for s in shards(database, job_id))
    assert sum(s.attempt for s in shards(database, job_id)) == len(expected) + 2


@pytest.mark.service
def test_a_taker_that_was_stopped_past_its_lease_writes_nothing(
    expected: list[tuple[Any, ...]],
    new_job: NewJob,
    sharded: Callable[..., WorkerContext],
    start_taker: Callable[..., subprocess.Popen[bytes]],
    leads: Any,
    database: Database,
    until: Until,
    gate: Path,
    tmp_path: Path,
) -> None:
    job_id = new_job()
    stopped = start_taker("--wait-while", str(gate), SAPNET_LEASE_SECONDS="3")
    wait = leads(job_id, sharded("--wait-while", str(gate), takers=1))
    until(lambda: waiting(gate) == 2, 300)
    (shard,) = (s for s in running(database, job_id) if pid_of(s) == stopped.pid)
    os.kill(stopped.pid, signal.SIGSTOP)
    expire_all(database, job_id)
    gate.unlink()
    assert wait(300) is Outcome.ENDED
    after = made(database, job_id)
    os.kill(stopped.pid, signal.SIGCONT)
    until(lambda: b"shard lost" in (tmp_path / "output.txt").read_bytes())
    assert after == made(database, job_id) == expected
    (again,) = (s for s in shards(database, job_id) if s.pk == shard.pk)
    assert again.owner != shard.owner
    assert again.attempt > shard.attempt


@pytest.mark.service
def test_one_that_joins_late_helps(
    new_job: NewJob,
    new_worker: NewWorker,
    start_taker: Callable[..., subprocess.Popen[bytes]],
    leads: Any,
    database: Database,
    until: Until,
    gate: Path,
) -> None:
    job_id, options = new_job(), ("--sleep", "1", "--wait-while", str(gate))
    wait = leads(job_id, new_worker(shard_images=1, shard_takers=1, shard_command=odd(*options)))
    until(lambda: waiting(gate) == 1, 300)
    late = start_taker(*options)
    until(lambda: waiting(gate) == 2, 300)
    left = sum(s.state is not ShardState.DONE for s in shards(database, job_id))
    gate.unlink()
    assert wait(300) is Outcome.ENDED
    helped = [s for s in shards(database, job_id) if pid_of(s) == late.pid]
    assert len(helped) >= left / 3


@pytest.mark.slow
def test_hints_say_nothing_that_counts(
    expected: list[tuple[Any, ...]],
    cut: Callable[..., str],
    sharded: Callable[..., WorkerContext],
    database: Database,
    until: Until,
) -> None:
    """Without a broker there are none at all; whoever looks for shards finds them."""
    from worker.jobs.shard_crew import take_all

    worker = sharded()
    assert take_all(worker) is False
    with database.begin() as session:
        low = sorted(session.scalars(select(Shard.low)))
        high = sorted(session.scalars(select(Shard.high)))
    job_id = cut(count=len(expected))
    with database.begin() as session:
        for n, shard in enumerate(session.scalars(select(Shard).where(Shard.job_id == job_id))):
            shard.low, shard.high, shard.images = low[n], high[n], expected[n][2]
    assert take_all(worker) is True
    assert made(database, job_id) == expected
    assert take_all(worker) is False


@pytest.mark.service
@pytest.mark.parametrize("stack", ["full"], indirect=True)
def test_hints_that_come_thrice_or_too_late_change_nothing(
    expected: list[tuple[Any, ...]],
    new_job: NewJob,
    start_taker: Callable[..., subprocess.Popen[bytes]],
    sharded: Callable[..., WorkerContext],
    settings: Settings,
    leads: Any,
    database: Database,
    job_row: Row,
    until: Until,
    gate: Path,
) -> None:
    assert settings.broker_url is not None
    redis = Redis.from_url(settings.broker_url)
    redis.flushall()
    send_shard_hints(settings.broker_url, 3)  # of jobs that are over
    start_taker("--wait-while", str(gate))
    until(lambda: redis.llen(SHARD) == 0, 300)
    job_id = new_job()
    wait = leads(job_id, sharded("--wait-while", str(gate), takers=1))
    until(lambda: shards(database, job_id), 300)
    send_shard_hints(settings.broker_url, 2 * len(expected))
    until(lambda: waiting(gate) == 2, 300)
    gate.unlink()
    assert wait(300) is Outcome.ENDED
    assert made(database, job_id) == expected
    assert all(s.attempt == 1 for s in shards(database, job_id))
    assert len({s.owner for s in shards(database, job_id)}) > 1
    send_shard_hints(settings.broker_url, 3)
    until(lambda: redis.llen(SHARD) == 0)
    assert made(database, job_id) == expected
    assert job_row(job_id).state in DONE


# what is an image's fault, and what is not


@pytest.mark.slow
def test_an_image_that_kills_its_process_twice_is_left_out(
    new_job: NewJob, sharded: Callable[..., WorkerContext], database: Database, job_row: Row
) -> None:
    job_id = new_job()
    worker = sharded("--die-at", "2", max_bad_images=0.2)
    assert execute(job_id, worker) is Outcome.ENDED
    assert job_row(job_id).state is JobState.SUCCEEDED_WITH_WARNINGS
    assert all(s.state is ShardState.DONE for s in shards(database, job_id))
    failed_images = [entry for s in shards(database, job_id) for entry in s.failed_images]
    assert [(entry["image_id"], entry["stage"]) for entry in failed_images] == [(2, "proposals")]
    assert "SIGKILL" in failed_images[0]["error"]
    (first, *_) = shards(database, job_id)
    assert first.attempt == 3
    with database.read() as session:
        told = events.of_types(session, job_id, [EventType.IMAGE_SET_ASIDE])
    assert [event.data["image_id"] for event in told] == [2]


@pytest.mark.service
def test_too_many_of_them_fail_the_job(
    new_job: NewJob, sharded: Callable[..., WorkerContext], job_row: Row, database: Database
) -> None:
    job_id = new_job(**TINY)
    worker = sharded("--die-at", "2,5,8", max_bad_images=0.05)
    command = Settings.model_fields["trainer_command"].default
    real = worker.settings.model_copy(update={"trainer_command": command})
    context = WorkerContext(real, worker.database, worker.storage)
    assert execute(job_id, context) is Outcome.ENDED
    job = job_row(job_id)
    assert (job.state, job.reason) == (JobState.FAILED, "too_many_bad_images")
    assert "SIGKILL" in str(job.error)
    assert acquire_shard(database, "taker", real) is None


@pytest.mark.slow
def test_refused_memory_is_no_images_fault(
    new_job: NewJob,
    sharded: Callable[..., WorkerContext],
    leads: Any,
    database: Database,
    expected: list[tuple[Any, ...]],
    until: Until,
    tmp_path: Path,
) -> None:
    flag = tmp_path / "no memory"
    flag.touch()
    job_id = new_job()
    wait = leads(job_id, sharded("--no-memory-while", str(flag), max_attempts=10))
    until(lambda: any(s.reason == "attempt_failed" for s in shards(database, job_id)), 300)
    flag.unlink()
    assert wait(300) is Outcome.ENDED
    assert all(s.failed_images == [] for s in shards(database, job_id))
    assert made(database, job_id) == expected


@pytest.mark.slow
def test_a_shard_that_always_fails_fails_the_job(
    new_job: NewJob, sharded: Callable[..., WorkerContext], job_row: Row, tmp_path: Path
) -> None:
    flag = tmp_path / "no memory"
    flag.touch()
    job_id = new_job()
    worker = sharded("--no-memory-while", str(flag), max_attempts=1)
    assert execute(job_id, worker) is Outcome.ENDED
    job = job_row(job_id)
    assert (job.state, job.reason) == (JobState.FAILED, "crashed")
    assert "memory" in str(job.error)


@pytest.mark.slow
def test_cancel_ends_all_processes(
    new_job: NewJob,
    sharded: Callable[..., WorkerContext],
    leads: Any,
    database: Database,
    job_row: Row,
    until: Until,
    children: Callable[[int], list[int]],
    alive: Callable[[int], bool],
) -> None:
    job_id = new_job()
    before = set(children(os.getpid()))
    worker = sharded("--sleep", "30", takers=4)
    wait = leads(job_id, worker)
    until(lambda: len(running(database, job_id)) == 3, 300)
    until(lambda: len(set(children(os.getpid())) - before) >= 3)
    processes = set(children(os.getpid())) - before
    began = time.monotonic()
    with database.begin() as session:
        service.cancel(session, job_id)
    assert wait(300) is Outcome.ENDED
    until(lambda: not any(map(alive, processes)))
    assert time.monotonic() - began < 10
    assert job_row(job_id).state is JobState.CANCELLED
    assert running(database, job_id) == []
    assert not (worker.settings.data_dir / "jobs" / job_id).exists()


@pytest.mark.slow
def test_a_worker_that_shuts_down_gives_its_shards_back(
    expected: list[tuple[Any, ...]],
    new_job: NewJob,
    sharded: Callable[..., WorkerContext],
    leads: Any,
    database: Database,
    job_row: Row,
    until: Until,
) -> None:
    job_id, stop = new_job(), threading.Event()
    wait = leads(job_id, sharded("--sleep", "30", stopping=stop.is_set))
    until(lambda: len(running(database, job_id)) == 2, 300)
    stop.set()
    assert wait(300) is Outcome.RELEASED
    assert [(s.state, s.setbacks) for s in shards(database, job_id)] == [(ShardState.QUEUED, 0)] * 3
    assert job_row(job_id).state is JobState.QUEUED
    assert execute(job_id, sharded()) is Outcome.ENDED
    assert made(database, job_id) == expected
