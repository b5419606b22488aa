"""Who may write what about a job: claims by compare-and-set, leases, attempts as the fence.

A worker owns a job by a lease that it renews. Every claim raises `attempt`, and every write names
owner and attempt: one that was thought dead and comes back writes nothing, because no row matches.
"""

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from enum import Enum, auto
from typing import Any

import structlog
from sqlalchemy import ColumnElement, and_, case, func, literal, or_, select, update
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import Session

from app.db.columns import Utc, now
from app.db.models import Job, JobState, Reason
from app.db.session import Database, rows_changed
from app.jobs.events import EventType, append_state
from app.jobs.reaper import LOST, due, expired
from app.settings import Settings
from worker.runtime.metrics import CLAIMS, HEARTBEATS

log = structlog.get_logger()

CANCELLING, RUNNING = JobState.CANCELLING, JobState.RUNNING


class LeaseLost(Exception):
    """The row belongs to another attempt, or is gone: stop, and write nothing."""


@dataclass(frozen=True, slots=True)
class Claim:
    """The right to write about one job. `setbacks` counts this attempt until it gets further."""

    job_id: str
    owner: str
    attempt: int
    setbacks: int
    cancel_requested: bool

    def holds(self) -> ColumnElement[bool]:
        return and_(Job.id == self.job_id, Job.owner == self.owner, Job.attempt == self.attempt)


def claim(database: Database, job_id: str, owner: str, settings: Settings) -> Claim | None:
    """Take the job, or None where it is not to be had: in other hands, finished, or deleted."""
    taken = (
        update(Job)
        .where(Job.id == job_id, or_(due(), expired()))
        .values(
            state=case((Job.cancel_requested, CANCELLING), else_=RUNNING),
            owner=owner,
            attempt=Job.attempt + 1,
            setbacks=Job.setbacks + 1,
            lease_until=now() + timedelta(seconds=settings.lease_seconds),
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
    return None if row is None else Claim(job_id, owner, *row)


def write(session: Session, held: Claim, *, unless_cancelled: bool = False, **values: Any) -> None:
    """Change the job's row under the fence. Raises LeaseLost where it is no longer ours, or, with
    `unless_cancelled`, where its cancellation was asked for."""
    states = [RUNNING] if unless_cancelled else [RUNNING, CANCELLING]
    changed = update(Job).where(held.holds(), Job.state.in_(states)).values(values)
    if rows_changed(session, changed.execution_options(synchronize_session=False)) != 1:
        raise LeaseLost(held.job_id)


class Verdict(Enum):
    CANCELLED = auto()  # the user asked for it
    LOST = auto()  # the lease is not ours any more
    SHUTDOWN = auto()  # this worker is to stop; the job goes on elsewhere or later


class Heartbeat(threading.Thread):
    """Renews the lease beside the work, and learns why the work should end (`verdict`)."""

    def __init__(
        self, database: Database, held: Claim, settings: Settings, stopping: Callable[[], bool]
    ) -> None:
        super().__init__(name=f"heartbeat-{held.job_id}", daemon=True)
        self._found = Verdict.CANCELLED if held.cancel_requested else None
        self._database, self._held, self._settings = database, held, settings
        self._stopping = stopping
        self._over = threading.Event()
        self._renewed = time.monotonic()

    def __enter__(self) -> "Heartbeat":
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self.join()

    @property
    def verdict(self) -> Verdict | None:
        """Told by the clock where the database does not answer, not even with an error: another
        worker may have the job once the lease has run out."""
        silent = time.monotonic() - self._renewed
        return Verdict.LOST if silent > self._settings.lease_seconds else self._found

    def run(self) -> None:
        while not self._over.wait(self._settings.poll_seconds):
            seen = self._look()
            if seen is Verdict.LOST:
                self._found = seen
                return
            self._found = self._found or seen

    def _look(self) -> Verdict | None:
        try:
            cancelled = self._beat()
        except LeaseLost:
            HEARTBEATS.add("lost")
            return Verdict.LOST
        except SQLAlchemyError as error:  # the database is away: it may be back before the lease
            HEARTBEATS.add("failed")
            log.warning("heartbeat failed", job=self._held.job_id, error=repr(error))
            return None
        if cancelled:
            return Verdict.CANCELLED
        return Verdict.SHUTDOWN if self._stopping() else None

    def _beat(self) -> bool:
        """Whether a cancel was asked for; renews the lease where it is time to."""
        query = select(Job.cancel_requested).where(self._held.holds())
        with self._database.read() as session:
            cancelled = session.scalars(query).one_or_none()
        if cancelled is None:
            raise LeaseLost(self._held.job_id)
        began = time.monotonic()
        if began - self._renewed >= self._settings.heartbeat_seconds:
            until = now() + timedelta(seconds=self._settings.lease_seconds)
            with self._database.begin() as session:
                write(session, self._held, lease_until=until)
            self._renewed = began
            HEARTBEATS.add("renewed")
        return cancelled
