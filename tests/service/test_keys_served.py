"""Keys and the real server: where it listens, whom it believes, and what it reads of a stranger."""

import os
import re
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx2
import pytest

from app.auth import keys
from app.auth.keys import Scope
from app.db.session import Database
from app.settings import Settings

pytestmark = pytest.mark.service

ROOT = str(Path(__file__).resolve().parents[2])
Serve = Callable[..., str]


@pytest.fixture
def serve(settings: Settings) -> Iterator[Serve]:
    """Starts the service; gives what it says, to the line with its address."""
    started: list[subprocess.Popen[str]] = []

    def run(*options: str) -> str:
        env = {**os.environ, "PYTHONPATH": ROOT, "SAPNET_DATA_DIR": str(settings.data_dir)}
        command = [sys.executable, "-m", "app.cli", "serve", "--no-worker", "--port", "0"]
        process = subprocess.Popen(
            [*command, *options],
            env=env,
            stdout=subprocess.PIPE,
            text=True,
            stderr=subprocess.STDOUT,
        )
        started.append(process)
        assert process.stdout is not None
        said = ""
        for line in process.stdout:
            said += line
            if "sapnet-service is at" in line:
                return said + process.stdout.readline()
        return said

    yield run
    for process in started:
        process.terminate()
        process.wait(20)


def url_of(said: str) -> str:
    found = re.search(r"http://[\d.]+:(\d+)", said)
    assert found, said
    return f"http://127.0.0.1:{found[1]}"


def wait_for(url: str) -> None:
    for _ in range(200):
        try:
            httpx2.get(f"{url}/healthz").raise_for_status()
            return
        except httpx2.TransportError:
            time.sleep(0.05)
    raise AssertionError("it does not answer")


def test_without_a_key(serve: Serve) -> None:
    assert "SAPNET_ALLOW_WITHOUT_KEYS" in serve("--host", "0.0.0.0")
    said = serve()
    assert "answers this machine alone" in said
    url = url_of(said)
    wait_for(url)
    assert httpx2.get(f"{url}/jobs", timeout=60).status_code == 200
    forwarded = {"X-Forwarded-For": "203.0.113.9"}  # as a proxy on this machine would say
    assert httpx2.get(f"{url}/jobs", headers=forwarded, timeout=60).status_code == 401


def test_with_a_key(serve: Serve, settings: Settings) -> None:
    database = Database(settings.database)
    with database.begin() as session:
        key, _ = keys.create(session, "ann", Scope.WRITE)
    database.dispose()
    said = serve("--host", "0.0.0.0")
    assert "http://0.0.0.0:" in said
    assert "alone" not in said
    url = url_of(said)
    wait_for(url)
    assert httpx2.get(f"{url}/jobs", timeout=60).status_code == 401
    assert (
        httpx2.get(
            f"{url}/jobs", headers={"Authorization": f"Bearer {key}"}, timeout=60
        ).status_code
        == 200
    )
    port = int(url.rsplit(":", 1)[1])
    with socket.create_connection(("127.0.0.1", port), timeout=10) as stranger:
        head = "POST /datasets HTTP/1.1\r\nHost: h\r\nContent-Type: multipart/form-data; boundary=x"
        stranger.sendall(f"{head}\r\nContent-Length: 1000000000\r\n\r\n--x".encode())
        assert stranger.recv(4_096).startswith(b"HTTP/1.1 401 ")
