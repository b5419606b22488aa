"""What an unexpected failure writes: a plain traceback, bounded, without secrets, and soon."""

import json
import logging
import secrets
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx2
import pytest
import structlog
import uvicorn
from fastapi import FastAPI, Request
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError

from app.auth import keys
from app.db.session import Database, SessionDep
from app.main import create_app
from app.observability import logging as logs
from app.observability.log_text import MOST_BYTES, presentable, presentable_value, traceback_text
from app.settings import Settings

ROOT = Path(__file__).resolve().parents[2]
KEY = f"sapnet_0123abcd_{'k3Y-_' * 8}abc"
SECRET = "whsec_" + "S3cReT/+" * 5
PASSWORD = "p4ss" * 4
MOST_OF_A_FAILURE = 20_000  # bytes


@pytest.fixture(params=[False, True], ids=["console", "json"])
def as_json(request: pytest.FixtureRequest) -> Iterator[bool]:
    logs.configure("info", request.param)
    yield request.param
    logs.configure("info", False)


@contextmanager
def no_log_capture() -> Iterator[None]:
    """Without pytest's own handlers, which it adds for each call: what they keep is sent to the
    main process of the tests, which takes no lone surrogates and need not get megabytes."""
    root = logging.getLogger()
    kept = [one for one in root.handlers if type(one).__module__.startswith("_pytest")]
    for handler in kept:
        root.removeHandler(handler)
    try:
        yield
    finally:
        for handler in kept:
            root.addHandler(handler)


class Deep:
    """Something large in the frames of a failure, as settings, requests and models are."""

    def __init__(self, depth: int = 6) -> None:
        self.secret = SECRET
        self.below = [Deep(depth - 1) for _ in range(6)] if depth else []

    def __repr__(self) -> str:
        return f"Deep({self.secret}, {self.below})"


def failing_app(settings: Settings) -> FastAPI:
    app = create_app(settings)

    @app.post("/jobs/fail-in-sql")
    def in_sql(request: Request, session: SessionDep) -> None:
        authorization, deep = request.headers["authorization"], Deep()
        statement = text("INSERT INTO nowhere VALUES (:secret, :key)")
        session.execute(statement, {"secret": deep.secret, "key": authorization})

    @app.post("/jobs/fail-with-words")
    def with_words(request: Request) -> None:
        deep = Deep(2)
        try:
            raise ConnectionError(f"redis://:{PASSWORD}@broker:6379/0 {deep!r}")
        except ConnectionError as error:
            raise RuntimeError(f"headers {request.headers.raw!r} {'x' * 5_000_000}") from error

    @app.post("/jobs/fail-in-a-chain")
    def in_a_chain() -> None:
        failed = 0

        def again() -> None:
            nonlocal failed
            failed += 1
            try:
                if failed < 60:
                    again()
            finally:
                raise ValueError(f"{failed}: " + 'é\x00"' * 500_000)

        again()

    return app


@pytest.fixture
def served(
    make_settings: Callable[..., Settings], as_json: bool
) -> Iterator[tuple[httpx2.Client, str]]:
    """The app behind a real server, and a key of it."""
    settings = make_settings(log_json=as_json)
    database = Database(settings.database)
    with database.begin() as session:
        key, _ = keys.create(session, "ann", keys.Scope.ADMIN)
    database.dispose()
    config = uvicorn.Config(failing_app(settings), port=0, log_config=None, access_log=False)
    server = uvicorn.Server(config)
    with config.bind_socket() as bound:
        bound.listen()  # so that a request which is early waits
        thread = threading.Thread(target=server.run, kwargs={"sockets": [bound]})
        thread.start()
        url = f"http://127.0.0.1:{bound.getsockname()[1]}"
        try:
            with httpx2.Client(base_url=url, timeout=60) as client:
                yield client, key
        finally:
            server.should_exit = True
            thread.join()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("path", "last"),
    [
        ("fail-in-sql", "Background on this error"),
        ("fail-with-words", "RuntimeError: headers"),
        ("fail-in-a-chain", "ValueError: 60"),
    ],
)
def test_a_failure_is_logged_soon_and_short_and_without_secrets(
    served: tuple[httpx2.Client, str],
    path: str,
    last: str,
    as_json: bool,
    capfd: pytest.CaptureFixture[str],
) -> None:
    client, key = served
    assert client.get("/healthz").status_code == 200
    capfd.readouterr()
    answers: list[int] = []

    def fail() -> None:
        headers = {"Authorization": f"Bearer {key}"}
        answers.append(
            httpx2.post(client.base_url.join(f"/jobs/{path}"), headers=headers).status_code
        )

    before = time.process_time()
    thread = threading.Thread(target=fail)
    thread.start()
    written = ""
    while last not in written:  # it comes after the answer
        began = time.monotonic()
        assert client.get("/healthz").status_code == 200
        assert time.monotonic() - began < 5  # on a machine that is busy; the CPU time is below
        assert time.process_time() - before < 5
        written += capfd.readouterr().err
    thread.join()
    assert answers == [500]
    written += capfd.readouterr().err
    assert "Traceback (most recent call last)" in written
    assert "in_sql" in written or "with_words" in written or "again" in written
    assert len(written.encode()) < MOST_OF_A_FAILURE
    for secret in (key[-43:], SECRET[6:], PASSWORD):
        assert secret not in written
    if as_json:
        assert any("exception" in json.loads(line) for line in written.splitlines())


@pytest.mark.parametrize(
    ("raw", "kept"),
    [
        (f"key {KEY} was sent", "key sapnet_0123abcd_*** was sent"),
        (f"{SECRET}, and more", "whsec_***, and more"),
        ("postgresql+psycopg://ann:p@ss:w0rd@db/x", "postgresql+psycopg://ann:***@db/x"),
        ("redis://:hunter2@r:6379/0", "redis://:***@r:6379/0"),
        ("at https://0a1b2c@tracks/x: 500", "at https://***@tracks/x: 500"),
        ("{'authorization': 'Bearer abc.def'}", "{'authorization': ***}"),
        ("(b'authorization', b'Basic YW46bw==')", "(b'authorization', b***)"),
        ("(b'cookie', b'id=5; a=6')", None),
        ("https://b/k?X-Amz-Signature=feed&x=1", "https://b/k?X-Amz-Signature=***&x=1"),
        ("https://b/k?sv=1&sig=a%2Fb&x=1", "https://b/k?sv=1&sig=***&x=1"),
        ("AWS_SECRET_ACCESS_KEY=wJalrXUt/K7", "AWS_SECRET_ACCESS_KEY=***"),
        ("AKIAIOSFODNN7EXAMPLE", "AKIAIOSF***"),
        ('{"password": "o p", "n": 1}', None),
        ("at 10:20 in http://host:80/a, by ann@example.org", None),
    ],
)
def test_secrets_are_known_by_their_form_and_by_their_name(raw: str, kept: str | None) -> None:
    found = presentable(raw)
    if kept is not None:
        assert found == kept
    elif "example.org" in raw:
        assert found == raw
    else:
        assert "***" in found


@pytest.mark.slow
def test_a_secret_across_the_cut_is_hidden_all_the_same() -> None:
    for length in range(MOST_BYTES - 80, MOST_BYTES + 5, 3):
        for secret in (KEY, SECRET, "redis://:hunter2hunter2@host/0"):
            found = presentable(f"{'x' * length} {secret}{' y' * MOST_BYTES}")
            assert "k3Y" not in found
            assert "S3c" not in found
            assert "hunter2" not in found
            assert len(found.encode()) < MOST_BYTES + 100


@pytest.mark.slow
@pytest.mark.parametrize(
    "unit",
    ["x", "é", "\U0001f600", "\x1b[2J", "\udcff", '"\\\n'],
    ids=["ascii", "accent", "emoji", "escape", "surrogate", "quote"],
)
def test_any_value_is_bounded(unit: str, as_json: bool, capfd: pytest.CaptureFixture[str]) -> None:
    long = unit * (3_000_000 // len(unit))
    with no_log_capture():
        structlog.get_logger().warning("it fell", error=long, many=[long] * 2, odd={"a": {long}})
        logging.getLogger("uvicorn.error").error("%s", long)
    written = capfd.readouterr().err
    assert len(written.encode("utf-8", "replace")) < 12 * MOST_BYTES
    assert "\x1b[2J" not in written


def test_a_value_that_cannot_be_shown_does_not_end_the_request() -> None:
    class Odd:
        def __repr__(self) -> str:
            raise RuntimeError

    assert presentable_value({"a": [Odd()]}) == {"a": ["<Odd>"]}
    assert presentable_value({"password": 12, "n": 1.5, "on": True}) == {
        "password": "***",
        "n": 1.5,
        "on": True,
    }


@pytest.mark.slow
def test_of_a_chain_the_first_and_the_last_are_kept() -> None:
    error: BaseException = OSError("the first of all")
    for number in range(300):
        following = ValueError(f"number {number} {'long ' * 5_000}")
        following.__cause__ = error
        error = following
    found = traceback_text((type(error), error, None))
    assert "the first of all" in found
    assert "number 299" in found
    assert "entries left out" in found
    assert len(found.encode()) < MOST_OF_A_FAILURE / 2


def test_of_a_recursion_and_of_groups_little_is_kept() -> None:
    def one(n: int) -> None:
        two(n)

    def two(n: int) -> None:
        one(n + 1)

    with pytest.raises(RecursionError) as caught:
        one(0)
    assert len(traceback_text((caught.type, caught.value, caught.tb))) < 10_000
    group = ExceptionGroup("all", [ValueError("v" * 9_000) for _ in range(200)])
    assert len(traceback_text((type(group), group, None))) < 10_000


def test_the_databases_errors_hold_no_parameters(settings: Settings) -> None:
    database = Database(settings.database)
    secret = secrets.token_hex(16)
    with pytest.raises(DBAPIError) as caught, database.begin() as session:
        session.execute(text("INSERT INTO nowhere VALUES (:a)"), {"a": secret})
    assert secret not in f"{caught.value!r} {caught.value}"
    database.dispose()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("WEBHOOK_SECRET", "whsec_tooShortAs3cret"),
        ("DATABASE_URL", "postgresql+psycopg://ann@db:tooShortAs3cret/x"),
        ("PORT", "s3cret"),
    ],
)
@pytest.mark.parametrize("module", ["worker.main", "worker.background.io_process", "app.cli.main"])
def test_settings_that_are_wrong_are_said_without_their_value(
    settings: Settings, name: str, value: str, module: str
) -> None:
    env = {
        "PYTHONPATH": str(ROOT),
        f"SAPNET_{name}": value,
        "PATH": "",
        "SAPNET_DATA_DIR": str(settings.data_dir),
    }
    command = [sys.executable, "-m", module, *(["serve"] if module == "app.cli.main" else [])]
    done = subprocess.run(
        command, env=env, capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode != 0
    assert name.lower() in done.stderr.lower()
    assert "s3cret" not in done.stderr + done.stdout
    assert "tooS" not in done.stderr + done.stdout


UNCAUGHT = """
import sys, threading
from app.observability import logging as logs
logs.configure("info", True)
logs.log_uncaught()
def fall(where):
    raise RuntimeError(f"redis://:hunter2@host/0 {where} " + "x" * 1_000_000)
thread = threading.Thread(target=fall, args=("beside",)); thread.start(); thread.join()
fall("at last")
"""


@pytest.mark.slow
def test_what_ends_a_process_or_a_thread_is_logged_as_well() -> None:
    done: Any = subprocess.run(
        [sys.executable, "-c", UNCAUGHT],
        env={"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    lines = [json.loads(line) for line in done.stderr.splitlines()]
    assert [line["event"] for line in lines] == ["a thread fails", "the process fails"]
    assert "beside" in lines[0]["exception"]
    assert "at last" in lines[1]["exception"]
    assert "hunter2" not in done.stderr
    assert len(done.stderr) < MOST_OF_A_FAILURE
