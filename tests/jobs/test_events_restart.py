"""A reader follows a job while the API is killed and restarted: it misses and repeats nothing."""

import json
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Callable
from typing import Any

import httpx2
import pytest

from app.db.models import EventType, Job, JobState
from app.db.session import Database
from app.jobs import events

pytestmark = [pytest.mark.service, pytest.mark.both_stacks]

Start = Callable[..., subprocess.Popen[bytes]]
Until = Callable[..., None]


class Reader(threading.Thread):
    """Follows a job as a browser's EventSource does: after each interruption it comes back with
    the last id that it has, and a 204 is the end."""

    def __init__(self, url: str) -> None:
        super().__init__(daemon=True)
        self.seen: list[dict[str, Any]] = []
        self.ids: list[str] = []
        self.interruptions = 0
        self._url = url
        self.start()

    def run(self) -> None:
        with httpx2.Client(timeout=20) as client:
            while not self._follow(client):
                self.interruptions += 1
                time.sleep(0.05)

    def _follow(self, client: httpx2.Client) -> bool:
        """Whether it was over."""
        headers = {"Last-Event-ID": self.ids[-1]} if self.ids else {}
        try:
            with client.stream("GET", self._url, headers=headers) as answer:
                if answer.status_code == 204:
                    return True
                for event in httpx2.EventSource(answer.raise_for_status()):
                    if event.data:
                        self.ids.append(event.id)
                        self.seen.append(json.loads(event.data))
        except httpx2.TransportError:
            pass  # it is down, or was cut off
        return False


class Writer(threading.Thread):
    """Many events, a few at a time, beside those of the worker: some are written while the API is
    down, and some while it is being killed."""

    def __init__(self, database: Database, job_id: str) -> None:
        super().__init__()
        self._database, self._job_id = database, job_id
        self.over = threading.Event()
        self.start()

    def run(self) -> None:
        number = 0
        while not self.over.wait(0.01):
            number += 1
            new = [(EventType.WARNING, {"message": f"{number}.{i}"}) for i in range(number % 4)]
            with self._database.begin() as session:
                events.append(session, self._job_id, new)


def test_nothing_is_missed_and_nothing_comes_twice(
    start: Start,
    database: Database,
    dataset_id: str,
    until: Until,
    job_row: Callable[[str], Job],
) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{free.getsockname()[1]}"

    def api() -> subprocess.Popen[bytes]:
        process = start("app.cli", "serve", "--no-worker", "--port", url.rpartition(":")[2])

        def ready() -> bool:
            try:
                return httpx2.get(f"{url}/readyz").is_success
            except httpx2.TransportError:
                return False

        until(ready)
        return process

    process = api()
    answer = httpx2.post(f"{url}/jobs/train", json={"dataset_id": dataset_id}, timeout=60)
    job_id = answer.raise_for_status().json()["id"]
    reader, writer = Reader(f"{url}/jobs/{job_id}/events"), Writer(database, job_id)
    start("worker.main", trainer=("--steps", "9999", "--sleep", "0.05"))
    until(lambda: job_row(job_id).state is JobState.RUNNING)
    for how in (signal.SIGKILL, signal.SIGTERM, signal.SIGKILL):
        before = len(reader.seen)
        until(lambda enough=before + 20: len(reader.seen) > enough)
        process.send_signal(how)
        process.wait(60)
        told = job_row(job_id).last_event
        until(lambda enough=told + 20: job_row(job_id).last_event > enough)  # nobody listens
        process = api()
        until(lambda enough=told + 20: len(reader.seen) > enough)
    writer.over.set()
    writer.join()
    httpx2.post(f"{url}/jobs/{job_id}/cancel", timeout=60).raise_for_status()
    until(lambda: job_row(job_id).state is JobState.CANCELLED)
    reader.join(60)
    assert not reader.is_alive()

    with database.read() as session:
        truth = [events.document(e) for e in events.after(session, job_id, 0, 100_000)]
    assert [event["id"] for event in truth] == list(range(1, len(truth) + 1))
    assert reader.ids == [str(event["id"]) for event in truth]
    assert reader.seen == truth
    assert reader.seen[-1]["type"] == "end"
    assert reader.interruptions >= 4, "three kills, and the end of the stream"
    assert len(truth) > 120
