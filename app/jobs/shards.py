"""Shards of jobs: which may be taken, how many there are, and what becomes of them.

A shard that is queued, or whose lease has run out, may be taken while its job is queued or running
and was not cancelled. Rows are what counts; messages only say that there are some.
"""

import time
from datetime import timedelta
from typing import Any, cast

from sqlalchemy import ColumnElement, Select, Table, and_, func, or_, select, update
from sqlalchemy.orm import Session, aliased

from app.db.columns import now
from app.db.models import ACTIVE, Job, JobState, Shard, ShardState
from app.db.session import Database, rows_changed
from app.storage.garbage_collection import PAUSE_SECONDS, abandon

LONGEST_WAIT = timedelta(minutes=5)
"""Longer than any shard that is queued again is told to wait."""
NETWORK = "network"
"""In the plan of a shard: whether it needs a large network, which is one process's on a device."""
_BATCH = 500


def wanted() -> ColumnElement[bool]:
    """Return the condition of jobs whose shards may be worked on."""
    return and_(Job.state.in_([JobState.QUEUED, JobState.RUNNING]), ~Job.cancel_requested)


def may_be_taken() -> ColumnElement[bool]:
    """Return the condition of shards that are due, or whose taker fell silent."""
    no_longer = or_(Shard.lease_until < now(), Shard.lease_until > now() + LONGEST_WAIT)
    queued = and_(Shard.state == ShardState.QUEUED, or_(Shard.lease_until.is_(None), no_longer))
    return or_(queued, and_(Shard.state == ShardState.RUNNING, Shard.lease_until < now()))


def next_due(job_id: str | None = None, *, networks: bool = True) -> Select[int]:
    """Return the query for the shard to take: of the job with the fewest takers, the first.

    Args:
        job_id: of that job alone.
        networks: whether it may be one that needs a large network.
    """
    other = aliased(Shard)
    takers = (
        select(func.count())
        .where(other.job_id == Shard.job_id, other.state == ShardState.RUNNING)
        .correlate(Shard)
        .scalar_subquery()
    )
    jobs = select(Job.id).where(wanted())
    query = select(Shard.pk).where(may_be_taken(), Shard.job_id.in_(jobs))
    if job_id is not None:
        query = query.where(Shard.job_id == job_id)
    if not networks:
        query = query.where(~Shard.plan[NETWORK].as_boolean())
    ordered = query.order_by(takers, Shard.job_id, Shard.number).limit(1)
    return ordered.with_for_update(skip_locked=True, of=Shard)


def count_due(session: Session) -> int:
    """Return how many shards could be taken now."""
    jobs = select(Job.id).where(wanted())
    query = select(func.count()).select_from(Shard)
    return session.scalar(query.where(may_be_taken(), Shard.job_id.in_(jobs))) or 0


def has_long_leases(session: Session, length: timedelta) -> bool:
    """Whether there is a lease that `shorten_leases` would shorten."""
    return session.scalars(select(Shard.pk).where(*_too_long(length)).limit(1)).first() is not None


def shorten_leases(session: Session, length: timedelta) -> int:
    """Shorten leases that end later than any that could be written now: the clock went back."""
    shortened = update(Shard).where(*_too_long(length)).values(lease_until=now() + length)
    return rows_changed(session, shortened.execution_options(synchronize_session=False))


def _too_long(length: timedelta) -> tuple[ColumnElement[bool], ColumnElement[bool]]:
    return Shard.state == ShardState.RUNNING, Shard.lease_until > now() + 1.5 * length


def clean_up(database: Database) -> None:
    """Let the results of shards go whose jobs are over. Calling it again does nothing."""
    table = cast(Table, Shard.__table__)
    over = select(Job.id).where(Job.state.not_in(ACTIVE))
    left = select(table.c.pk, table.c.sha).where(table.c.sha.is_not(None), table.c.job_id.in_(over))
    with database.read() as session:  # which costs nothing, and there are seldom any
        more = session.execute(left.limit(1)).first() is not None
    while more:
        with database.begin() as session:
            rows = session.execute(left.limit(_BATCH)).all()
            abandon(session, (row.sha for row in rows))
            gone = update(table).where(table.c.pk.in_([row.pk for row in rows]))
            session.execute(gone.values(sha=None))
            more = len(rows) == _BATCH
        if more:
            time.sleep(PAUSE_SECONDS)


def of_job(session: Session, job_id: str, stage: str) -> list[Any]:
    """Return what the leader of a job looks at, for each of its shards of a stage, in order."""
    columns = (
        Shard.state,
        Shard.images,
        Shard.step,
        Shard.failed_images,
        Shard.reason,
        Shard.error,
    )
    query = select(Shard.pk, Shard.sha, *columns).where(Shard.job_id == job_id)
    return list(session.execute(query.where(Shard.stage == stage).order_by(Shard.number)))
