"""What must hold before the service starts; each fault is one line that says what to do."""

import errno
import fcntl
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NoReturn

import typer
from alembic.util import CommandError
from sqlalchemy import make_url
from sqlalchemy.exc import DBAPIError

from app.db import migrate as schema
from app.db.session import Database
from app.settings import Settings

BACKLOG = 2048  # uvicorn's own
LOCK = "serve.lock"


def refuse(message: str) -> NoReturn:
    """End the command with one line on stderr, exit code 2."""
    typer.echo(message, err=True)
    raise typer.Exit(2) from None


def make_data_folder(settings: Settings) -> None:
    """Make the data folder, and write to it once."""
    try:
        folder = settings.folder()
        if not os.access(folder, os.W_OK | os.X_OK):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
    except OSError as error:
        place = settings.data_dir.resolve()
        refuse(
            f"The data folder {place} cannot be used: {error.strerror}. "
            "Name one that can be written to with SAPNET_DATA_DIR."
        )


def bring_up_to_date(settings: Settings, revision: str = "head", *, down: bool = False) -> None:
    """Bring the database's schema to a revision."""
    shown = make_url(settings.database).render_as_string(hide_password=True)
    try:
        database = Database(settings.database)
    except OSError as error:
        refuse(f"{error.filename}: {error.strerror}. Check SAPNET_DATABASE_URL.")
    try:
        if not down and (newer := schema.unknown_revision(database)):
            refuse(
                f"The database {shown} was written by a newer release (its schema is {newer!r}, "
                f"the newest that this one knows is {schema.head()!r}). Install that release, or "
                "name another database with SAPNET_DATA_DIR or SAPNET_DATABASE_URL."
            )
        (schema.downgrade if down else schema.upgrade)(database, revision)
    except CommandError as error:
        refuse(f"{error}. Revisions are those of sapnet-service doctor; head is the newest.")
    except DBAPIError as error:
        reason = str(error.orig).strip().splitlines()[0] if error.orig else str(error)
        refuse(f"The database {shown} does not answer: {reason}. Check SAPNET_DATABASE_URL.")
    finally:
        database.dispose()


def listen(host: str, port: int) -> socket.socket:
    """A socket that accepts connections at an address; port 0 is a free one."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
        listener.listen(BACKLOG)
    except (OSError, OverflowError) as error:
        listener.close()
        reason = getattr(error, "strerror", None) or str(error)
        remedy = {
            errno.EADDRINUSE: "Stop what listens there, or take another port: --port 0 is a free "
            "one.",
            errno.EACCES: "Ports below 1024 are reserved: take another with --port.",
            errno.EADDRNOTAVAIL: "This machine has no such address: --host 127.0.0.1 is itself, "
            "--host 0.0.0.0 all that it has.",
        }.get(getattr(error, "errno", 0) or 0, "Check --host and --port.")
        refuse(f"Cannot listen at {host}, port {port}: {reason}. {remedy}")
    listener.set_inheritable(True)
    return listener


@contextmanager
def only_server(settings: Settings) -> Iterator[None]:
    """Hold the data folder for this server where its database is a file in it.

    Two servers on one folder would share its jobs by accident. With a database server they share
    them on purpose.
    """
    if not settings.database.startswith("sqlite"):
        yield
        return
    path = settings.folder() / LOCK
    with path.open("a+") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            file.seek(0)
            holder = file.read(200).strip() or "another process"
            refuse(
                f"{holder} serves the data folder {settings.folder()} already. Use or stop that "
                "one, or give this one a folder of its own with SAPNET_DATA_DIR."
            )
        file.truncate(0)
        file.write(f"sapnet-service, process {os.getpid()},")
        file.flush()
        yield
