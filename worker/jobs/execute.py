"""One job from claim to end. `execute` is what the embedded loop and the Celery task both call."""

import os
import secrets
import signal
import socket
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import Enum, auto
from pathlib import Path
from typing import Any, TypeVar

import structlog
from sqlalchemy.exc import (
    InterfaceError,
    NoResultFound,
    OperationalError,
    SQLAlchemyError,
    TimeoutError,
)

from app.db.models import Job, JobState, Reason
from app.db.session import Database
from app.errors import BlobMissing, is_disk_full
from app.jobs.events import append
from app.jobs.queue import QUEUES
from app.observability.log_text import presentable
from app.settings import Settings
from app.storage.store import Storage
from worker.jobs.context import Work
from worker.jobs.export_masks import run_export
from worker.jobs.import_dataset import run_import
from worker.jobs.predict import (
    prepare_onnx,
    prepare_predictions,
    record_onnx,
    record_predictions,
)
from worker.jobs.train_inputs import discard, prepare, workdir_of
from worker.jobs.train_results import BadResult, end, release, succeed
from worker.runtime.lease import Claim, Heartbeat, LeaseLost, Verdict, claim, write
from worker.runtime.metrics import observed
from worker.runtime.progress import STAGES_OF, Progress
from worker.runtime.subprocess import DONE, Trainer

log = structlog.get_logger()

AWAY = (OperationalError, InterfaceError, TimeoutError)  # the database, for the moment
DISK_FULL_ATTEMPTS = 2  # in a row that got no further
HERE: dict[str, Callable[[Work], None]] = {"import": run_import, "export": run_export}
"""Kinds of jobs that are worked on in this process, without a trainer."""
TRAINED: dict[str, tuple[Callable[..., Path | None], Callable[..., None]]] = {
    "train": (lambda *at: prepare(*at[:-1]), succeed),  # it has nothing to tell
    "predict": (prepare_predictions, record_predictions),
    "onnx": (prepare_onnx, record_onnx),
}
"""Kinds that a process of their own does: what it needs, as a job file; and what came of it."""

Result = TypeVar("Result")


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
    """What a worker works with. `stopping` says whether it was told to go home; `queues` which
    jobs the embedded one looks for."""

    settings: Settings
    database: Database
    storage: Storage
    stopping: Callable[[], bool] = lambda: False
    queues: tuple[str, ...] = QUEUES
    owner: str = field(default_factory=new_owner)


@observed
def execute(job_id: str, worker: Worker) -> Outcome:
    """Claim the job and bring it to its end, or leave it to whoever has it. Never raises for what
    can go wrong with a job: that is written into its row."""
    logger = log.bind(job=job_id)
    try:
        held = claim(worker.database, job_id, worker.owner, worker.settings)
        if held is None:
            return Outcome.REFUSED
        logger = log.bind(job=job_id, attempt=held.attempt)
        logger.info("job claimed")
        with Heartbeat(worker.database, held, worker.settings, worker.stopping) as heart:
            outcome = _attempt(worker, held, heart)
    except (LeaseLost, NoResultFound):
        logger.warning("job lost to another worker, or deleted")
        return Outcome.LOST
    except SQLAlchemyError as error:
        logger.error("the database is away, the job is left to others", error=repr(error))
        return Outcome.LOST
    if outcome is Outcome.ENDED:
        discard(worker.settings, job_id)
    logger.info("job left", outcome=outcome.name)
    return outcome


def _attempt(worker: Worker, held: Claim, heart: Heartbeat) -> Outcome:
    if held.cancel_requested:
        return _cancelled(worker, held, heart)
    if held.setbacks > worker.settings.max_attempts:
        return _give_up(worker, held, heart)
    try:
        kind = _kind(worker, held)
        if kind in HERE:
            return _work(worker, held, heart, HERE[kind])
        return _run(worker, held, heart, *TRAINED[kind])
    except BlobMissing as error:
        words = f"{error.detail} ({error.extra['sha256']})"
        return _fail(worker, held, heart, Reason.BLOB_MISSING, words)
    except BadResult as error:
        return _fail(worker, held, heart, Reason.BAD_RESULT, str(error))
    except (LeaseLost, SQLAlchemyError):
        raise
    except Exception as error:  # disk full, storage away, no memory for a process: try again
        bug = not isinstance(error, OSError)
        log.error("attempt failed", job=held.job_id, error=repr(error), exc_info=bug)
        reason = Reason.DISK_FULL if is_disk_full(error) else Reason.ATTEMPT_FAILED
        return _setback(worker, held, heart, reason, f"{type(error).__name__}: {error}")


def _run(
    worker: Worker,
    held: Claim,
    heart: Heartbeat,
    prepare: Callable[..., Path | None],
    succeed: Callable[..., None],
) -> Outcome:
    def should_stop() -> bool:
        return heart.verdict is not None

    def tell(stage: str, step: int, of: int) -> None:
        event = {"event": "progress", "stage": stage, "step": step, "of": of}
        if values := progress.take(event):
            _note(worker, held, progress, values)

    progress = _patiently(heart, lambda: _progress(worker, held))
    at = (worker.database, worker.storage, worker.settings, held.job_id)
    job_file = prepare(*at, should_stop, tell)
    code = None
    if job_file is not None:
        code = _train(worker, held, job_file, progress, should_stop)
    if heart.verdict is Verdict.LOST:
        raise LeaseLost(held.job_id)
    if code == DONE:
        return _succeed(worker, held, heart, progress, succeed)
    if heart.verdict is Verdict.CANCELLED:
        return _cancelled(worker, held, heart)
    if heart.verdict is Verdict.SHUTDOWN:
        return _release(worker, held, heart, Reason.WORKER_STOPPED)
    if progress.error is None:
        return _setback(worker, held, heart, Reason.TRAINER_DIED, how_it_died(code))
    reason, message = str(progress.error.get("reason")), str(progress.error.get("message"))
    if reason == Reason.DISK_FULL:
        return _setback(worker, held, heart, Reason.DISK_FULL, message)
    return _fail(worker, held, heart, reason, message)


def _work(worker: Worker, held: Claim, heart: Heartbeat, work: Callable[[Work], None]) -> Outcome:
    """Work that needs no trainer, done in this process; it ends the job by itself."""
    progress = _patiently(heart, lambda: _progress(worker, held))

    def tell(stage: str, step: int, of: int) -> None:
        if heart.verdict is not None:
            raise _Interrupted
        event = {"event": "progress", "stage": stage, "step": step, "of": of}
        if values := progress.take(event):
            _note(worker, held, progress, values)

    at = (worker.database, worker.storage, worker.settings, held, tell)
    try:
        work(Work(*at, lambda action: _patiently(heart, action)))
    except _Interrupted:
        pass
    except LeaseLost:
        # A cancel that came first is honoured; where the job is another's, this raises too.
        return _cancelled(worker, held, heart)
    else:
        return Outcome.ENDED
    if heart.verdict is Verdict.LOST:
        raise LeaseLost(held.job_id)
    if heart.verdict is Verdict.CANCELLED:
        return _cancelled(worker, held, heart)
    return _release(worker, held, heart, Reason.WORKER_STOPPED)


class _Interrupted(Exception):
    """The heartbeat has a verdict."""


def _kind(worker: Worker, held: Claim) -> str:
    with worker.database.read() as session:
        return session.get_one(Job, held.job_id).kind


def _progress(worker: Worker, held: Claim) -> Progress:
    with worker.database.read() as session:
        job = session.get_one(Job, held.job_id)
        return Progress(job.stage, job.step, job.warnings, STAGES_OF[job.kind])


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
                _note(worker, held, progress, values)
        if values := progress.flush():
            _note(worker, held, progress, values)
        return trainer.wait()
    except BaseException:
        trainer.kill()
        raise


def _note(worker: Worker, held: Claim, progress: Progress, values: dict[str, Any]) -> None:
    """Write how far the trainer is; while the database is away, keep it for the next time. The
    training goes on as long as the lease does."""
    try:
        events = progress.journal.of(values, worker.settings.progress_event_seconds)
        with worker.database.begin() as session:
            write(session, held, **values)
            append(session, held.job_id, events)
        progress.journal.told(events)
    except AWAY as error:
        log.warning("progress not written", job=held.job_id, error=repr(error))
        progress.keep(values)


def _patiently(heart: Heartbeat, action: Callable[[], Result]) -> Result:
    """What `action` gives, tried again while the database is away and the lease lasts. It may be
    done twice: where the first time took hold, the fence refuses the second."""
    while True:
        try:
            return action()
        except AWAY as error:
            if heart.verdict is Verdict.LOST:
                raise
            log.warning("no answer from the database, trying again", error=repr(error))
            time.sleep(1.0)


def _succeed(
    worker: Worker,
    held: Claim,
    heart: Heartbeat,
    progress: Progress,
    succeed: Callable[..., None],
) -> Outcome:
    workdir = workdir_of(worker.settings, held.job_id)
    at = (worker.database, worker.storage, held, workdir)
    try:
        _patiently(heart, lambda: succeed(*at, progress.warnings))
    except LeaseLost:
        # A cancel that came first is honoured; where the job is another's, this raises too.
        return _cancelled(worker, held, heart)
    return Outcome.ENDED


def _end(
    worker: Worker,
    held: Claim,
    heart: Heartbeat,
    state: JobState,
    reason: str,
    error: str | None = None,
) -> Outcome:
    workdir = workdir_of(worker.settings, held.job_id)
    at = (worker.database, worker.storage, held, workdir)
    _patiently(heart, lambda: end(*at, state, reason=reason, error=error))
    return Outcome.ENDED


def _cancelled(worker: Worker, held: Claim, heart: Heartbeat) -> Outcome:
    return _end(worker, held, heart, JobState.CANCELLED, Reason.CANCEL_REQUESTED)


def _fail(worker: Worker, held: Claim, heart: Heartbeat, reason: str, error: str) -> Outcome:
    error = presentable(error)
    log.error("job failed", job=held.job_id, reason=reason, error=error)
    return _end(worker, held, heart, JobState.FAILED, reason, error)


def _give_up(worker: Worker, held: Claim, heart: Heartbeat) -> Outcome:
    with worker.database.read() as session:
        last = session.get_one(Job, held.job_id).error or "its worker ended without a word"
    tries = worker.settings.max_attempts
    words = f"{tries} attempts in a row got no further. Last: {last}"
    return _fail(worker, held, heart, Reason.CRASHED, words)


def _release(worker: Worker, held: Claim, heart: Heartbeat, reason: Reason) -> Outcome:
    _patiently(heart, lambda: release(worker.database, held, reason))
    return Outcome.RELEASED


def _setback(worker: Worker, held: Claim, heart: Heartbeat, reason: Reason, error: str) -> Outcome:
    """Back into the queue after what may not happen again; a disk that stays full is told soon."""
    if reason is Reason.DISK_FULL and held.setbacks >= DISK_FULL_ATTEMPTS:
        return _fail(worker, held, heart, reason, error)
    why = presentable(error)
    delay = _patiently(heart, lambda: release(worker.database, held, reason, why))
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
