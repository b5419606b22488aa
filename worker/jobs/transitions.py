"""How an attempt at a job ends: with results, without, or back in the queue. All under the lease.

`finish_job` is the one place that writes a job's last state; `release` gives it back.
"""

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import structlog
from sqlalchemy import ColumnElement, Table, case, select
from sqlalchemy.orm import Session

from app.db.columns import now
from app.db.models import SUCCESSFUL, Job, JobState, Reason
from app.db.session import Database
from app.jobs.events import append_state
from app.storage.garbage_collection import PAUSE_SECONDS, pinned, remove_rows
from sapnet.utils.files import file_sha256
from worker.jobs.context import JobContext
from worker.runtime.job_events import stage_ended
from worker.runtime.lease import Lease, renew_lease, write

LOG = "log.txt"
"""What the job's process wrote, in the job's folder."""
DISK_FULL_DELAY = 5.0  # seconds: somebody may make room

log = structlog.get_logger()


class JobFails(Exception):
    """The job cannot be done, however often it is tried."""

    def __init__(self, reason: str, message: str) -> None:
        """reason: for programs. message: for people."""
        super().__init__(message)
        self.reason = reason


class BadResult(JobFails):
    """The job's process said that it was done, and its result folder is not as agreed."""

    def __init__(self, message: str) -> None:
        super().__init__(Reason.BAD_RESULT, message)


def finish_job(
    session: Session,
    lease: Lease,
    state: JobState,
    *,
    reason: str | None = None,
    error: str | None = None,
    unless_cancelled: bool = True,
    **columns: Any,
) -> None:
    """Write the job's last state into its row, and its last events, in the session's transaction.

    Args:
        state: one that a job ends in.
        reason: why it is so, for programs. error: what went wrong, for people.
        unless_cancelled: whether a cancellation that was asked for before comes first.
        columns: more of the job's row.

    Raises:
        LeaseLost: the job is no longer ours, or its cancellation came first.
    """
    ended: list[Any] = []
    if state in SUCCESSFUL:
        columns = {"progress": 1.0, "eta_seconds": 0.0, **columns}
        stage = session.scalar(select(Job.stage).where(Job.id == lease.job_id))
        ended = [stage_ended(stage)] if stage else []
    write(
        session,
        lease,
        unless_cancelled=unless_cancelled,
        state=state,
        reason=reason,
        error=error,
        finished_at=now(),
        lease_until=None,
        **columns,
    )
    append_state(session, lease.job_id, *ended)


def success(warnings: Sequence[str], *, failed_images: bool) -> tuple[JobState, Reason | None]:
    """Return the state, and the reason for it, of a job that has results."""
    if not warnings:
        return JobState.SUCCEEDED, None
    reason = Reason.IMAGES_SET_ASIDE if failed_images else Reason.WARNINGS
    return JobState.SUCCEEDED_WITH_WARNINGS, reason


@contextmanager
def stored_files(ctx: JobContext, files: Mapping[str, Path]) -> Iterator[dict[str, str]]:
    """Store those of the files that are there.

    They are pinned inside the block, in which rows that name them are to be written.

    Yields:
        The digest of each file that was stored, by its name.

    Raises:
        OSError: storage does not take them.
    """
    digests = {name: file_sha256(path) for name, path in files.items() if path.is_file()}
    with pinned(ctx.database, ctx.storage, digests.values()):
        ctx.storage.put_files({sha: files[name] for name, sha in digests.items()})
        yield digests


def finish_without_results(
    ctx: JobContext, state: JobState, *, reason: str, error: str | None = None
) -> None:
    """End a job that failed or was cancelled.

    Its log is kept where storage takes it: on a full disk the end matters more.
    """
    with ExitStack() as stack:
        try:
            stored = stack.enter_context(stored_files(ctx, {"log": ctx.workdir / LOG}))
        except OSError as refused:
            log.warning("log not kept", job=ctx.job_id, error=repr(refused))
            stored = {}
        with ctx.database.begin() as session:
            finish_job(
                session,
                ctx.lease,
                state,
                reason=reason,
                error=error,
                unless_cancelled=False,
                log_sha=stored.get("log"),
            )


def release(database: Database, lease: Lease, reason: Reason, error: str | None = None) -> float:
    """Put the job back into its queue, for whoever comes next.

    Args:
        error: what went wrong. With it, it is a setback, and waits longer each time; a worker that
            was shut down is none, and does not count.

    Returns:
        The seconds before it may be taken.
    """
    setback = error is not None
    delay = delay_after(lease.setbacks, reason) if setback else 0.0
    with database.begin() as session:
        fewer = case((Job.setbacks > 0, Job.setbacks - 1), else_=0)
        values: dict[str, Any] = {"error": error} if setback else {"setbacks": fewer}
        write(
            session,
            lease,
            state=JobState.QUEUED,
            reason=reason,
            owner=None,
            lease_until=now() + timedelta(seconds=delay) if delay else None,
            **values,
        )
        append_state(session, lease.job_id)
    return delay


def delay_after(setbacks: int, reason: str) -> float:
    """Return the seconds before a row may be taken again, after so many setbacks in a row."""
    delay = min(2.0 ** (setbacks - 1) - 1, 60.0)
    return max(delay, DISK_FULL_DELAY) if reason == Reason.DISK_FULL else delay


def remove_under_lease(ctx: JobContext, table: Table, condition: ColumnElement[bool]) -> None:
    """Remove the rows that an attempt before this one has left, a batch at a time.

    Raises:
        LeaseLost: the job is no longer ours, or its cancellation came first.
    """
    count = 1
    while count:
        with ctx.database.begin() as session:
            renew_lease(session, ctx.lease, ctx.settings, unless_cancelled=True)
            count = remove_rows(session, table, condition)
        if count:
            time.sleep(PAUSE_SECONDS)
