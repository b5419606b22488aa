"""Celery's side of a job: an id in, `execute`, nothing else."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import structlog
from celery import Celery
from celery.exceptions import Reject
from kombu.exceptions import KombuError, OperationalError
from sqlalchemy.exc import SQLAlchemyError

from app.db import Database
from app.queue import TASK, TRAIN
from app.settings import Settings
from app.storage import make_storage
from worker.fence import waiting
from worker.jobs import Outcome, Worker, execute

log = structlog.get_logger()


def register(celery: Celery, settings: Settings, stopping: Callable[[], bool]) -> None:
    def execute_job(job_id: str) -> None:
        if stopping():
            raise Reject("this worker is going home", requeue=True)
        with _database(settings) as database:
            worker = Worker(settings, database, make_storage(settings), stopping)
            outcome = execute(job_id, worker)
        if outcome is Outcome.RELEASED:
            raise Reject("the job may be taken up again at once", requeue=True)

    celery.task(name=TASK)(execute_job)


def reconcile(celery: Celery, settings: Settings) -> None:
    """Send the ids of jobs that wait in the database while the queue is empty: their message was
    never sent, or was lost, or their worker died, or their delay is over.

    A queue that is not empty is left alone, so that a backlog does not grow by being counted.
    """
    try:
        with celery.connection_for_write() as connection, connection.channel() as channel:
            depth = channel.queue_declare(queue=TRAIN, passive=False, durable=True).message_count
        if depth:
            return
        with _database(settings) as database, database.read() as session:
            lost = waiting(session, limit=100)
        for job_id in lost:
            celery.send_task(TASK, args=[job_id], queue=TRAIN)
            log.info("job sent again", job=job_id)
    except (KombuError, OperationalError, OSError, SQLAlchemyError) as error:
        log.warning("reconcile failed, next time then", error=repr(error))


@contextmanager
def _database(settings: Settings) -> Iterator[Database]:
    """Opened where it is used: a connection must not cross the pool's fork."""
    database = Database(settings.database)
    try:
        yield database
    finally:
        database.dispose()
