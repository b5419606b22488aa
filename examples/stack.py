"""Starts the service as a user would, and ends everything it started, whatever happens."""

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import httpx2


class StackError(Exception):
    """Something that the demo needs does not start. The message says what to do."""


def check(stack: str) -> None:
    """Raises StackError where a program that the stack needs is not installed."""
    if stack == "redis" and shutil.which("redis-server") is None:
        raise StackError(
            "STACK=redis needs a redis-server: apt-get install redis-server, or "
            "brew install redis. Without STACK the demo needs none."
        )


@contextmanager
def service(folder: Path, stack: str = "embedded", weights: Path | None = None) -> Iterator[str]:
    """The URL of a service with its data in `folder`; its log is `folder`/service.log.

    stack: "embedded" (SQLite, no broker) or "redis" (Celery, with a Redis of our own).
    """
    folder.mkdir(parents=True, exist_ok=True)
    settings = {"SAPNET_DATA_DIR": str(folder / "data")}
    if weights is not None:
        settings["SAPNET_BACKBONE_WEIGHTS"] = str(weights.resolve())
    with ExitStack() as running:
        if stack == "redis":
            settings["SAPNET_BROKER_URL"] = running.enter_context(_redis(folder))
        port = free_port()
        command = [sys.executable, "-m", "app.cli", "serve", "--port", str(port)]
        log = folder / "service.log"
        process = running.enter_context(_process(command, log, settings))
        url = f"http://127.0.0.1:{port}"
        _wait_until_ready(url, process, log)
        yield url


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def _redis(folder: Path) -> Iterator[str]:
    port = free_port()
    options = ["--port", str(port), "--save", "", "--appendonly", "no", "--dir", str(folder)]
    with _process(["redis-server", *options], folder / "redis.log", {}) as process:
        _wait_for_port(port, process)
        yield f"redis://127.0.0.1:{port}/0"


@contextmanager
def _process(
    command: list[str], log: Path, environment: dict[str, str]
) -> Iterator[subprocess.Popen[bytes]]:
    with log.open("wb") as output:
        process = subprocess.Popen(
            command,
            env={**os.environ, **environment},
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        try:
            yield process
        finally:
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(60)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def _wait_for_port(port: int, process: subprocess.Popen[bytes], seconds: float = 10) -> None:
    deadline = time.monotonic() + seconds
    while process.poll() is None and time.monotonic() < deadline:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
        except OSError:
            time.sleep(0.05)
        else:
            return
    raise StackError("redis-server does not start; see redis.log")


def _wait_until_ready(
    url: str, process: subprocess.Popen[bytes], log: Path, seconds: float = 60
) -> None:
    deadline = time.monotonic() + seconds
    while process.poll() is None and time.monotonic() < deadline:
        try:
            if httpx2.get(f"{url}/readyz", timeout=5).is_success:
                return
        except httpx2.TransportError:
            pass
        time.sleep(0.1)
    tail = "\n".join(log.read_text(errors="replace").splitlines()[-15:])
    raise StackError(f"the service does not start. The end of its log:\n{tail}")
