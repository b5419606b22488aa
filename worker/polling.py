"""The worker without a broker: it looks for rows itself, and calls `execute` as Celery would.

A training of hours, an import of minutes and predictions must not wait for each other: each queue
has a thread of its own.
"""

import math
import threading
import time
from collections.abc import Callable
from dataclasses import replace

import structlog
from sqlalchemy import select
from sqlalchemy.exc import SQLAlchemyError

from app.db.models import ACTIVE, Job
from app.jobs.kinds import SHARD
from app.jobs.reaper import Reaper, waiting
from worker.background.describer import Describer
from worker.background.remover import Remover
from worker.background.tracking import Tracking
from worker.background.webhook_sender import WebhookSender
from worker.jobs.execute import execute
from worker.jobs.shard_crew import take_all
from worker.runtime.types import Outcome, WorkerContext, new_owner
from worker.runtime.workdir import discard

log = structlog.get_logger()

CLEAN_UP_SECONDS = 600.0


def run(worker: WorkerContext, stop: Callable[[], None]) -> None:
    """Work on the worker's queues until it is to stop.

    A thread that fails calls `stop`, so that the process ends, and a supervisor starts it again,
    instead of going on by half.
    """
    workers = [replace(worker, queues=(q,), owner=new_owner()) for q in worker.queues]

    def run_beside(other: WorkerContext) -> None:
        try:
            loop(other)
        finally:
            stop()

    threads = [threading.Thread(target=run_beside, args=(other,)) for other in workers[1:]]
    reaper = Reaper(worker.database, worker.settings)
    sender = WebhookSender(worker.database, worker.settings)
    remover = Remover(worker.database, worker.storage, worker.settings)
    tracking = Tracking(worker.database, worker.storage, worker.settings)
    describer = Describer(worker.database, worker.storage, worker.settings)
    for thread in (reaper, sender, remover, tracking, describer, *threads):
        thread.start()
    loop(workers[0])
    for thread in threads:
        thread.join()
    describer.stop()
    remover.stop()
    reaper.stop()
    tracking.stop()
    sender.stop()


def loop(worker: WorkerContext) -> None:
    """Works until the worker is told to stop. A database that is away is waited for."""
    cleaned = -math.inf
    while not worker.stopping():
        try:
            if time.monotonic() - cleaned >= CLEAN_UP_SECONDS:
                clean_up(worker)
                cleaned = time.monotonic()
            busy = work_once(worker)
        except SQLAlchemyError as error:
            log.warning("no answer from the database", error=repr(error))
            busy = False
        if not busy:
            time.sleep(worker.settings.poll_seconds)


def work_once(worker: WorkerContext) -> bool:
    """Take the oldest job that may be taken, or shards; whether there was anything."""
    if worker.queues == (SHARD,):
        return take_all(worker)
    with worker.database.read() as session:
        job_ids = waiting(session, queues=worker.queues)
    return any(execute(job_id, worker) is not Outcome.REFUSED for job_id in job_ids)


def clean_up(worker: WorkerContext) -> None:
    """Remove what crashes and cancels left behind on this machine.

    These are the work folders of jobs that have ended or are gone, and unfinished files. Rows and
    blobs are the remover's.
    """
    folder = worker.settings.folder("jobs")
    names = {path.name for path in folder.iterdir()}
    with worker.database.read() as session:
        active = set(session.scalars(select(Job.id).where(Job.state.in_(ACTIVE))))
    for name in names - active:
        discard(worker.settings, name)
    worker.storage.clean_up()
