"""A key sees what is its owner's: its data sets, and all that hangs on them.

The filter sits in the session, not in the queries: a request's sessions know who is calling, and
every SELECT, UPDATE and DELETE of mapped classes through them is narrowed to the caller's rows. A
query that is written later cannot forget it. An admin's sessions see the rows of all owners. What
hangs on a deleted data set is seen by nobody who calls, while a worker removes it. Sessions that
know no caller (the workers', the service's own) see everything.

The owner stands in `dataset.owner`, `upload.owner` and `model_alias.owner`, and in `job.made_by`
for jobs without a data set; a table with a `dataset_id`, a `job_id` or an `upload_id` follows.
"""

from collections.abc import Iterator
from functools import lru_cache
from typing import Any

from sqlalchemy import ColumnElement, and_, event, or_, select
from sqlalchemy.orm import ORMExecuteState, Session, with_loader_criteria

from app.auth.keys import Caller
from app.db.columns import Base
from app.db.models import Dataset, Job, ModelAlias, Upload
from app.db.session import Database
from app.settings import Settings


def seen_by(database: Database, caller: Caller, settings: Settings) -> Database:
    """The database with this caller's eyes, and under his quotas."""
    return database.for_request(caller=caller, settings=settings)


@event.listens_for(Session, "do_orm_execute")
def _own_rows_alone(state: ORMExecuteState) -> None:
    caller: Caller | None = state.session.info.get("caller")
    if caller is None or state.is_column_load:
        return
    if state.is_select or state.is_update or state.is_delete:
        owner = None if caller.sees_all else caller.owner or ""
        state.statement = state.statement.options(*_criteria(owner))


@event.listens_for(Session, "before_flush")
def _made_by(session: Session, *_: Any) -> None:
    """What a caller makes is the caller's."""
    caller: Caller | None = session.info.get("caller")
    for row in session.new if caller else ():
        if isinstance(row, Dataset | Upload) and row.owner is None:
            row.owner = caller.owner if caller else None
        if isinstance(row, Job) and row.dataset_id is None and row.made_by is None:
            row.made_by = caller.owner if caller else None


@lru_cache(maxsize=1_000)
def _criteria(owner: str | None) -> tuple[Any, ...]:
    rules = _not_deleted() if owner is None else _owned_by(owner)
    return tuple(with_loader_criteria(table, rule) for table, rule in rules)


def _not_deleted() -> Iterator[tuple[type[Base], ColumnElement[bool]]]:
    """What an admin sees: the few that are left out are named, not the many that are not."""
    # Core tables inside, here and below: the criteria would otherwise be applied to their own
    # subqueries.
    datasets, jobs = Dataset.__table__.c, Job.__table__.c
    deleted = select(datasets.id).where(datasets.deleted_at.is_not(None))
    deleted_jobs = select(jobs.id).where(jobs.dataset_id.in_(deleted))
    for mapper in Base.registry.mappers:
        columns = mapper.columns
        if mapper.class_ is Dataset:
            yield mapper.class_, columns["deleted_at"].is_(None)
        elif "dataset_id" in columns:
            column = columns["dataset_id"]
            yield mapper.class_, or_(column.is_(None), column.not_in(deleted))
        elif "job_id" in columns:
            yield mapper.class_, columns["job_id"].not_in(deleted_jobs)


def _owned_by(owner: str) -> Iterator[tuple[type[Base], ColumnElement[bool]]]:
    datasets, jobs = Dataset.__table__.c, Job.__table__.c
    own_datasets = select(datasets.id).where(datasets.owner == owner, datasets.deleted_at.is_(None))
    without = and_(jobs.dataset_id.is_(None), jobs.made_by == owner)
    own_jobs = select(jobs.id).where(or_(jobs.dataset_id.in_(own_datasets), without))
    uploads = Upload.__table__.c
    own_uploads = select(uploads.id).where(uploads.owner == owner)
    for mapper in Base.registry.mappers:
        columns = mapper.columns
        if mapper.class_ is Dataset:
            yield mapper.class_, and_(columns["owner"] == owner, columns["deleted_at"].is_(None))
        elif mapper.class_ in (ModelAlias, Upload):
            yield mapper.class_, columns["owner"] == owner
        elif mapper.class_ is Job:
            yield mapper.class_, columns["id"].in_(own_jobs)
        elif "dataset_id" in columns:
            yield mapper.class_, columns["dataset_id"].in_(own_datasets)
        elif "job_id" in columns:
            yield mapper.class_, columns["job_id"].in_(own_jobs)
        elif "upload_id" in columns:
            yield mapper.class_, columns["upload_id"].in_(own_uploads)
