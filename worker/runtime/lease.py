"""Who may write what about a job or a shard: leases taken by compare-and-set, and attempt numbers.

A worker owns a row by a lease that it renews. Whoever takes a lease raises `attempt`, and every
write names owner and attempt: a worker that was thought dead and comes back writes nothing, because
no row matches.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, ClassVar

from sqlalchemy import ColumnElement, Select, and_, case, func, literal, or_, select, update
from sqlalchemy.orm import Session

from app.db.columns import Utc, now
from app.db.models import EventType, Job, JobState, Reason, Shard, ShardState
from app.db.session import Database, rows_changed
from app.jobs import shards
from app.jobs.events import append_state
from app.jobs.reaper import LOST, due, expired
from app.settings import Settings
from worker.runtime.metrics import CLAIMS

CANCELLING, RUNNING = JobState.CANCELLING, JobState.RUNNING


class LeaseLost(Exception):
    """The row belongs to another attempt, or is gone: stop, and write nothing."""


@dataclass(frozen=True, slots=True)
class LeaseOfRow(ABC):
    """The right to write about one row of a table with owner, lease and attempt."""

    table: ClassVar[type[Job] | type[Shard]]

    job_id: str
    owner: str
    attempt: int

    @abstractmethod
    def holds(self) -> ColumnElement[bool]:
        """Return the condition that the row is still this attempt's."""

    @abstractmethod
    def writable(self, *, unless_cancelled: bool) -> ColumnElement[bool]:
        """Return the condition that the attempt may write.

        Args:
            unless_cancelled: not where the cancellation of the job was asked for.
        """

    @abstractmethod
    def cancelled(self) -> Select[bool]:
        """Return the query whether the work should end; no row where the lease is lost."""


@dataclass(frozen=True, slots=True)
class Lease(LeaseOfRow):
    """The right to write about one job. `setbacks` counts this attempt until it gets further."""

    table = Job

    setbacks: int
    cancel_requested: bool

    def holds(self) -> ColumnElement[bool]:
        """Return the condition that the job's row is still this attempt's."""
        return and_(Job.id == self.job_id, Job.owner == self.owner, Job.attempt == self.attempt)

    def writable(self, *, unless_cancelled: bool) -> ColumnElement[bool]:
        """Return the condition that the job is this attempt's, and not over."""
        states = [RUNNING] if unless_cancelled else [RUNNING, CANCELLING]
        return and_(self.holds(), Job.state.in_(states))

    def cancelled(self) -> Select[bool]:
        """Return the query whether the job's cancellation was asked for."""
        return select(Job.cancel_requested).where(self.holds())


@dataclass(frozen=True, slots=True)
class ShardLease(LeaseOfRow):
    """The right to write about one shard. `setbacks` counts this attempt until it gets further.

    Attributes:
        step, stuck_at, failed_images: of the row, as it was taken.
    """

    table = Shard

    pk: int
    setbacks: int
    step: int
    stuck_at: int | None
    failed_images: Sequence[dict[str, Any]]

    def holds(self) -> ColumnElement[bool]:
        """Return the condition that the shard's row is still this attempt's."""
        current = Shard.owner == self.owner, Shard.attempt == self.attempt
        return and_(Shard.pk == self.pk, *current, Shard.state == ShardState.RUNNING)

    def writable(self, *, unless_cancelled: bool) -> ColumnElement[bool]:
        """Return the condition that the shard is this attempt's, and its job wants it."""
        if not unless_cancelled:
            return self.holds()
        return and_(self.holds(), Shard.job_id.in_(select(Job.id).where(shards.wanted())))

    def cancelled(self) -> Select[bool]:
        """Return the query whether the shard's job wants it no more."""
        query = select(~shards.wanted()).select_from(Job).join(Shard, Shard.job_id == Job.id)
        return query.where(self.holds())


def acquire_lease(database: Database, job_id: str, owner: str, settings: Settings) -> Lease | None:
    """Take the job, or None where it is not to be had: leased by another, finished, or deleted."""
    taken = (
        update(Job)
        .where(Job.id == job_id, or_(due(), expired()))
        .values(
            state=case((Job.cancel_requested, CANCELLING), else_=RUNNING),
            started_at=func.coalesce(Job.started_at, literal(now(), Utc)),
            **_taken_by(Job, owner, settings),
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


def acquire_shard(
    database: Database,
    owner: str,
    settings: Settings,
    job_id: str | None = None,
    *,
    networks: bool = True,
) -> ShardLease | None:
    """Take the next shard, of the job with the fewest takers; None where there is none.

    Args:
        job_id: of that job alone.
        networks: whether it may be one that needs a large network.
    """
    columns = (Shard.pk, Shard.setbacks, Shard.step, Shard.stuck_at, Shard.failed_images)
    with database.begin() as session:
        taken = (
            update(Shard)
            .where(
                Shard.pk
                == shards.next_due(job_id, networks=networks).correlate(None).scalar_subquery()
            )
            .values(state=ShardState.RUNNING, **_taken_by(Shard, owner, settings))
            .returning(Shard.job_id, Shard.attempt, *columns)
            .execution_options(synchronize_session=False)
        )
        row = session.execute(taken).one_or_none()
    return None if row is None else ShardLease(row.job_id, owner, *row[1:])


def write(
    session: Session, lease: LeaseOfRow, *, unless_cancelled: bool = False, **values: Any
) -> None:
    """Change the row that the lease is of.

    Raises:
        LeaseLost: the lease is no longer ours, or, with `unless_cancelled`, a cancellation was
            asked for.
    """
    writable = lease.writable(unless_cancelled=unless_cancelled)
    changed = update(lease.table).where(writable).values(values)
    if rows_changed(session, changed.execution_options(synchronize_session=False)) != 1:
        raise LeaseLost(lease.job_id)


def renew_lease(
    session: Session, lease: LeaseOfRow, settings: Settings, *, unless_cancelled: bool = False
) -> None:
    """Make the lease last its full time from now.

    The row stays locked until the transaction ends, so what else is written in it is written under
    the lease.

    Raises:
        LeaseLost: as `write` does.
    """
    write(session, lease, unless_cancelled=unless_cancelled, lease_until=_lease_end(settings))


def _taken_by(table: type[Job] | type[Shard], owner: str, settings: Settings) -> dict[str, Any]:
    """The columns of a row that is taken."""
    return {
        "owner": owner,
        "attempt": table.attempt + 1,
        "setbacks": table.setbacks + 1,
        "lease_until": _lease_end(settings),
    }


def _lease_end(settings: Settings) -> Any:
    return now() + timedelta(seconds=settings.lease_seconds)
