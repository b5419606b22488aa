"""Celery's side of a job: an id in, `execute`, nothing else."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import structlog
from celery import Celery
from celery.exceptions import Reject
from sqlalchemy.exc import SQLAlchemyError

from app.db.session import Database
from app.jobs.queue import SHARDS_TASK, TASK, send_shard_hints
from app.jobs.reaper import run_once
from app.jobs.shards import count_due
from app.settings import Settings
from app.storage.store import make_storage
from worker.jobs.execute import execute
from worker.jobs.shard_crew import take_all
from worker.polling import clean_up
from worker.runtime.types import Outcome, WorkerContext

log = structlog.get_logger()

SHARD_SECONDS = 300.0
"""After so long of shards, what waits in the other queues of a worker has its turn."""


def register(celery: Celery, settings: Settings, stopping: Callable[[], bool]) -> None:
    """Register the tasks that do a job, or shards; workers that shut down put them back."""

    def execute_job(job_id: str) -> None:
        if stopping():
            raise Reject("this worker is shutting down", requeue=True)
        with _database(settings) as database:
            worker = WorkerContext(settings, database, make_storage(settings), stopping)
            outcome = execute(job_id, worker)
        if outcome is Outcome.RELEASED:
            raise Reject("the job may be taken up again at once", requeue=True)

    def take_shards() -> None:
        if stopping():
            raise Reject("this worker is shutting down", requeue=True)
        with _database(settings) as database:
            worker = WorkerContext(settings, database, make_storage(settings), stopping)
            take_all(worker, SHARD_SECONDS)
            with database.read() as session:
                more = count_due(session)
        send_shard_hints(settings.broker_url, min(more, 1))

    celery.task(name=TASK)(execute_job)
    celery.task(name=SHARDS_TASK)(take_shards)


def reaper_round(settings: Settings) -> None:
    """The reaper's round, in a worker's main process."""
    with _database(settings) as database:
        run_once(database, settings)


def clean_up_round(settings: Settings) -> None:
    """What a worker without a broker does now and then as well."""
    with _database(settings) as database:
        try:
            clean_up(WorkerContext(settings, database, make_storage(settings)))
        except (OSError, SQLAlchemyError) as error:
            log.warning("not cleaned up, next time then", error=repr(error))


@contextmanager
def _database(settings: Settings) -> Iterator[Database]:
    """Opened where it is used: a connection must not cross the pool's fork."""
    database = Database(settings.database)
    try:
        yield database
    finally:
        database.dispose()
