"""The worker without a broker: it looks for rows itself, and calls `execute` as Celery would."""

import math
import time

import structlog
from sqlalchemy import select
from sqlalchemy.exc import SQLAlchemyError

from app.models import ACTIVE, Job
from worker.fence import waiting
from worker.jobs import Outcome, Worker, execute
from worker.prepare import discard

log = structlog.get_logger()

TIDY_SECONDS = 600.0


def loop(worker: Worker) -> None:
    """Works until the worker is told to stop. A database that is away is waited for."""
    tidied = -math.inf
    while not worker.stopping():
        try:
            if time.monotonic() - tidied >= TIDY_SECONDS:
                tidy(worker)
                tidied = time.monotonic()
            busy = work_once(worker)
        except SQLAlchemyError as error:
            log.warning("no answer from the database", error=repr(error))
            busy = False
        if not busy:
            time.sleep(worker.settings.poll_seconds)


def work_once(worker: Worker) -> bool:
    """Take the oldest job that may be taken; whether there was one."""
    with worker.database.read() as session:
        found = waiting(session)
    return any(execute(job_id, worker) is not Outcome.REFUSED for job_id in found)


def tidy(worker: Worker) -> None:
    """Remove the work folders of jobs that have ended or are gone, left by a crash or a cancel."""
    folder = worker.settings.folder("jobs")
    names = {path.name for path in folder.iterdir()}
    with worker.database.read() as session:
        active = set(session.scalars(select(Job.id).where(Job.state.in_(ACTIVE))))
    for name in names - active:
        discard(worker.settings, name)
