"""The engine and its sessions. One `Database` a process, made from its URL."""

import copy
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

from fastapi import Depends, Request
from sqlalchemy import (
    Connection,
    CursorResult,
    Delete,
    Engine,
    Insert,
    Update,
    create_engine,
    event,
    make_url,
    text,
)
from sqlalchemy.orm import Session

BUSY_TIMEOUT_MS = 30_000
THREADS = 40  # of the API's thread pool: each may hold a connection


class Database:
    """Sessions that write (`begin`) and sessions that only read (`read`).

    On SQLite a writing transaction starts with BEGIN IMMEDIATE (its default, deferred, loses
    concurrent updates) and waits for its turn; a reading one is deferred, so that with WAL readers
    and the writer never wait for each other. On PostgreSQL both are ordinary transactions.
    """

    def __init__(self, url: str) -> None:
        self.engine = _engine(url)
        self._reader = self.engine.execution_options(sqlite_begin="DEFERRED")
        self._info: Mapping[str, Any] = {}

    def for_request(self, **info: Any) -> "Database":
        """The same database, whose sessions have this `info`: who is asking, say."""
        bound = copy.copy(self)
        bound._info = {**self._info, **info}
        return bound

    @contextmanager
    def begin(self) -> Iterator[Session]:
        """A transaction: committed at the end of the block, rolled back on any exception."""
        info = dict(self._info)
        with Session(self.engine, expire_on_commit=False, info=info) as session, session.begin():
            yield session

    @contextmanager
    def read(self) -> Iterator[Session]:
        """A session for queries alone; nothing is committed."""
        with Session(self._reader, expire_on_commit=False, info=dict(self._info)) as session:
            yield session

    def ping(self) -> None:
        """Raises sqlalchemy.exc.SQLAlchemyError if the database does not answer."""
        with self.read() as session:
            session.execute(text("SELECT 1"))

    def dispose(self) -> None:
        """Close all connections."""
        self.engine.dispose()


def _engine(url: str) -> Engine:
    parsed = make_url(url)
    # Errors name the statement alone: its parameters are the users' data, webhooks' secrets too.
    options = {"pool_size": 10, "max_overflow": THREADS, "hide_parameters": True}
    if parsed.get_backend_name() != "sqlite":
        return create_engine(url, pool_pre_ping=True, **options)
    if parsed.database:
        Path(parsed.database).parent.mkdir(parents=True, exist_ok=True)
    engine = create_engine(url, **options)
    event.listen(engine, "connect", _on_sqlite_connect)
    event.listen(engine, "begin", _on_sqlite_begin)
    return engine


def _on_sqlite_connect(connection: Any, _record: Any) -> None:
    connection.isolation_level = None  # the driver starts no transaction by itself
    for pragma in (
        f"busy_timeout={BUSY_TIMEOUT_MS}",
        "journal_mode=WAL",
        "synchronous=NORMAL",
        "foreign_keys=ON",
    ):
        connection.execute(f"PRAGMA {pragma}")


def _on_sqlite_begin(connection: Connection) -> None:
    mode = connection.get_execution_options().get("sqlite_begin", "IMMEDIATE")
    connection.exec_driver_sql(f"BEGIN {mode}")


def rows_changed(session: Session, statement: Update | Delete | Insert) -> int:
    """Execute it; how many rows it met: what a compare-and-set asks."""
    result = session.execute(statement)
    assert isinstance(result, CursorResult)
    return result.rowcount


def get_database(request: Request) -> Database:
    """With the eyes of whoever is asking: see `app.auth.ownership`."""
    database: Database = getattr(request.state, "database", request.app.state.database)
    return database


def get_session(request: Request) -> Iterator[Session]:
    """Yield the request's session: reading for GET and HEAD, else a transaction.

    It is committed before the answer leaves (hence scope="function": a 201 must never be sent for a
    failed commit).
    """
    database = get_database(request)
    reads = request.method in ("GET", "HEAD")
    with database.read() if reads else database.begin() as session:
        yield session


DatabaseDep = Annotated[Database, Depends(get_database)]
SessionDep = Annotated[Session, Depends(get_session, scope="function")]
