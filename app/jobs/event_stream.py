"""A job's events as they happen: server-sent events, resumed by Last-Event-ID.

No database session is held while a reader waits. One query a tick looks after all the jobs that
are followed in this process, however many readers there are.
"""

import asyncio
import time
from collections import defaultdict
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from fastapi.concurrency import run_in_threadpool
from fastapi.sse import KEEPALIVE_COMMENT, format_sse_event
from sqlalchemy import select
from sqlalchemy.exc import SQLAlchemyError

from app.db.models import ACTIVE, Job, JobEvent
from app.db.session import Database
from app.jobs import events
from app.observability.log import log

KEEPALIVE_SECONDS = 15.0
RETRY_MILLISECONDS = 1_000
BATCH = 500


class Feed:
    """Wakes readers when their job has new events.

    Attributes:
        stream_seconds: the longest that one stream lasts.
        closing: whether the server is about to stop. Readers are sent away then, to come again
            with the id that they have.
    """

    def __init__(
        self,
        database: Database,
        *,
        stream_seconds: float = 900.0,
        tick_seconds: float = 0.5,
        closing: Callable[[], bool] = lambda: False,
    ) -> None:
        self.database, self.closing = database, closing
        self.stream_seconds = stream_seconds
        self._tick_seconds = tick_seconds
        self._waiting: dict[str, set[tuple[int, asyncio.Event]]] = defaultdict(set)

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Look for new events inside this block."""
        task = asyncio.create_task(self._run())
        try:
            yield
        finally:
            task.cancel()

    async def wait(self, job_id: str, after: int, seconds: float) -> bool:
        """Wait for an event of a job.

        Returns:
            True once the job has an event above the number `after`, is gone, or the server stops;
            False when `seconds` are over.
        """
        waiter = (after, asyncio.Event())
        self._waiting[job_id].add(waiter)
        try:
            await asyncio.wait_for(waiter[1].wait(), seconds)
        except TimeoutError:
            return False
        finally:
            self._waiting[job_id].discard(waiter)
            if not self._waiting[job_id]:
                del self._waiting[job_id]
        return True

    async def _run(self) -> None:
        while True:
            await asyncio.sleep(self._tick_seconds)
            if not self._waiting:
                continue
            try:
                newest = await run_in_threadpool(self._newest, list(self._waiting))
            except SQLAlchemyError as error:  # it may be back at the next tick
                log.warning("events cannot be read", error=type(error).__name__)
                newest = None
            self._wake(newest)

    def _newest(self, job_ids: list[str]) -> dict[str, int]:
        query = select(Job.id, Job.last_event).where(Job.id.in_(job_ids))
        with self.database.read() as session:
            return {row.id: row.last_event for row in session.execute(query)}

    def _wake(self, newest: dict[str, int] | None) -> None:
        """`newest` is None where the database did not answer; a job that is not in it is gone."""
        closing = self.closing()
        for job_id, waiters in self._waiting.items():
            for after, event in waiters:
                if closing or (newest is not None and newest.get(job_id, after + 1) > after):
                    event.set()


def look(database: Database, job_id: str, after: int, limit: int) -> tuple[list[JobEvent], bool]:
    """Return events above the number `after`, and whether none can come after them.

    None can where the job is over, or gone.
    """
    with database.read() as session:
        state = session.scalar(select(Job.state).where(Job.id == job_id))
        rows = events.after(session, job_id, after, limit)  # after the state: the end is written
    return rows, state not in ACTIVE and len(rows) < limit  # together with it


async def stream(feed: Feed, job_id: str, after: int) -> AsyncIterator[bytes]:
    """Yield the events above the number `after`, those to come included, as text/event-stream.

    Ends after the job's last event, or when the reader is to come again.
    """
    yield format_sse_event(retry=RETRY_MILLISECONDS)
    deadline = time.monotonic() + feed.stream_seconds
    while not feed.closing() and (left := deadline - time.monotonic()) > 0:
        try:
            rows, over = await run_in_threadpool(look, feed.database, job_id, after, BATCH)
        except SQLAlchemyError:
            return  # the reader comes again, with the id that it has
        if rows:
            yield b"".join(frame(event) for event in rows)
            after = rows[-1].seq
        if over:
            return
        if not rows and not await feed.wait(job_id, after, min(KEEPALIVE_SECONDS, left)):
            yield KEEPALIVE_COMMENT


def frame(event: JobEvent) -> bytes:
    """Return an event in the text form of server-sent events."""
    data = events.encode(event).decode()
    return format_sse_event(id=str(event.seq), event=event.type, data_str=data)
