"""Deleted data sets: hidden at once, removed by a worker a batch of rows at a time.

A request only marks the row (`hide`). Sessions of requests see neither it nor anything that hangs
on it from then on (`app.auth.ownership`), so nothing can be added to it, and quotas do not count
it. Whoever comes later goes on where a killed worker stopped: what is left says what is to do.

A data set that a request writes in several transactions is hidden by the same mark, with a moment
to come (`begin`): then it is removed, unless the last transaction took the mark away (`finish`).
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

from sqlalchemy import ColumnElement, Table, Update, select, update
from sqlalchemy.orm import Session

from app.db.columns import Base, now
from app.db.models import Dataset, Job
from app.db.session import Database, rows_changed
from app.observability.log import log
from app.storage import garbage_collection as blobs

UNFINISHED_FOR = timedelta(hours=1)
"""In which a request has to write a data set."""


@contextmanager
def begin(database: Database, dataset: Dataset) -> Iterator[None]:
    """Write a data set's row, which nobody sees before `finish`.

    Where the block ends with an exception it is removed soon, and where the process ends after
    `UNFINISHED_FOR`.

    Raises:
        QuotaExceeded: the caller may have no more.
    """
    dataset.deleted_at = now() + UNFINISHED_FOR
    with database.begin() as session:
        session.add(dataset)
    try:
        yield
    except BaseException:
        with database.begin() as session:
            session.execute(_unfinished(dataset.id).values(deleted_at=now()))
        raise


def finish(session: Session, dataset_id: str, **values: Any) -> bool:
    """Show a data set that `begin` hides, from the end of the transaction on.

    Returns:
        False where it took too long, and is being removed.
    """
    return bool(rows_changed(session, _unfinished(dataset_id).values(deleted_at=None, **values)))


def _unfinished(dataset_id: str) -> Update:
    table = Base.metadata.tables[Dataset.__tablename__]  # its rows are hidden from the class
    return update(table).where(table.c.id == dataset_id, table.c.deleted_at > now())


def hide(session: Session, dataset_id: str) -> bool:
    """Mark a data set as deleted.

    Later versions of it have no parent any more, whoever they belong to.

    Returns:
        Whether it was not deleted before.
    """
    table = Base.metadata.tables[Dataset.__tablename__]
    marked = update(Dataset).where(Dataset.id == dataset_id, Dataset.deleted_at.is_(None))
    if not rows_changed(session, marked.values(deleted_at=now())):
        return False
    session.execute(update(table).where(table.c.parent_id == dataset_id).values(parent_id=None))
    return True


def remove_deleted(database: Database, stopping: Callable[[], bool] = lambda: False) -> int:
    """Remove the rows of what hangs on deleted data sets, then their own.

    Their blobs are left to `app.storage.garbage_collection.clean_up`. Two that do it at once share
    the work.

    Args:
        database: the rows are in.
        stopping: asked between two batches; once it is true the rest is left for the next time.

    Returns:
        How many data sets were removed to the end.
    """
    removed = 0
    with database.read() as session:
        deleted = session.scalars(select(Dataset.id).where(Dataset.deleted_at <= now())).all()
    for dataset_id in deleted:
        for table, condition in _rows_of(dataset_id):
            blobs.remove_in_batches(database, table, condition, stopping)
        if stopping():
            return removed
        removed += 1
        log.info("data set removed", dataset=dataset_id)
    return removed


def _rows_of(dataset_id: str) -> Iterator[tuple[Table, ColumnElement[bool]]]:
    """The tables of what hangs on a data set, each after those that hang on it.

    Its own row comes last. What has another key (an alias of a model) is little, and goes by its
    foreign key.
    """
    jobs = select(Job.id).where(Job.dataset_id == dataset_id)
    for table in reversed(Base.metadata.sorted_tables):
        if table.name == Dataset.__tablename__:
            yield table, table.c.id == dataset_id
        elif "job_id" in table.c:
            yield table, table.c.job_id.in_(jobs)
        elif "dataset_id" in table.c:
            yield table, table.c.dataset_id == dataset_id
