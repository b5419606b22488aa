"""Who may write what about a job: leases taken by compare-and-set, and attempt numbers.

A worker owns a job by a lease that it renews. Whoever takes a lease raises `attempt`, and every
write names owner and attempt: a worker that was thought dead and comes back writes nothing, because
no row matches.
"""

from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from sqlalchemy import ColumnElement, and_, case, func, literal, or_, select, update
from sqlalchemy.orm import Session

from app.db.columns import Utc, now
from app.db.models import EventType, Job, JobState, Reason
from app.db.session import Database, rows_changed
from app.jobs.events import append_state
from app.jobs.reaper import LOST, due, expired
from app.settings import Settings
from worker.runtime.metrics import CLAIMS

CANCELLING, RUNNING = JobState.CANCELLING, JobState.RUNNING


class LeaseLost(Exception):
    """The row belongs to another attempt, or is gone: stop, and write nothing."""


@dataclass(frozen=True, slots=True)
class Lease:
    """The right to write about one job. `setbacks` counts this attempt until it gets further."""

    job_id: str
    owner: str
    attempt: int
    setbacks: int
    cancel_requested: bool

    def holds(self) -> ColumnElement[bool]:
        """Return the condition that the job's row is still this attempt's."""
        return and_(Job.id == self.job_id, Job.owner == self.owner, Job.attempt == self.attempt)


def acquire_lease(database: Database, job_id: str, owner: str, settings: Settings) -> Lease | None:
    """Take the job, or None where it is not to be had: leased by another, finished, or deleted."""
    taken = (
        update(Job)
        .where(Job.id == job_id, or_(due(), expired()))
        .values(
            state=case((Job.cancel_requested, CANCELLING), else_=RUNNING),
            owner=owner,
            attempt=Job.attempt + 1,
            setbacks=Job.setbacks + 1,
            lease_until=_lease_end(settings),
            started_at=func.coalesce(Job.started_at, literal(now(), Utc)),
        )
        .returning(Job.attempt, Job.setbacks, Job.cancel_requested)
        .execution_options(synchronize_session=False)
    )
    with database.begin() as session:
        silent = session.scalar(select(expired()).where(Job.id == job_id))
        row = session.execute(taken).one_or_none()
        if row is not None:
            why = {"reason": Reason.WORKER_LOST, "error": LOST}
            append_state(session, job_id, *([(EventType.SETBACK, why)] if silent else []))
    CLAIMS.add("refused" if row is None else "taken")
    return None if row is None else Lease(job_id, owner, *row)


def write(session: Session, lease: Lease, *, unless_cancelled: bool = False, **values: Any) -> None:
    """Change the job's row.

    Raises:
        LeaseLost: the lease is no longer ours, or, with `unless_cancelled`, a cancellation was
            asked for.
    """
    states = [RUNNING] if unless_cancelled else [RUNNING, CANCELLING]
    changed = update(Job).where(lease.holds(), Job.state.in_(states)).values(values)
    if rows_changed(session, changed.execution_options(synchronize_session=False)) != 1:
        raise LeaseLost(lease.job_id)


def renew_lease(
    session: Session, lease: Lease, settings: Settings, *, unless_cancelled: bool = False
) -> None:
    """Make the lease last its full time from now.

    The row stays locked until the transaction ends, so what else is written in it is written under
    the lease.

    Raises:
        LeaseLost: as `write` does.
    """
    write(session, lease, unless_cancelled=unless_cancelled, lease_until=_lease_end(settings))


def _lease_end(settings: Settings) -> Any:
    return now() + timedelta(seconds=settings.lease_seconds)
