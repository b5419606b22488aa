"""Real workers deliver webhooks, embedded and Celery's; killing one loses no event."""

import contextlib
import json
import os
import signal
import socket
import subprocess
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import select, update

from app.db.columns import now
from app.db.models import Webhook
from app.db.session import Database
from app.jobs import events
from app.jobs.queue import send
from app.settings import Settings

pytestmark = [pytest.mark.service, pytest.mark.both_stacks]

Hooked = Callable[..., str]
Row = Callable[[str], Webhook]
Start = Callable[..., subprocess.Popen[bytes]]
Until = Callable[..., None]
Receiver = Any  # of conftest.py

ENV = {
    "SAPNET_WEBHOOK_PRIVATE_ADDRESSES": "true",
    "SAPNET_WEBHOOK_RETRY_SECONDS": "0.2",
    "SAPNET_WEBHOOK_TIMEOUT_SECONDS": "30",
    "SAPNET_WEBHOOK_MAX_TRIES": "100",
}
FAST = ("--steps", "4")


def numbers(database: Database, job_id: str) -> list[int]:
    with database.read() as session:
        return [event.seq for event in events.after(session, job_id, 0, 1000)]


@pytest.fixture
def couriers(children: Callable[[int], list[int]]) -> Callable[[int], list[int]]:
    """Processes of `worker.background.io_process` that hang on this one."""

    def of(parent: int) -> list[int]:
        found = []
        for pid in children(parent):
            with contextlib.suppress(FileNotFoundError, ProcessLookupError):
                if b"worker.background.io_process" in Path(f"/proc/{pid}/cmdline").read_bytes():
                    found.append(pid)
        return found

    return of


def test_an_endpoint_that_was_away_and_a_worker_that_was_killed(
    start: Start,
    settings: Settings,
    database: Database,
    receiver: Receiver,
    hooked: Hooked,
    row: Row,
    until: Until,
    couriers: Callable[[int], list[int]],
    alive: Callable[[int], bool],
) -> None:
    away = socket.socket()  # bound, so that nobody else gets the port; it refuses connections
    away.bind(("127.0.0.1", 0))
    port = away.getsockname()[1]
    job_id = hooked(f"http://127.0.0.1:{port}/hook", over=False)
    if settings.broker_url is not None:
        send(job_id, settings.broker_url)
    first = start("worker.main", trainer=FAST, **ENV)
    until(lambda: row(job_id).tries >= 2)
    until(lambda: "end" in types(database, job_id))
    beside = couriers(first.pid)
    assert len(beside) == (0 if settings.embedded else 1)
    first.kill()
    first.wait()
    until(lambda: not any(alive(pid) for pid in beside))
    assert row(job_id).sent == 0

    away.close()
    back = type(receiver)(port)
    put_down(database)
    try:
        start("worker.main", trainer=FAST, **ENV)
        until(lambda: row(job_id).due_at is None)
    finally:
        back.close()
    assert back.ids == numbers(database, job_id)
    assert back.types[-1] == "end"


def put_down(database: Database) -> None:
    """What a killed sender was delivering would be taken up after the time of a try."""
    with database.begin() as session:
        session.execute(update(Webhook).values(due_at=now()))


def types(database: Database, job_id: str) -> list[str]:
    with database.read() as session:
        return [event.type for event in events.after(session, job_id, 0, 1000)]


def test_killed_while_it_delivers(
    start: Start,
    settings: Settings,
    database: Database,
    receiver: Receiver,
    hooked: Hooked,
    row: Row,
    until: Until,
    couriers: Callable[[int], list[int]],
    alive: Callable[[int], bool],
) -> None:
    """Taken up by another; an event whose answer was not noted comes twice, under one id."""
    job_id, killed = hooked(receiver.url, warnings=40), threading.Event()
    receiver.pause = lambda: len(receiver.got) != 5 or killed.wait()
    first = start("worker.main", trainer=FAST, **ENV)
    until(lambda: len(receiver.got) >= 5)
    beside = couriers(first.pid)
    for pid in [*beside, first.pid]:
        os.kill(pid, signal.SIGKILL)
    first.wait()
    until(lambda: not any(alive(pid) for pid in beside))
    killed.set()
    put_down(database)
    start("worker.main", trainer=FAST, **ENV)
    until(lambda: row(job_id).due_at is None)
    named = {headers["webhook-id"]: json.loads(body)["id"] for headers, body in receiver.got}
    assert sorted(named.values()) == numbers(database, job_id)
    assert receiver.ids == sorted(receiver.ids), "in order"
    assert len(receiver.got) == len(named) + 1
    with database.read() as session:
        assert session.scalars(select(Webhook.error)).all() == [None]
