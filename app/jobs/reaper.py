"""Jobs whose worker is gone are queued again, or cancelled, and workers are told of them.

Every worker and every API runs this. An expired lease is taken up by compare-and-set, so whoever
looks first does it, once; the lease (worker/runtime/lease.py) then keeps the old attempt from
writing.
"""

import threading
from datetime import timedelta
from typing import Any

from sqlalchemy import ColumnElement, and_, case, literal, or_, select, update
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import Session

from app.db.columns import Utc, now
from app.db.models import Job, JobKind, JobState, Reason
from app.db.session import Database, rows_changed
from app.jobs import shards
from app.jobs.events import append_state
from app.jobs.kinds import KINDS, QUEUES, SHARD, kinds_in
from app.jobs.queue import depths, send, send_shard_hints
from app.observability.log import log
from app.settings import Settings

LOST = "its worker fell silent (killed, or cut off); the job goes on from its last checkpoint"
LONGEST_WAIT = timedelta(minutes=5)
"""Longer than any job that is queued again is told to wait."""
_SENT_AT_ONCE = 100


def expired() -> ColumnElement[bool]:
    """Return the condition of jobs that were started by a worker whose lease has run out."""
    states = [JobState.RUNNING, JobState.CANCELLING]
    return and_(Job.state.in_(states), Job.lease_until < now())


def due() -> ColumnElement[bool]:
    """Queued, and not told to wait any longer.

    Nobody is told to wait as long as `LONGEST_WAIT`: that was written before the clock went back.
    """
    no_longer = or_(Job.lease_until < now(), Job.lease_until > now() + LONGEST_WAIT)
    return and_(Job.state == JobState.QUEUED, or_(Job.lease_until.is_(None), no_longer))


def shorten_leases(database: Database, settings: Settings) -> int:
    """Shorten the leases that end later than any that could have been written now.

    They were written before the clock went back, and would keep the jobs of dead workers until it
    has caught up. A worker that lives renews its lease as ever, so it loses nothing; of one that is
    dead the lease ends after its full length, by the clock as it is now.

    Returns:
        How many there were.
    """
    length = timedelta(seconds=settings.lease_seconds)
    states = [JobState.RUNNING, JobState.CANCELLING]
    too_long = (Job.state.in_(states), Job.lease_until > now() + 1.5 * length)
    with database.read() as session:
        jobs = session.scalars(select(Job.id).where(*too_long).limit(1)).first()
        if jobs is None and not shards.has_long_leases(session, length):
            return 0
    shortened = update(Job).where(*too_long).values(lease_until=now() + length)
    with database.begin() as session:
        count = rows_changed(session, shortened.execution_options(synchronize_session=False))
        of_shards = shards.shorten_leases(session, length)
    log.warning("leases shortened: the clock went back", jobs=count, shards=of_shards)
    return count


def reap(database: Database) -> list[tuple[str, JobKind]]:
    """Take up every expired lease.

    Jobs that were to be cancelled are cancelled, since nobody is left to stop.

    Returns:
        Id and kind of the jobs that are queued again.
    """
    with database.read() as session:  # which costs nothing, and there are seldom any
        if session.scalars(select(Job.id).where(expired()).limit(1)).first() is None:
            return []
    values: dict[str, Any] = {
        "state": case((Job.cancel_requested, JobState.CANCELLED), else_=JobState.QUEUED),
        "finished_at": case((Job.cancel_requested, literal(now(), Utc))),
        "reason": case((Job.cancel_requested, Reason.CANCEL_REQUESTED), else_=Reason.WORKER_LOST),
        "error": case((Job.cancel_requested, None), else_=LOST),
        "owner": None,
        "lease_until": None,
    }
    taken = update(Job).where(expired()).values(values)
    with database.begin() as session:
        rows = session.execute(
            taken.returning(Job.id, Job.kind, Job.state).execution_options(
                synchronize_session=False
            )
        ).all()
        for job_id, _, _ in rows:
            append_state(session, job_id)
    for job_id, _, state in rows:
        log.warning("a job's worker is gone", job=job_id, state=state)
    return [(job_id, kind) for job_id, kind, state in rows if state is JobState.QUEUED]


def waiting(session: Session, limit: int = 1, queues: tuple[str, ...] = QUEUES) -> list[str]:
    """Return ids of the jobs of these queues that could be taken now, the oldest first."""
    query = select(Job.id).where(or_(due(), expired()), Job.kind.in_(kinds_in(*queues)))
    return list(session.scalars(query.order_by(Job.id).limit(limit)))


def run_once(database: Database, settings: Settings) -> None:
    """Do one round: expired leases, then messages that were lost. What is away is tried next time.

    A message may be lost with its broker or with a worker that had it, or its job's delay is
    over: the ids of jobs that wait while their queue is empty are sent again. A queue that holds
    something is left alone, so that a backlog does not grow by being counted.
    """
    try:
        shorten_leases(database, settings)
        reaped = reap(database)
        if settings.broker_url is None:
            return
        for job_id, kind in reaped:
            send(job_id, settings.broker_url, KINDS[kind].queue)
        for queue, depth in depths(settings.broker_url).items():
            if depth == 0 and queue == SHARD:
                with database.read() as session:
                    count = shards.count_due(session)
                send_shard_hints(settings.broker_url, min(count, _SENT_AT_ONCE))
            elif depth == 0:
                with database.read() as session:
                    lost = waiting(session, _SENT_AT_ONCE, (queue,))
                for job_id in lost:
                    send(job_id, settings.broker_url, queue)
                    log.info("job sent again", job=job_id, queue=queue)
    except (OSError, SQLAlchemyError) as error:
        log.warning("the reaper's round failed, next time then", error=repr(error))


class Reaper(threading.Thread):
    """`run_once`, every `reap_seconds`, beside what this process does."""

    def __init__(self, database: Database, settings: Settings) -> None:
        super().__init__(name="reaper", daemon=True)
        self._database, self._settings = database, settings
        self._ended = threading.Event()

    def run(self) -> None:
        """Do a round every `reap_seconds` until `stop`."""
        while not self._ended.wait(self._settings.reap_seconds):
            run_once(self._database, self._settings)

    def stop(self) -> None:
        """End after the round that is being done, and wait for it."""
        self._ended.set()
        self.join()
