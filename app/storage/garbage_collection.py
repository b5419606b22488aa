"""Which blobs are wanted, and the removal of those that are not.

A row names a blob in a column of type `BlobRef`. Between storing a blob and committing its row it
is *pinned*, so that nobody who deletes the last other row takes it away meanwhile, and so that a
process that dies in between leaves a trace by which its blobs are found and removed. Rows that are
removed leave their blobs the same trace, so that these are never lost sight of: see `remove_rows`.
"""

import secrets
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta

from sqlalchemy import Column, ColumnElement, Table, delete, func, insert, select, tuple_
from sqlalchemy.orm import Session

from app.db.columns import Base, now
from app.db.models import BlobPin
from app.db.session import Database
from app.storage.store import Storage

STALE_AFTER = timedelta(hours=24)
PAUSE_SECONDS = 0.02  # between two batches: SQLite's lock is not fair, and others want to write
_LOCK = 0x5A9_B10B  # PostgreSQL's advisory lock of this module
_HELD_SECONDS = 0.2  # after it no more files are deleted in a transaction
_BATCH = 500  # rows or blobs in one transaction: far below a second, and SQLite's bound values
_ABANDONED = datetime.fromtimestamp(0, UTC)  # pinned then: stale from the beginning


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
            unused = set(batch) - _in_use(session, batch)
            storage.delete_many(unused)
            removed += len(unused)
    return removed


def remove_rows(session: Session, table: Table, condition: ColumnElement[bool]) -> int:
    """Remove some rows of those for which the condition holds.

    The blobs that they name are left to `clean_up`, in the same transaction: whoever dies between
    two batches has lost nothing, and whoever goes on finds the rest. Rows that another process is
    removing are left to it.

    Returns:
        How many were removed; 0 where there are none.
    """
    keys, blobs = list(table.primary_key.columns), _blob_columns(table.name)
    query = select(*keys, *blobs).where(condition).limit(_BATCH)
    rows = session.execute(query.with_for_update(skip_locked=True)).all()
    if not rows:
        return 0
    abandon(session, (sha for row in rows for sha in row[len(keys) :] if sha is not None))
    removed = [tuple(row[: len(keys)]) for row in rows]
    # The first key apart: SQLite finds no rows by an index for several keys in one.
    first = keys[0].in_(sorted({row[0] for row in removed}))
    session.execute(delete(table).where(first, tuple_(*keys).in_(removed)))
    return len(rows)


def abandon(session: Session, shas: Iterable[str]) -> None:
    """Leave blobs to `clean_up`, in the transaction after which a row names them no more."""
    pins = [{"pinned_by": "", "sha256": sha, "created_at": _ABANDONED} for sha in sorted(set(shas))]
    if pins:
        session.execute(insert(BlobPin), pins)


def remove_in_batches(
    database: Database,
    table: Table,
    condition: ColumnElement[bool],
    stopping: Callable[[], bool] = lambda: False,
) -> None:
    """`remove_rows` until none are left, each time in a transaction of its own."""
    count = 1
    while count and not stopping():
        with database.begin() as session:
            began = wait_for_turn(session)
            count = remove_rows(session, table, condition)
        if count:
            pause_after(began)


def clean_up(
    database: Database, storage: Storage, stopping: Callable[[], bool] = lambda: False
) -> int:
    """Delete the blobs that removed rows and processes that died left behind.

    Those that nothing else names are deleted, a batch at a time: a pin goes in the transaction in
    which its blob does.

    Args:
        database: that names the blobs.
        storage: that they are in.
        stopping: asked between two batches; once it is true the rest is left for the next time.

    Returns:
        How many blobs were deleted.
    """
    removed = 0
    with database.read() as session:  # which costs nothing, and there are seldom any
        more = session.scalar(select(BlobPin.pk).where(_stale()).limit(1)) is not None
    while more and not stopping():
        with database.begin() as session:
            _lock(session)
            began = wait_for_turn(session)
            query = select(BlobPin.pk, BlobPin.sha256).where(_stale()).order_by(BlobPin.pk)
            pins = session.execute(query.limit(_BATCH)).all()
            session.execute(delete(BlobPin).where(BlobPin.pk.in_([pin.pk for pin in pins])))
            shas = sorted({pin.sha256 for pin in pins})
            unused = sorted(set(shas) - _in_use(session, shas))
            deleted = _delete_for_a_while(storage, unused, began + _HELD_SECONDS)
            abandon(session, unused[deleted:])
            removed += deleted
            more = bool(pins) and (len(pins) == _BATCH or deleted < len(unused))
        pause_after(began)
    return removed


def _delete_for_a_while(storage: Storage, shas: list[str], until: float) -> int:
    """Delete the first of these blobs; a busy disk takes its time, and others wait for the lock.

    Returns:
        How many were deleted; at least one call's, that somebody gets on.
    """
    deleted = 0
    while deleted < len(shas) and (deleted == 0 or time.monotonic() < until):
        batch = shas[deleted : deleted + storage.deletes_a_call]
        storage.delete_many(batch)
        deleted += len(batch)
    return deleted


def wait_for_turn(session: Session) -> float:
    """Wait until the session's transaction may write; when that is, by the monotonic clock.

    What is done until then holds nobody up, however long it takes beside others who write.
    """
    session.connection()
    return time.monotonic()


def pause_after(began: float) -> None:
    """Let others write for as long as a transaction took that had its turn then.

    SQLite's lock is not fair: who waits for it looks now and then whether it is free.
    """
    time.sleep(max(PAUSE_SECONDS, time.monotonic() - began))


def _stale() -> ColumnElement[bool]:
    return BlobPin.created_at < now() - STALE_AFTER


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
