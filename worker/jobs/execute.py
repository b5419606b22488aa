"""One attempt at a job, from its lease to its end.

The embedded loop and Celery's task call `execute`.
"""

from pathlib import Path
from typing import Any

import structlog
from sqlalchemy.exc import NoResultFound, SQLAlchemyError

from app.db.models import Job, JobKind, JobState, Reason
from app.errors import BlobMissing, is_disk_full
from app.jobs.events import append
from app.jobs.kinds import KINDS
from app.observability.log_text import presentable
from sapnet.pipeline.contract import ExitCode
from worker.jobs.context import InlineHandler, JobContext, StopRequested, SubprocessHandler
from worker.jobs.handlers import handler_of
from worker.jobs.transitions import JobFails, finish_without_results, release
from worker.runtime.heartbeat import DATABASE_AWAY, Heartbeat, StopReason
from worker.runtime.lease import Lease, LeaseLost, acquire_lease, write
from worker.runtime.metrics import observed
from worker.runtime.process_end import how_it_died
from worker.runtime.progress import Progress
from worker.runtime.subprocess import Event, Trainer
from worker.runtime.types import Outcome, WorkerContext
from worker.runtime.workdir import discard

log = structlog.get_logger()

DISK_FULL_ATTEMPTS = 2  # in a row that got no further


@observed
def execute(job_id: str, worker: WorkerContext) -> Outcome:
    """Take the job and bring it to its end, or leave it to whoever has it.

    Never raises for what can go wrong with a job: that is written into its row.
    """
    logger = log.bind(job=job_id)
    try:
        lease = acquire_lease(worker.database, job_id, worker.owner, worker.settings)
        if lease is None:
            return Outcome.REFUSED
        logger = log.bind(job=job_id, attempt=lease.attempt)
        logger.info("lease acquired")
        with Heartbeat(worker.database, lease, worker.settings, worker.stopping) as heartbeat:
            outcome = Attempt(worker, lease, heartbeat).run()
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


class Attempt:
    """One attempt at a job whose lease this worker has."""

    def __init__(self, worker: WorkerContext, lease: Lease, heartbeat: Heartbeat) -> None:
        self._worker, self._settings = worker, worker.settings
        self._lease, self._heartbeat = lease, heartbeat
        self._context = JobContext(
            worker.database,
            worker.storage,
            worker.settings,
            lease,
            report_progress=self._report_progress,
            report=self._report,
            check_stop=self._check_stop,
            retry=heartbeat.retry,
        )

    def run(self) -> Outcome:
        """Work on the job until it ends, or until it must be left to others.

        Raises:
            LeaseLost: another worker has the job.
            SQLAlchemyError: the database is away for longer than the lease lasts.
        """
        if self._lease.cancel_requested:
            return self._cancel()
        if self._lease.setbacks > self._settings.max_attempts:
            return self._give_up()
        try:
            kind, self._progress = self._heartbeat.retry(self._kind_and_progress)
            handler = handler_of(kind)
            if isinstance(handler, InlineHandler):
                return self._run_inline(handler)
            return self._run_subprocess(handler)
        except BlobMissing as error:
            message = f"{error.detail} ({error.extra['sha256']})"
            return self._fail(Reason.BLOB_MISSING, message)
        except JobFails as error:
            return self._fail(error.reason, str(error))
        except NoResultFound:
            return self._row_is_gone()
        except (LeaseLost, SQLAlchemyError):
            raise
        except Exception as error:  # disk full, storage away, no memory for a process: try again
            bug = not isinstance(error, OSError)
            log.error("attempt failed", job=self._lease.job_id, error=repr(error), exc_info=bug)
            reason = Reason.DISK_FULL if is_disk_full(error) else Reason.ATTEMPT_FAILED
            return self._set_back(reason, f"{type(error).__name__}: {error}")

    def _run_inline(self, handler: InlineHandler) -> Outcome:
        try:
            handler.run(self._context)
        except StopRequested:
            return self._stop()
        except LeaseLost:
            # A cancel that came first is honoured; where the job is another's, this raises too.
            return self._cancel()
        return Outcome.ENDED

    def _run_subprocess(self, handler: SubprocessHandler) -> Outcome:
        try:
            code = self._run_trainer(handler.prepare(self._context))
        except StopRequested:
            return self._stop()
        if self._heartbeat.stop_reason is StopReason.LOST:
            raise LeaseLost(self._lease.job_id)
        if code == ExitCode.DONE:
            return self._record(handler)
        if self._heartbeat.stop_reason is not None:
            return self._stop()
        return self._process_failed(code)

    def _run_trainer(self, job_file: Path) -> int:
        """Start the job's process, write its progress, and wait for its end: its exit code."""
        trainer = Trainer(
            [*self._settings.trainer_command, str(job_file)],
            workdir=job_file.parent,
            should_stop=lambda: self._heartbeat.stop_reason is not None,
            grace_seconds=self._settings.stop_grace_seconds,
            environment=self._settings.trainer_environment,
        )
        try:
            for event in trainer.events():
                self._write_progress(self._progress.take(event))
            self._write_progress(self._progress.flush())
            return trainer.wait()
        except BaseException:
            trainer.kill()
            raise

    def _record(self, handler: SubprocessHandler) -> Outcome:
        try:
            self._heartbeat.retry(lambda: handler.record(self._context, self._progress.warnings))
        except LeaseLost:
            # A cancel that came first is honoured; where the job is another's, this raises too.
            return self._cancel()
        return Outcome.ENDED

    def _process_failed(self, code: int) -> Outcome:
        error = self._progress.error
        if error is None:
            return self._set_back(Reason.TRAINER_DIED, how_it_died(code))
        reason, message = str(error.get("reason")), str(error.get("message"))
        if reason in (Reason.DISK_FULL, Reason.ATTEMPT_FAILED):
            return self._set_back(Reason(reason), message)
        return self._fail(reason, message)

    def _row_is_gone(self) -> Outcome:
        """A row that the job needs is not there: the job's own, or that of what it works on."""
        with self._worker.database.read() as session:
            if session.get(Job, self._lease.job_id) is None:
                raise LeaseLost(self._lease.job_id)
        message = "the model or the data set that this job needs was deleted"
        return self._fail(Reason.INPUT_DELETED, message)

    def _kind_and_progress(self) -> tuple[JobKind, Progress]:
        with self._worker.database.read() as session:
            job = session.get_one(Job, self._lease.job_id)
            shares = KINDS[job.kind].shares
            return job.kind, Progress(job.stage, job.step, job.warnings, shares)

    def _check_stop(self) -> None:
        if self._heartbeat.stop_reason is not None:
            raise StopRequested

    def _report_progress(self, stage: str, step: int, of: int) -> None:
        self._report({"event": "progress", "stage": stage, "step": step, "of": of})

    def _report(self, event: Event) -> None:
        self._check_stop()
        self._write_progress(self._progress.take(event))

    def _write_progress(self, columns: dict[str, Any]) -> None:
        """Write how far the job is; while the database is away, leave it for the next time.

        The work goes on as long as the lease does.
        """
        if not columns:
            return
        progress, job_id = self._progress, self._lease.job_id
        try:
            events = progress.journal.of(columns, self._settings.progress_event_seconds)
            with self._worker.database.begin() as session:
                write(session, self._lease, **columns)
                append(session, job_id, events)
            progress.journal.mark_written(events)
        except DATABASE_AWAY as error:
            log.warning("progress not written", job=job_id, error=repr(error))
            progress.postpone(columns)

    def _stop(self) -> Outcome:
        """Leave the job for the heartbeat's reason."""
        if self._heartbeat.stop_reason is StopReason.LOST:
            raise LeaseLost(self._lease.job_id)
        if self._heartbeat.stop_reason is StopReason.CANCELLED:
            return self._cancel()
        return self._release(Reason.WORKER_STOPPED)

    def _cancel(self) -> Outcome:
        return self._finish(JobState.CANCELLED, Reason.CANCEL_REQUESTED)

    def _give_up(self) -> Outcome:
        with self._worker.database.read() as session:
            job = session.get_one(Job, self._lease.job_id)
            last = job.error or "its worker ended without a word"
        tries = self._settings.max_attempts
        message = f"{tries} attempts in a row got no further. Last: {last}"
        return self._fail(Reason.CRASHED, message)

    def _fail(self, reason: str, error: str) -> Outcome:
        error = presentable(error)
        log.error("job failed", job=self._lease.job_id, reason=reason, error=error)
        return self._finish(JobState.FAILED, reason, error)

    def _finish(self, state: JobState, reason: str, error: str | None = None) -> Outcome:
        self._heartbeat.retry(
            lambda: finish_without_results(self._context, state, reason=reason, error=error)
        )
        return Outcome.ENDED

    def _set_back(self, reason: Reason, error: str) -> Outcome:
        """Put the job back into the queue after what may not happen again.

        A disk that stays full fails the job soon.
        """
        if reason is Reason.DISK_FULL and self._lease.setbacks >= DISK_FULL_ATTEMPTS:
            return self._fail(reason, error)
        return self._release(reason, presentable(error))

    def _release(self, reason: Reason, error: str | None = None) -> Outcome:
        delay = self._heartbeat.retry(
            lambda: release(self._worker.database, self._lease, reason, error)
        )
        return Outcome.DELAYED if delay else Outcome.RELEASED
