"""What counts as a full disk, in whoever's words it comes: one rule for the API and the worker."""

import errno
import sqlite3
from collections.abc import Callable

import obstore
import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient
from obstore.exceptions import GenericError
from obstore.store import MemoryStore
from sqlalchemy.exc import OperationalError

from app import errors
from app.errors import is_disk_full


def raised(make: Callable[[], object]) -> Exception:
    try:
        make()
    except Exception as error:
        return error
    raise AssertionError("nothing was raised")


def wrapped() -> None:
    """As torch's and zip's writers do."""
    try:
        raise OSError(errno.ENOSPC, "No space left on device")
    except OSError as error:
        raise RuntimeError("the file could not be written") from error


def while_handling() -> None:
    try:
        raise OSError(errno.EDQUOT, "Disk quota exceeded")
    except OSError:
        raise ValueError("unexpected pos 704 vs 598")  # noqa: B904


def sqlite_full() -> None:
    connection = sqlite3.connect(":memory:")
    connection.execute("PRAGMA max_page_count = 2")
    connection.execute("CREATE TABLE a (x)")
    connection.execute("INSERT INTO a VALUES (zeroblob(100000))")


def by_sqlalchemy() -> None:
    raise OperationalError("INSERT", None, raised(sqlite_full))


def postgres_full() -> None:
    driver = type("DiskFull", (Exception,), {"sqlstate": "53100"})
    raise OperationalError("INSERT", None, driver("could not extend file"))


def store_full() -> None:
    raise GenericError("Generic LocalFileSystem error: Unable to copy data: (os error 28)")


def bucket_full() -> None:
    raise GenericError("Server returned non-2xx status code: 507 Insufficient Storage")


FULL: dict[str, Callable[[], object]] = {
    "wrapped": wrapped,
    "while-handling": while_handling,
    "sqlite": sqlite_full,
    "sqlalchemy": by_sqlalchemy,
    "postgres": postgres_full,
    "store": store_full,
    "bucket": bucket_full,
}


@pytest.mark.parametrize("name", FULL)
def test_it_is_a_full_disk(name: str) -> None:
    error = raised(FULL[name])
    assert is_disk_full(error)
    assert is_disk_full(ExceptionGroup("two tasks", [ValueError("x"), error]))


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT, errno.EFBIG])
def test_codes_of_the_system(code: int) -> None:
    assert is_disk_full(OSError(code, "refused"))


@pytest.mark.parametrize(
    "error",
    [
        OSError(errno.EACCES, "Permission denied"),
        RuntimeError("No space left on device"),
        OperationalError("SELECT", None, sqlite3.OperationalError("database is locked")),
        raised(lambda: obstore.get(MemoryStore(), "nothing")),
        GenericError("Unable to open file /28: Permission denied (os error 13)"),
    ],
    ids=["access", "words-alone", "locked", "missing", "store-access"],
)
def test_it_is_something_else(error: Exception) -> None:
    assert not is_disk_full(error)


def test_errors_that_lead_to_each_other() -> None:
    one, two = ValueError("one"), ValueError("two")
    one.__cause__, two.__context__ = two, one
    assert not is_disk_full(one)


@pytest.mark.parametrize("name", [name for name in FULL if name != "sqlite"])
def test_the_api_answers_507(name: str) -> None:
    app = FastAPI()
    errors.install(app)
    app.add_api_route("/", FULL[name])
    answer = TestClient(app, raise_server_exceptions=False).get("/")
    assert (answer.status_code, answer.json()["type"]) == (507, "/problems/insufficient-storage")
