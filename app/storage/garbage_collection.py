"""Which blobs are wanted, and the removal of those that are not.

A row names a blob in a column of type `BlobRef`. Between storing a blob and committing its row it
is *pinned*, so that nobody who deletes the last other row takes it away meanwhile, and so that a
process that dies in between leaves a trace by which its blobs are found and removed.
"""

import secrets
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from datetime import timedelta

from sqlalchemy import Column, ColumnElement, delete, func, insert, select
from sqlalchemy.orm import Session

from app.db.columns import Base, now
from app.db.models import BlobPin
from app.db.session import Database
from app.storage.store import Storage

STALE_AFTER = timedelta(hours=24)
_LOCK = 0x5A9_B10B  # PostgreSQL's advisory lock of this module
_BATCH = 500  # below SQLite's limit on bound values


@contextmanager
def pinned(database: Database, storage: Storage, shas: Iterable[str]) -> Iterator[None]:
    """Keep `shas` safe in this block, in which they are stored and their rows committed.

    Afterwards those that no row names are deleted, so a block that fails leaves no blob behind.
    """
    wanted = sorted(set(shas))
    pin = secrets.token_hex(16)
    with database.begin() as session:
        _lock(session)
        if wanted:
            rows = [{"pinned_by": pin, "sha256": sha, "created_at": now()} for sha in wanted]
            session.execute(insert(BlobPin), rows)
    try:
        yield
    finally:
        with database.begin() as session:
            session.execute(delete(BlobPin).where(BlobPin.pinned_by == pin))
        forget(database, storage, wanted)


def forget(database: Database, storage: Storage, shas: Iterable[str]) -> int:
    """Delete those of `shas` that no row names and nobody pins.

    To be called after the transaction that removed their rows.

    Returns:
        How many were deleted.
    """
    removed = 0
    for batch in _batches(sorted(set(shas))):
        with database.begin() as session:
            _lock(session)  # held while files go: who pins one of them now, waits
            for sha in set(batch) - _in_use(session, batch):
                storage.delete(sha)
                removed += 1
    return removed


def clean_up(database: Database, storage: Storage) -> int:
    """Remove what processes that died left behind: old pins, and the blobs only they pinned.

    Returns:
        How many blobs were deleted.
    """
    with database.begin() as session:
        stale = delete(BlobPin).where(BlobPin.created_at < now() - STALE_AFTER)
        shas = session.scalars(stale.returning(BlobPin.sha256)).all()
    return forget(database, storage, shas)


def named_by(session: Session, rows: Mapping[type[Base], ColumnElement[bool]]) -> set[str]:
    """Return the blobs that rows name: of each table, rows for which the condition holds."""
    shas: set[str | None] = set()
    for table, condition in rows.items():
        for column in _blob_columns(table.__tablename__):
            shas.update(session.scalars(select(column).where(condition)))
    return {sha for sha in shas if sha is not None}


def wanted(session: Session) -> dict[str, set[str]]:
    """Return every blob that a row names, with the tables of those rows."""
    tables: dict[str, set[str]] = {}
    for table in Base.metadata.tables:
        for column in _blob_columns(table):
            for sha in session.scalars(select(column).where(column.is_not(None)).distinct()):
                tables.setdefault(sha, set()).add(table)
    return tables


def _blob_columns(*tables: str) -> list[Column[str]]:
    return [c for name in tables for c in Base.metadata.tables[name].c if c.info.get("blob")]


def _in_use(session: Session, shas: list[str]) -> set[str]:
    # Pins first: each query sees what is committed when it runs, and a block lets go of its pin
    # after its rows are there. Queried last, a pin could go just before its row comes.
    columns = [BlobPin.__table__.c.sha256, *_blob_columns(*Base.metadata.tables)]
    queries = (select(column).where(column.in_(shas)).distinct() for column in columns)
    return {sha for query in queries for sha in session.scalars(query)}


def _lock(session: Session) -> None:
    """One at a time. SQLite's writing transactions already are."""
    if session.get_bind().dialect.name == "postgresql":
        session.execute(select(func.pg_advisory_xact_lock(_LOCK)))


def _batches(shas: list[str]) -> Iterator[list[str]]:
    for start in range(0, len(shas), _BATCH):
        yield shas[start : start + _BATCH]
