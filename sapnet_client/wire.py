"""Requests as data, and the two ways to send them: with and without an event loop.

Everything above this file is written once, as coroutines. Those of a `BlockingWire` never suspend,
so that `run` and `each` drive them to their end without a loop; that is the whole difference
between `Client` and `AsyncClient`.
"""

import asyncio
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Coroutine, Iterator, Mapping
from contextlib import AbstractAsyncContextManager, ExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol, TypeVar

import httpx2

T = TypeVar("T")
Part = tuple[str, str, Path | bytes]
"""A file of a form: name of the part, name of the file, and where it is or what is in it."""


@dataclass(frozen=True, slots=True)
class Call:
    """A request.

    Attributes:
        parts: files of the form.
        body: gives the bytes anew for each try.
        again: whether it does no harm when it is sent twice, because it changes nothing or has an
            idempotency key.
        timeout: seconds of silence.
    """

    method: str
    path: str
    params: Mapping[str, Any] = field(default_factory=dict)
    headers: Mapping[str, str] = field(default_factory=dict)
    json: Any = None
    form: Mapping[str, Any] | None = None
    parts: tuple[Part, ...] = ()
    body: Callable[[], Iterator[bytes]] | None = None
    again: bool = False
    timeout: float | None = None


class Answer(Protocol):
    """An answer that is not read yet. Reading raises httpx2.TransportError on a broken line."""

    @property
    def status(self) -> int:
        """Of HTTP."""

    @property
    def headers(self) -> Mapping[str, str]:
        """By their names, in any case."""

    async def read(self) -> bytes:
        """Return the whole body."""

    def chunks(self) -> AsyncGenerator[bytes, None]:
        """Yield the body as it comes."""

    def lines(self) -> AsyncGenerator[str, None]:
        """Yield the body's lines, without their ends."""

    def events(self) -> AsyncGenerator[httpx2.ServerSentEvent, None]:
        """Yield the server-sent events of the body."""


class Wire(Protocol):
    """Sends calls; raises httpx2.TransportError where the line breaks."""

    @property
    def url(self) -> str:
        """Address of the service."""

    def open(self, call: Call) -> AbstractAsyncContextManager[Answer]:
        """Send a call; the answer is open inside the block."""

    async def sleep(self, seconds: float) -> None:
        """Wait before another try."""

    async def offload(self, work: Callable[[], T]) -> T:
        """Do work that blocks."""

    async def close(self) -> None:
        """Close all connections."""


class _Answered:
    def __init__(self, response: httpx2.Response) -> None:
        self._response = response

    @property
    def status(self) -> int:
        return self._response.status_code

    @property
    def headers(self) -> Mapping[str, str]:
        return self._response.headers


class BlockingWire:
    """Sends calls without an event loop, over httpx2's blocking client."""

    def __init__(self, http: httpx2.Client) -> None:
        self._http = http

    @property
    def url(self) -> str:
        """Address of the service."""
        return str(self._http.base_url)

    @asynccontextmanager
    async def open(self, call: Call) -> AsyncIterator[Answer]:
        """Send a call; the answer is open inside the block."""
        with ExitStack() as files:
            arguments = _arguments(call, files)
            content: dict[str, Any] = {"content": call.body()} if call.body else {}
            with self._http.stream(call.method, call.path, **arguments, **content) as response:
                yield _BlockingAnswer(response)

    async def sleep(self, seconds: float) -> None:
        """Block for so many seconds."""
        time.sleep(seconds)

    async def offload(self, work: Callable[[], T]) -> T:
        """Do it here and now."""
        return work()

    async def close(self) -> None:
        """Close all connections."""
        self._http.close()


class _BlockingAnswer(_Answered):
    async def read(self) -> bytes:
        return self._response.read()

    async def chunks(self) -> AsyncGenerator[bytes, None]:
        for chunk in self._response.iter_bytes():
            yield chunk

    async def lines(self) -> AsyncGenerator[str, None]:
        for line in self._response.iter_lines():
            yield line

    async def events(self) -> AsyncGenerator[httpx2.ServerSentEvent, None]:
        for event in httpx2.EventSource(self._response):
            yield event


class AsyncWire:
    """Sends calls in an event loop, over httpx2's asynchronous client."""

    def __init__(self, http: httpx2.AsyncClient) -> None:
        self._http = http

    @property
    def url(self) -> str:
        """Address of the service."""
        return str(self._http.base_url)

    @asynccontextmanager
    async def open(self, call: Call) -> AsyncIterator[Answer]:
        """Send a call; the answer is open inside the block."""
        with ExitStack() as files:
            arguments = _arguments(call, files)
            sent = call.body and _asynchronous(call.body())
            content: dict[str, Any] = {"content": sent} if sent else {}
            async with self._http.stream(
                call.method, call.path, **arguments, **content
            ) as response:
                yield _AsyncAnswer(response)

    async def sleep(self, seconds: float) -> None:
        """Suspend for so many seconds."""
        await asyncio.sleep(seconds)

    async def offload(self, work: Callable[[], T]) -> T:
        """Do it in a thread."""
        return await asyncio.to_thread(work)

    async def close(self) -> None:
        """Close all connections."""
        await self._http.aclose()


class _AsyncAnswer(_Answered):
    async def read(self) -> bytes:
        return await self._response.aread()

    async def chunks(self) -> AsyncGenerator[bytes, None]:
        async for chunk in self._response.aiter_bytes():
            yield chunk

    async def lines(self) -> AsyncGenerator[str, None]:
        async for line in self._response.aiter_lines():
            yield line

    async def events(self) -> AsyncGenerator[httpx2.ServerSentEvent, None]:
        async for event in httpx2.EventSource(self._response):
            yield event


def run(work: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine over a `BlockingWire`, and return its result."""
    try:
        work.send(None)
    except StopIteration as done:
        result: T = done.value
        return result
    work.close()
    raise RuntimeError("a coroutine over a BlockingWire has waited for an event loop")


def each(work: AsyncGenerator[T, None]) -> Iterator[T]:
    """Yield what an asynchronous generator over a `BlockingWire` yields."""
    try:
        while True:
            try:
                item = run(_next(work))
            except StopAsyncIteration:
                return
            yield item
    finally:
        run(work.aclose())


async def _next(work: AsyncGenerator[T, None]) -> T:
    return await anext(work)


async def _asynchronous(chunks: Iterator[bytes]) -> AsyncIterator[bytes]:
    for chunk in chunks:
        yield chunk


def _arguments(call: Call, opened: ExitStack) -> dict[str, Any]:
    """httpx2's names for what a call has; files that it names are closed with the stack."""
    arguments: dict[str, Any] = {"headers": dict(call.headers)}
    arguments["params"] = {name: value for name, value in call.params.items() if value is not None}
    if call.json is not None:
        arguments["json"] = call.json
    if call.form is not None:  # always multipart: without a file, `data` would not be
        texts = [
            (name, (None, str(text)))
            for name, value in call.form.items()
            for text in (value if isinstance(value, list) else [value])
        ]
        files = [
            (part, (name, opened.enter_context(it.open("rb")) if isinstance(it, Path) else it))
            for part, name, it in call.parts
        ]
        arguments["files"] = [*texts, *files]
    if call.timeout is not None:
        arguments["timeout"] = httpx2.Timeout(call.timeout, connect=min(call.timeout, 10.0))
    return arguments
