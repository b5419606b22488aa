"""Jobs whose worker is gone: queued again, or cancelled, once, by whoever looks first."""

import threading
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from fastapi.testclient import TestClient

from app.db.columns import now
from app.db.models import Job, JobState
from app.db.session import Database
from app.jobs import kinds, queue, reaper
from app.jobs.reaper import Reaper, reap, run_once, shorten_leases, waiting
from app.main import create_app
from app.settings import Settings

NewJob = Callable[..., str]
Row = Callable[[str], Job]


def lost(new_job: NewJob, seconds: float = -1.0, **values: Any) -> str:
    """A job in the hands of a worker whose lease runs out in so many seconds."""
    lease = now() + timedelta(seconds=seconds)
    given = {"state": JobState.RUNNING, "owner": "gone", "attempt": 1, "lease_until": lease}
    return new_job(**{**given, **values})


def test_an_expired_lease_is_queued_again_with_its_reason(
    new_job: NewJob, database: Database, job_row: Row
) -> None:
    gone, held, queued = lost(new_job), lost(new_job, 30), new_job()
    assert reap(database) == [(gone, "train")]
    job = job_row(gone)
    assert (job.state, job.reason, job.owner, job.attempt) == (
        JobState.QUEUED,
        "worker_lost",
        None,
        1,
    )
    assert "last checkpoint" in str(job.error)
    assert job_row(held).state is JobState.RUNNING
    assert job_row(queued).reason is None
    assert reap(database) == []


def test_a_cancel_whose_worker_is_gone_is_carried_out(
    new_job: NewJob, database: Database, job_row: Row
) -> None:
    job_id = lost(new_job, state=JobState.CANCELLING, cancel_requested=True)
    assert reap(database) == []
    job = job_row(job_id)
    assert (job.state, job.reason, job.error) == (JobState.CANCELLED, "cancel_requested", None)
    assert job.finished_at is not None


def test_of_many_who_look_one_takes_it_up(new_job: NewJob, database: Database) -> None:
    jobs = [lost(new_job) for _ in range(3)]
    found: list[tuple[str, str]] = []
    barrier = threading.Barrier(4)

    def run() -> None:
        barrier.wait()
        found.extend(reap(database))

    threads = [threading.Thread(target=run) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(job_id for job_id, _ in found) == sorted(jobs)


@pytest.mark.slow
def test_the_api_looks_too(
    settings: Settings,
    database: Database,
    new_job: NewJob,
    job_row: Row,
    until: Callable[..., None],
) -> None:
    job_id = lost(new_job)
    with TestClient(create_app(settings.model_copy(update={"reap_seconds": 0.05}))):
        until(lambda: job_row(job_id).state is JobState.QUEUED)


def test_queues_are_apart(new_job: NewJob, database: Database) -> None:
    training, coming_in = new_job(id="1"), new_job(id="2", kind="import")
    with database.read() as session:
        assert waiting(session, 9) == [training, coming_in]
        assert waiting(session, 9, (kinds.TRAIN,)) == [training]
        assert waiting(session, 9, (kinds.IO,)) == [coming_in]
        assert waiting(session, 9, (kinds.PREDICT,)) == []


def test_what_waits_is_sent_into_an_empty_queue_alone(
    new_job: NewJob, database: Database, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    sent: list[tuple[str, str]] = []
    monkeypatch.setattr(reaper, "send", lambda job, _url, queue: sent.append((job, queue)))
    depths = {"train": 2, "io": 0, "predict": 0}
    monkeypatch.setattr(reaper, "depths", lambda _url: depths)
    connected = settings.model_copy(update={"broker_url": "redis://nowhere"})
    new_job()
    coming_in, gone = new_job(kind="import"), lost(new_job)
    run_once(database, connected)
    assert sent == [(gone, "train"), (coming_in, "io")]


@pytest.mark.slow
def test_a_broker_that_is_away_ends_no_reaper(
    new_job: NewJob, database: Database, settings: Settings, job_row: Row
) -> None:
    job_id = lost(new_job)
    away = settings.model_copy(update={"broker_url": "redis://127.0.0.1:1/0", "reap_seconds": 0.01})
    looking = Reaper(database, away)
    looking.start()
    while job_row(job_id).state is not JobState.QUEUED:
        assert looking.is_alive()
    looking.stop()


@pytest.mark.slow
def test_every_app_says_how_long_a_message_stays_hidden() -> None:
    """One that says less redelivers the tasks of all."""
    from worker.celery_app import make_celery

    day = 24 * 3600
    url = "redis://127.0.0.1:1/0"
    settings = Settings(_env_file=None, broker_url=url)  # type: ignore[call-arg]
    for app in (make_celery(settings), queue._celery(url)):
        assert app.conf.broker_transport_options["visibility_timeout"] == day
        assert app.conf.result_backend_transport_options["visibility_timeout"] == day
        assert app.conf.visibility_timeout == day
        assert app.conf.task_ignore_result


@pytest.mark.both_stacks
def test_a_clock_that_goes_back_keeps_no_lease_longer(
    new_job: NewJob, database: Database, settings: Settings, job_row: Row
) -> None:
    """Rows as a worker wrote them an hour ahead of the clock as it is now."""
    dead = lost(new_job, 3600 + settings.lease_seconds)
    cancelled = lost(new_job, 3600, state=JobState.CANCELLING, cancel_requested=True)
    alive = lost(new_job, settings.lease_seconds)
    lease_of_living = job_row(alive).lease_until
    assert shorten_leases(database, settings) == 2
    for job_id in (dead, cancelled):
        until = job_row(job_id).lease_until
        assert until is not None
        assert now() < until <= now() + timedelta(seconds=settings.lease_seconds)
        assert job_row(job_id).owner == "gone", "it is not taken away: who lives goes on"
    assert job_row(alive).lease_until == lease_of_living
    assert shorten_leases(database, settings) == 0
    shorter = settings.model_copy(update={"lease_seconds": 0.001})
    run_once(database, shorter)
    while job_row(dead).state is not JobState.QUEUED:
        run_once(database, shorter)
    assert job_row(cancelled).state is JobState.CANCELLED


def test_a_job_that_waits_does_not_wait_for_a_clock_that_went_back(
    new_job: NewJob, database: Database
) -> None:
    delayed = new_job(id="1", lease_until=now() + timedelta(seconds=60))
    with database.read() as session:
        assert waiting(session, 9) == []
    stepped = new_job(id="2", lease_until=now() + timedelta(hours=1))
    with database.read() as session:
        assert waiting(session, 9) == [stepped] != [delayed]
