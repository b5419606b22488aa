"""The takers of one process: threads that take shards until there are none, or until told to stop.

A process has one crew at a time, of `Settings.takers`: that of the training which it leads, or one
that takes the shards of any job.
"""

import threading
import time
from collections.abc import Callable
from dataclasses import replace

import structlog
from sqlalchemy.exc import SQLAlchemyError

from app.jobs.shards import count_due
from worker.jobs.shard_taker import Taker
from worker.runtime.types import WorkerContext, new_owner

log = structlog.get_logger()

_one_crew = threading.Lock()


class Crew:
    """Works on shards for as long as its `with` block lasts."""

    def __init__(self, worker: WorkerContext, job_id: str | None = None) -> None:
        """job_id: of that job alone, and waiting for more; else it ends where none are due."""
        self._worker, self._job_id = worker, job_id
        self._ended = threading.Event()
        self._threads: list[threading.Thread] = []

    def __enter__(self) -> "Crew":
        for number in range(self._worker.settings.takers):
            name = f"taker-{number}"
            thread = threading.Thread(target=self._take, args=(number,), name=name, daemon=True)
            self._threads.append(thread)
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self.wait(lambda: False)

    def wait(self, enough: Callable[[], bool]) -> None:
        """Wait until all takers have ended, or are to end since it was enough."""
        while any(thread.is_alive() for thread in self._threads):
            if enough():
                self._ended.set()
            for thread in self._threads:
                thread.join(0.1)

    def _stopping(self) -> bool:
        return self._ended.is_set() or self._worker.stopping()

    def _take(self, number: int) -> None:
        worker = replace(self._worker, owner=new_owner(), stopping=self._stopping)
        with Taker(worker, number) as taker:
            while not self._stopping():
                try:
                    busy = taker.take_one(self._job_id)
                except SQLAlchemyError as error:
                    log.warning("no answer from the database", error=repr(error))
                    busy = False
                except Exception:  # this thread must not end while the others go on
                    log.exception("a taker failed")
                    busy = False
                if not busy:
                    if self._job_id is None:
                        return
                    self._ended.wait(self._worker.settings.poll_seconds)


class CrewOfJob:
    """The crew of the training that this process leads; it begins when no other one works here."""

    def __init__(self, worker: WorkerContext, job_id: str) -> None:
        self._worker, self._job_id = worker, job_id
        self._crew: Crew | None = None

    def __enter__(self) -> "CrewOfJob":
        return self

    def begin(self) -> None:
        """Begin, unless it has, or another crew works in this process: that one helps as well."""
        if self._crew is None and _one_crew.acquire(blocking=False):
            self._crew = Crew(self._worker, self._job_id)
            self._crew.__enter__()

    def __exit__(self, *_: object) -> None:
        if self._crew is not None:
            try:
                self._crew.__exit__()
            finally:
                _one_crew.release()


def take_all(worker: WorkerContext, seconds: float | None = None) -> bool:
    """Work on the shards of any job until none are due; whether there were any.

    Args:
        worker: its `stopping` ends it, too.
        seconds: after which no shard more is taken. None: as long as there are some.

    Raises:
        SQLAlchemyError: the database is away.
    """
    with worker.database.read() as session:
        if not count_due(session):
            return False
    if not _one_crew.acquire(blocking=False):
        return False
    until = None if seconds is None else time.monotonic() + seconds
    try:
        with Crew(worker) as crew:
            crew.wait(lambda: until is not None and time.monotonic() >= until)
    finally:
        _one_crew.release()
    return True
