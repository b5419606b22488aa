"""What all tools share: a client for each call, progress, and errors that an agent can read."""

import functools
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any, ParamSpec, TypeVar

import anyio
from mcp.server.mcpserver import Context
from mcp.server.mcpserver.exceptions import ToolError

from sapnet.errors import SapnetError as LibraryError
from sapnet_client import AsyncClient, Progress, SapnetError, document

P = ParamSpec("P")
T = TypeVar("T")
Connect = Callable[[Callable[[Progress], None] | None], AbstractAsyncContextManager[AsyncClient]]
"""Gives a client of the service that reports progress to a function."""
EVERY = 0.5
"""Seconds between two notifications of progress, at least."""


def plain(thing: Any) -> Any:
    """Return an object of the client as JSON values, without those that are empty."""
    values = document(thing)
    if isinstance(values, dict):
        return {name: value for name, value in values.items() if value not in (None, [], {}, "")}
    return values


def tool(method: Callable[P, Awaitable[T]]) -> Callable[P, Awaitable[T]]:
    """Let what the service refuses, and what is wrong with a file, reach the agent in its words."""

    @functools.wraps(method)
    async def call(*args: P.args, **kwargs: P.kwargs) -> T:
        try:
            return await method(*args, **kwargs)
        except (SapnetError, LibraryError, ValueError, OSError) as error:
            raise ToolError(str(error)) from error

    return call


@asynccontextmanager
async def reporting(connect: Connect, context: Context) -> AsyncIterator[AsyncClient]:
    """A client whose progress goes to the agent as notifications, the latest each time."""
    latest: list[Progress] = []
    over = anyio.Event()

    async def notify() -> None:
        while True:
            if latest:
                progress = latest.pop()
                latest.clear()
                message = " ".join(filter(None, (progress.stage or progress.what, progress.note)))
                await context.report_progress(progress.done, progress.of or 1.0, message)
            if over.is_set():
                return
            with anyio.move_on_after(EVERY):
                await over.wait()

    failure: Exception | None = None
    async with anyio.create_task_group() as tasks, connect(latest.append) as client:
        tasks.start_soon(notify)
        try:
            yield client
        except Exception as error:  # raised below: a task group would wrap it
            failure = error
        finally:
            over.set()
    if failure is not None:
        raise failure
