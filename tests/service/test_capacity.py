"""What one client holds open does not keep the service from the others."""

import asyncio
import json
import socket
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import httpx2
import pytest
import uvicorn
from fastapi import FastAPI
from fastapi.testclient import TestClient
from sqlalchemy.exc import OperationalError

from app.errors import Unavailable
from app.http.capacity import Capacity
from app.http.server import MAX_HEAD_BYTES, server_config
from app.main import create_app
from app.settings import Settings

MakeSettings = Callable[..., Settings]


@pytest.fixture
def serve() -> Iterator[Callable[[FastAPI, Settings], int]]:
    """Start the real server of an application; its port."""
    running: list[tuple[uvicorn.Server, threading.Thread]] = []

    def start(app: FastAPI, settings: Settings) -> int:
        listener = socket.create_server(("127.0.0.1", 0))
        server = uvicorn.Server(server_config(app, settings))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
        thread.start()
        running.append((server, thread))
        while not server.started:
            time.sleep(0.01)
        return int(listener.getsockname()[1])

    yield start
    for server, thread in running:
        server.should_exit = True
        thread.join()


def until_closed(connection: socket.socket) -> bytes:
    """What the server sends before it closes the connection."""
    connection.settimeout(120)
    received = b""
    try:
        while data := connection.recv(1 << 16):
            received += data
    except ConnectionResetError:
        pass
    return received


def test_what_is_beyond_a_capacity_is_refused_at_once() -> None:
    capacity = Capacity("clicks", 2)
    with capacity.slot():
        with capacity.slot(), pytest.raises(Unavailable) as caught, capacity.slot():
            pass
        assert caught.value.headers["Retry-After"]
        with capacity.slot():
            pass
    with pytest.raises(KeyError), capacity.slot():
        raise KeyError
    with capacity.slot(), capacity.slot():
        pass


@pytest.mark.slow
def test_a_head_that_is_never_ended_is_given_up(
    make_settings: MakeSettings, serve: Callable[[FastAPI, Settings], int]
) -> None:
    settings = make_settings(request_head_seconds=0.5)
    port = serve(create_app(settings), settings)
    with ExitStack() as stack:
        silent = stack.enter_context(socket.create_connection(("127.0.0.1", port)))
        half = stack.enter_context(socket.create_connection(("127.0.0.1", port)))
        half.sendall(b"GET /healthz HTTP/1.1\r\nhost: localhost\r\n")
        again = stack.enter_context(socket.create_connection(("127.0.0.1", port)))
        again.sendall(b"GET /healthz HTTP/1.1\r\nhost: localhost\r\n\r\n")
        first = again.recv(1 << 16)
        assert first.startswith(b"HTTP/1.1 200")
        again.sendall(b"GET /healthz HTTP/1.1\r\n")  # the second request of the connection
        assert until_closed(silent) == until_closed(half) == b""
        assert not until_closed(again).startswith(b"HTTP/1.1")


@pytest.mark.slow
def test_a_head_without_end_is_refused(
    make_settings: MakeSettings, serve: Callable[[FastAPI, Settings], int]
) -> None:
    settings = make_settings()
    port = serve(create_app(settings), settings)
    with socket.create_connection(("127.0.0.1", port)) as connection:
        connection.sendall(b"GET /healthz HTTP/1.1\r\n")
        try:
            for number in range(2 * MAX_HEAD_BYTES // 1000):
                connection.sendall(f"x-{number}: ".encode() + b"a" * 1000 + b"\r\n")
        except OSError:
            pass  # closed while it was still sent
        answer = until_closed(connection)
    assert answer == b"" or answer.startswith(b"HTTP/1.1 431")


@pytest.mark.slow
def test_a_body_that_is_never_ended_is_given_up(
    make_settings: MakeSettings, serve: Callable[[FastAPI, Settings], int]
) -> None:
    settings = make_settings(request_body_seconds=0.5)
    port = serve(create_app(settings), settings)
    head = (
        b"POST /jobs/train HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n"
        b"content-length: 100\r\n\r\n{"
    )
    with socket.create_connection(("127.0.0.1", port)) as connection:
        connection.sendall(head)
        answer = until_closed(connection)
    assert answer.startswith(b"HTTP/1.1 408")
    assert b"application/problem+json" in answer
    health = httpx2.get(f"http://127.0.0.1:{port}/healthz", headers={"host": "localhost"})
    assert health.status_code == 200


@pytest.mark.slow
def test_predictions_that_wait_leave_threads_to_others(
    make_settings: MakeSettings,
    serve: Callable[[FastAPI, Settings], int],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Sixty requests that hang in a fetch: most are refused, and health and lists are answered."""
    settings = make_settings(predict_slots=3)
    app = create_app(settings)
    gate, inside = threading.Event(), threading.Semaphore(0)

    @app.get("/slow")
    def slow() -> str:
        with app.state.runtime.fetches.slot():
            inside.release()
            gate.wait()
        return "done"

    port = serve(app, settings)

    async def ask() -> tuple[list[int], int, int]:
        limits = httpx2.Limits(max_connections=100)
        base = f"http://127.0.0.1:{port}"
        async with httpx2.AsyncClient(
            base_url=base, limits=limits, timeout=120, headers={"host": "localhost"}
        ) as client:
            waiting = [asyncio.create_task(client.get("/slow")) for _ in range(60)]
            for _ in range(3):
                await asyncio.to_thread(inside.acquire)
            health = (await client.get("/healthz")).status_code
            jobs = (await client.get("/jobs")).status_code
            gate.set()
            answers = await asyncio.gather(*waiting)
            assert all("retry-after" in a.headers for a in answers if a.status_code == 503)
            return sorted(a.status_code for a in answers), health, jobs

    codes, health, jobs = asyncio.run(ask())
    assert (health, jobs) == (200, 200)
    assert codes.count(503) >= 1
    assert set(codes) == {200, 503}


@pytest.mark.slow
def test_health_needs_no_thread(app: FastAPI) -> None:
    from app.http.health import healthz

    assert asyncio.iscoroutinefunction(healthz)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("code", "status"), [(sqlite3.SQLITE_BUSY, 503), (sqlite3.SQLITE_LOCKED, 503), (1, 500)]
)
def test_a_database_that_stays_locked_is_unavailable(app: FastAPI, code: int, status: int) -> None:
    @app.get("/locked")
    def locked() -> None:
        error = sqlite3.OperationalError("database is locked")
        error.sqlite_errorcode = code
        raise OperationalError("SELECT 1", {}, error)

    with TestClient(app, raise_server_exceptions=False) as client:
        answer = client.get("/locked")
    assert answer.status_code == status
    assert json.loads(answer.text)["status"] == status
    assert ("retry-after" in answer.headers) is (status == 503)


def test_connections_fit_the_descriptors(
    make_settings: MakeSettings, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    import resource

    monkeypatch.setattr(resource, "getrlimit", lambda _what: (64, 64))
    config = server_config(FastAPI(), make_settings())
    assert config.limit_concurrency == 8
    monkeypatch.setattr(resource, "getrlimit", lambda _what: (1 << 16, 1 << 16))
    assert server_config(FastAPI(), make_settings()).limit_concurrency == 1000
