"""One job from claim to end. `execute` is what the embedded loop and the Celery task both call."""

import os
import secrets
import signal
import socket
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import Enum, auto
from pathlib import Path
from typing import Any

import structlog
from sqlalchemy.exc import NoResultFound, SQLAlchemyError

from app.db import Database
from app.errors import BlobMissing
from app.models import Job, JobState
from app.settings import Settings
from app.storage import Storage
from worker.fence import Claim, Heartbeat, LeaseLost, Verdict, claim, write
from worker.prepare import discard, prepare, workdir_of
from worker.progress import Progress
from worker.record import BadResult, end, release, succeed
from worker.trainer import DONE, Trainer

log = structlog.get_logger()


def new_owner() -> str:
    return f"{socket.gethostname()}:{os.getpid()}:{secrets.token_hex(4)}"[-128:]


class Outcome(Enum):
    REFUSED = auto()  # in other hands, finished, or not due
    ENDED = auto()  # succeeded, failed or cancelled
    RELEASED = auto()  # queued again, may be taken at once
    DELAYED = auto()  # queued again, to be taken later
    LOST = auto()  # somebody else has it now, or the database is away


@dataclass(frozen=True)
class Worker:
    """What a worker works with. `stopping` says whether it was told to go home."""

    settings: Settings
    database: Database
    storage: Storage
    stopping: Callable[[], bool] = lambda: False
    owner: str = field(default_factory=new_owner)


def execute(job_id: str, worker: Worker) -> Outcome:
    """Claim the job and bring it to its end, or leave it to whoever has it. Never raises for what
    can go wrong with a job: that is written into its row."""
    held = claim(worker.database, job_id, worker.owner, worker.settings)
    if held is None:
        return Outcome.REFUSED
    logger = log.bind(job=job_id, attempt=held.attempt)
    logger.info("job claimed")
    try:
        with Heartbeat(worker.database, held, worker.settings, worker.stopping) as heart:
            outcome = _attempt(worker, held, heart)
    except (LeaseLost, NoResultFound):
        logger.warning("job lost to another worker, or deleted")
        return Outcome.LOST
    except SQLAlchemyError as error:
        logger.error("the database is away; the lease will run out", error=repr(error))
        return Outcome.LOST
    if outcome is Outcome.ENDED:
        discard(worker.settings, job_id)
    logger.info("job left", outcome=outcome.name)
    return outcome


def _attempt(worker: Worker, held: Claim, heart: Heartbeat) -> Outcome:
    if held.cancel_requested:
        return _end(worker, held, JobState.CANCELLED)
    if held.setbacks > worker.settings.max_attempts:
        return _give_up(worker, held)
    try:
        return _run(worker, held, heart)
    except BlobMissing as error:
        return _fail(worker, held, "blob_missing", f"{error.detail} ({error.extra['sha256']})")
    except BadResult as error:
        return _fail(worker, held, "bad_result", str(error))
    except OSError as error:  # disk full, storage away, no memory for a process
        log.error("attempt failed", job=held.job_id, error=repr(error))
        return _release(worker, held, setback=True, error=f"{type(error).__name__}: {error}")


def _run(worker: Worker, held: Claim, heart: Heartbeat) -> Outcome:
    def should_stop() -> bool:
        return heart.verdict is not None

    job_file = prepare(worker.database, worker.storage, worker.settings, held.job_id, should_stop)
    progress = _progress(worker, held)
    code = None
    if job_file is not None:
        code = _train(worker, held, job_file, progress, should_stop)
    if heart.verdict is Verdict.LOST:
        raise LeaseLost(held.job_id)
    if code == DONE:
        return _succeed(worker, held, progress)
    if heart.verdict is Verdict.CANCELLED:
        return _end(worker, held, JobState.CANCELLED)
    if heart.verdict is Verdict.SHUTDOWN:
        return _release(worker, held, setback=False)
    if progress.error is not None:
        reason, message = progress.error.get("reason"), progress.error.get("message")
        return _fail(worker, held, str(reason), str(message))
    return _release(worker, held, setback=True, error=how_it_died(code))


def _progress(worker: Worker, held: Claim) -> Progress:
    with worker.database.read() as session:
        job = session.get_one(Job, held.job_id)
        return Progress(job.stage, job.step)


def _train(
    worker: Worker,
    held: Claim,
    job_file: Path,
    progress: Progress,
    should_stop: Callable[[], bool],
) -> int:
    trainer = Trainer(
        [*worker.settings.trainer_command, str(job_file)],
        workdir=job_file.parent,
        should_stop=should_stop,
        grace_seconds=worker.settings.stop_grace_seconds,
    )
    try:
        for event in trainer.events():
            if values := progress.take(event):
                _write(worker, held, values)
        if values := progress.flush():
            _write(worker, held, values)
        return trainer.wait()
    except BaseException:
        trainer.kill()
        raise


def _write(worker: Worker, held: Claim, values: dict[str, Any]) -> None:
    with worker.database.begin() as session:
        write(session, held, **values)


def _succeed(worker: Worker, held: Claim, progress: Progress) -> Outcome:
    workdir = workdir_of(worker.settings, held.job_id)
    try:
        succeed(worker.database, worker.storage, held, workdir, progress.warnings)
    except LeaseLost:
        # A cancel that came first is honoured; where the job is another's, this raises too.
        return _end(worker, held, JobState.CANCELLED)
    return Outcome.ENDED


def _end(worker: Worker, held: Claim, state: JobState, **values: str) -> Outcome:
    workdir = workdir_of(worker.settings, held.job_id)
    end(worker.database, worker.storage, held, workdir, state, **values)
    return Outcome.ENDED


def _fail(worker: Worker, held: Claim, reason: str, error: str) -> Outcome:
    log.error("job failed", job=held.job_id, reason=reason, error=error)
    return _end(worker, held, JobState.FAILED, reason=reason, error=error)


def _give_up(worker: Worker, held: Claim) -> Outcome:
    with worker.database.read() as session:
        last = session.get_one(Job, held.job_id).error or "its worker ended without a word"
    tries = worker.settings.max_attempts
    return _fail(worker, held, "crashed", f"{tries} attempts in a row got no further. Last: {last}")


def _release(worker: Worker, held: Claim, *, setback: bool, error: str | None = None) -> Outcome:
    delay = release(worker.database, held, setback=setback, error=error)
    return Outcome.DELAYED if delay else Outcome.RELEASED


def how_it_died(code: int | None) -> str:
    """In words, for the user. code: of subprocess.Popen, negative for a signal."""
    if code is None:
        return "the trainer was never started"
    if code == -signal.SIGKILL:
        return "the trainer was killed (SIGKILL): the machine may be out of memory"
    if code < 0:
        return f"the trainer was killed by {signal.Signals(-code).name}"
    return f"the trainer ended with code {code} and gave no reason; see the job's log"
