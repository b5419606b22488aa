"""How much an owner may have: data sets, bytes stored, jobs that are not over.

Checked where rows are made, in the transaction that makes them, so that no way into the database
goes round it; and before an upload is read, so that gigabytes are not sent in vain.
"""

from typing import Any

from sqlalchemy import ColumnElement, and_, event, func, or_, select
from sqlalchemy.orm import Session

from app.auth.keys import Caller
from app.db.columns import now
from app.db.models import ACTIVE, Dataset, Export, Job, Model, Upload
from app.db.session import Database
from app.errors import QuotaExceeded
from app.settings import Settings

_LOCK = 0x5A9_90A7  # PostgreSQL's advisory lock of this module
_SOON, _LATER = 60, 3600  # seconds until asking again may help


def room_for_upload(database: Database, settings: Settings, caller: Caller, size: int) -> None:
    """Raises QuotaExceeded where a data set of `size` bytes cannot be had as things are now."""
    if settings.quota_datasets or settings.quota_bytes:
        with database.read() as session:
            _datasets(session, settings, caller.owner, 1)
            _bytes(session, settings, caller.owner, size, underway=True)


def room_for_model(database: Database, settings: Settings, caller: Caller, size: int) -> None:
    """Raises QuotaExceeded where a model of `size` bytes cannot be kept as things are now."""
    if settings.quota_bytes:
        with database.read() as session:
            _bytes(session, settings, caller.owner, size, underway=True)


@event.listens_for(Session, "before_flush")
def _room_for_rows(session: Session, *_: Any) -> None:
    settings: Settings | None = session.info.get("settings")
    caller: Caller | None = session.info.get("caller")
    if settings is None or caller is None:
        return
    datasets = [row for row in session.new if isinstance(row, Dataset)]
    jobs = [row for row in session.new if isinstance(row, Job)]
    with session.no_autoflush:
        if datasets and (settings.quota_datasets or settings.quota_bytes):
            _one_at_a_time(session)
            _datasets(session, settings, caller.owner, len(datasets))
            _bytes(session, settings, caller.owner, sum(row.bytes or 0 for row in datasets))
        if jobs and settings.quota_active_jobs:
            _one_at_a_time(session)
            _active_jobs(session, settings, caller, jobs)


def _datasets(session: Session, settings: Settings, owner: str | None, more: int) -> None:
    limit = settings.quota_datasets
    if not limit:
        return
    table = Dataset.__table__
    query = select(func.count()).select_from(table).where(_own(owner))
    used = session.scalar(query) or 0
    if used + more > limit:
        raise _exceeded("data sets", limit, used, "delete one of them first", _LATER)


def _bytes(
    session: Session, settings: Settings, owner: str | None, more: int, *, underway: bool = False
) -> None:
    """Check the bytes stored: data sets as they were sent, models trained on them, exports.

    Args:
        underway: whether to count uploads that are not yet a data set; one that becomes a data set
            must not be counted twice.
    """
    limit = settings.quota_bytes
    if not limit:
        return
    datasets, jobs, models = Dataset.__table__, Job.__table__, Model.__table__
    exports = Export.__table__
    of_jobs = select(jobs.c.id).where(_own_jobs(owner))
    sent = select(func.sum(datasets.c.bytes)).where(_own(owner))
    trained = select(func.sum(models.c.size)).where(models.c.job_id.in_(of_jobs))
    exported = select(func.sum(exports.c.size)).where(exports.c.job_id.in_(of_jobs))
    used = sum(int(session.scalar(query) or 0) for query in (sent, trained, exported))
    if underway:
        uploads = Upload.__table__.c
        here = (_of(uploads.owner, owner), uploads.expires_at >= now())
        coming = select(func.sum(uploads.length)).where(*here)
        used += int(session.scalar(coming) or 0)
    if used + more > limit:
        raise _exceeded("bytes stored", limit, used, "delete a data set first", _LATER)


def _active_jobs(session: Session, settings: Settings, caller: Caller, new: list[Job]) -> None:
    """Of the data set's owner, whoever asks; of the caller where it is made with the job, or none.

    Jobs without a data set are the caller's.
    """
    limit = settings.quota_active_jobs
    datasets, jobs = Dataset.__table__, Job.__table__
    ids = {row.dataset_id for row in new}
    row = session.execute(select(datasets.c.owner).where(datasets.c.id.in_(ids))).first()
    owner = row.owner if row else caller.owner
    query = select(func.count()).select_from(jobs)
    used = session.scalar(query.where(_own_jobs(owner), jobs.c.state.in_(ACTIVE))) or 0
    if used + len(new) > limit:
        raise _exceeded("jobs at once", limit, used, "wait for one, or cancel it", _SOON)


def _own(owner: str | None) -> ColumnElement[bool]:
    """The owner's data sets, with those that are being written (`app.datasets.removal`).

    Those that were deleted do not count, though their rows be there.
    """
    datasets = Dataset.__table__.c
    kept = or_(datasets.deleted_at.is_(None), datasets.deleted_at > now())
    return and_(_of(datasets.owner, owner), kept)


def _own_jobs(owner: str | None) -> ColumnElement[bool]:
    """Those on the owner's data sets, and the owner's without one."""
    jobs = Job.__table__.c
    on_datasets = jobs.dataset_id.in_(select(Dataset.__table__.c.id).where(_own(owner)))
    return or_(on_datasets, and_(jobs.dataset_id.is_(None), _of(jobs.made_by, owner)))


def _of(column: ColumnElement[Any], owner: str | None) -> ColumnElement[bool]:
    return column.is_(None) if owner is None else column == owner


def _exceeded(what: str, limit: int, used: int, remedy: str, wait: int) -> QuotaExceeded:
    return QuotaExceeded(
        f"At most {limit:,} {what}, and there are {used:,}: {remedy}.",
        headers={"Retry-After": str(wait)},
        limit=limit,
        used=used,
    )


def _one_at_a_time(session: Session) -> None:
    """Two that count at once would both find room. SQLite's writing transactions take turns."""
    if session.get_bind().dialect.name == "postgresql":
        session.execute(select(func.pg_advisory_xact_lock(_LOCK)))
