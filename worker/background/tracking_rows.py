"""Which trainings are tracked, by what, and how far that is: rows, taken up one at a time.

As with webhooks (`app.webhooks.service`) the outbox is the log of events: a tracker is a reader of
it, with its place kept in a row. A crash loses no event, and a series takes no step twice.
"""

from collections.abc import Collection
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import or_, select, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from app.db.columns import now
from app.db.models import ACTIVE, EventType, Job, JobEvent, JobKind, JobTracker
from app.db.session import Database, rows_changed
from app.jobs import events

IN_HAND = timedelta(seconds=60)
"""Beyond the time for an answer, a tracker is so long in the hands of whoever took it up and has
fallen silent since."""
FIRST_DELAY, LONGEST_DELAY = 5.0, 1800.0
MAX_TRIES = 60
"""Of one event, with these delays more than a day, before a run that is over is given up."""


@dataclass(frozen=True, slots=True)
class TrackerLease:
    """The right to give one tracker its events; whoever writes names its `turn`.

    Attributes:
        lifetime: so long from each sign of life, once it is taken up.
    """

    id: str
    job_id: str
    tracker: str
    turn: int
    lifetime: timedelta = IN_HAND


def register(database: Database, trackers: Collection[str], since: datetime) -> None:
    """Have trainings tracked that are not over, or that ended after a moment."""
    wanted = or_(Job.state.in_(ACTIVE), Job.finished_at >= since)
    for tracker in trackers:
        present = select(JobTracker.job_id).where(JobTracker.tracker == tracker)
        query = select(Job.id).where(Job.kind == JobKind.TRAIN, wanted, Job.id.not_in(present))
        with database.read() as session:
            job_ids = session.scalars(query).all()
        for job_id in job_ids:
            try:
                with database.begin() as session:
                    session.add(JobTracker(job_id=job_id, tracker=tracker, due_at=now()))
            except IntegrityError:
                continue  # another worker was quicker, or the job is gone


def due(session: Session, trackers: Collection[str], limit: int) -> list[TrackerLease]:
    """Trackers of trainings that have begun, with something to read, and in nobody's hands."""
    query = (
        select(JobTracker.id, JobTracker.job_id, JobTracker.tracker, JobTracker.turn)
        .join(Job, Job.id == JobTracker.job_id)
        .where(
            JobTracker.tracker.in_(trackers),
            JobTracker.due_at <= now(),
            Job.last_event > JobTracker.sent,
            or_(Job.started_at.is_not(None), Job.state.not_in(ACTIVE)),
        )
        .order_by(JobTracker.due_at)
        .limit(limit)
    )
    return [TrackerLease(*row) for row in session.execute(query)]


def take(session: Session, lease: TrackerLease, timeout: float) -> TrackerLease | None:
    """Take a tracker up, by compare-and-set; None where another worker was quicker.

    Args:
        timeout: seconds that it may take for an answer.
    """
    lifetime = timedelta(seconds=timeout) + IN_HAND
    taken = replace(lease, turn=lease.turn + 1, lifetime=lifetime)
    values = {"turn": taken.turn, "due_at": now() + lifetime}
    return taken if _change(session, lease, values) else None


def following(session: Session, lease: TrackerLease, after: int, limit: int) -> list[JobEvent]:
    """Return the events that come next."""
    return events.after(session, lease.job_id, after, limit)


def passed(
    session: Session, lease: TrackerLease, answer: dict[str, Any], sent: int, *, over: bool
) -> bool:
    """Note how far the tracker is; False where it is no longer ours.

    Args:
        answer: of the tracker, with `run_id`, `url` and `reached`.
        sent: number of the last event that it has.
        over: whether that was the job's last.
    """
    values: dict[str, Any] = {"sent": sent, "tries": 0, "error": None}
    values |= {"run_id": answer["run_id"], "reached": answer["reached"]}
    values["due_at"] = None if over else now() + lease.lifetime
    if not _change(session, lease, values):
        return False
    job = session.get(Job, lease.job_id)
    links = dict(job.tracking or {}) if job is not None else {}
    url = f"/jobs/{lease.job_id}/tensorboard" if lease.tracker == "tensorboard" else answer["url"]
    if job is not None and (lease.tracker not in links or links[lease.tracker] != url):
        job.tracking = links | {lease.tracker: url}
    return True


def renew(session: Session, lease: TrackerLease) -> bool:
    """Keep it in our hands; False where it is not."""
    return _change(session, lease, {"due_at": now() + lease.lifetime})


def release(session: Session, lease: TrackerLease) -> None:
    """Out of our hands."""
    _change(session, lease, {"due_at": now()})


def failed(session: Session, lease: TrackerLease, why: str) -> None:
    """Record a failed try: the next one comes later and later.

    The first of a row is an event of the job, a warning, while the job is not over.
    """
    row = session.get(JobTracker, lease.id)
    if row is None or row.turn != lease.turn:
        return
    tries = row.tries + 1
    job = session.get(Job, lease.job_id)
    active = job is not None and job.state in ACTIVE
    delay = timedelta(seconds=min(FIRST_DELAY * 2.0 ** min(tries - 1, 20), LONGEST_DELAY))
    given_up = tries >= MAX_TRIES and not active
    values = {"tries": tries, "error": why[:500], "due_at": None if given_up else now() + delay}
    _change(session, lease, values)
    if tries == 1 and active:
        message = f"{lease.tracker} does not take the run now, and is tried again: {why}"
        events.append(session, lease.job_id, [(EventType.WARNING, {"message": message[:500]})])


def _change(session: Session, lease: TrackerLease, values: dict[str, Any]) -> bool:
    changed = update(JobTracker).where(JobTracker.id == lease.id, JobTracker.turn == lease.turn)
    changed = changed.values(values).execution_options(synchronize_session=False)
    return rows_changed(session, changed) == 1
