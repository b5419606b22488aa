"""Celery's side of a job: an id in, `execute`, nothing else."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import structlog
from celery import Celery
from celery.exceptions import Reject
from sqlalchemy.exc import SQLAlchemyError

from app.db.session import Database
from app.jobs.queue import TASK
from app.jobs.reaper import run_once
from app.settings import Settings
from app.storage.store import make_storage
from worker.jobs.execute import execute
from worker.polling import clean_up
from worker.runtime.types import Outcome, WorkerContext

log = structlog.get_logger()


def register(celery: Celery, settings: Settings, stopping: Callable[[], bool]) -> None:
    """Register the task that does a job; workers that shut down put it back."""

    def execute_job(job_id: str) -> None:
        if stopping():
            raise Reject("this worker is shutting down", requeue=True)
        with _database(settings) as database:
            worker = WorkerContext(settings, database, make_storage(settings), stopping)
            outcome = execute(job_id, worker)
        if outcome is Outcome.RELEASED:
            raise Reject("the job may be taken up again at once", requeue=True)

    celery.task(name=TASK)(execute_job)


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
