"""Sending a call until it is answered: retries, problems, pages. What every method stands on."""

import os
import random
import time
import uuid
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Iterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass, replace
from typing import Any, Protocol, TypeVar

import httpx2
import msgspec

from sapnet_client.bound import Bound
from sapnet_client.errors import NotUnderstood, Problem, SapnetError, Unreachable, problem
from sapnet_client.progress import Progress, Show
from sapnet_client.wire import Answer, Call, Wire

T = TypeVar("T")

URL = "http://127.0.0.1:8000"
FIRST_TRIES = 3
"""Of a service that has never answered: it is not there. One that has is perhaps restarting."""
LONGEST_PAUSE = 10.0  # seconds; what Retry-After asks for may be longer
PAGE = 500
GATEWAY = (502, 504)


class HasId(Protocol):
    """What the service made: it has an id."""

    @property
    def id(self) -> Any:
        """Id of it."""
        ...


Ref = str | HasId
"""A thing, or its id."""


def id_of(thing: Ref) -> str:
    """Return the id of a thing, or the id itself."""
    return thing if isinstance(thing, str) else str(thing.id)


@dataclass(frozen=True, slots=True)
class Reply:
    """An answer that was read."""

    status: int
    headers: Mapping[str, str]
    body: bytes


class Calls:
    """What every method of the client stands on: calls, sent until they are answered.

    Args:
        wire: sends them.
        patience: seconds for which a call that may be sent again is tried, from its first failure
            on.
        show: called with the progress of uploads, downloads and jobs; None shows nothing.
    """

    def __init__(self, wire: Wire, *, patience: float, show: Show | None) -> None:
        self._wire, self._patience, self._show = wire, patience, show
        self._met = False
        self._owner: Any = self
        """The client that answers carry: the one that people have, around this one."""

    @property
    def url(self) -> str:
        """Address of the service."""
        return self._wire.url

    @asynccontextmanager
    async def _open(self, call: Call) -> AsyncIterator[Answer]:
        """Open the answer, still to be read.

        Inside the block the line may break: httpx2.TransportError. Raises Problem, Unreachable.
        """
        async with AsyncExitStack() as kept:

            async def once() -> Answer:
                async with AsyncExitStack() as stack:
                    answer = await stack.enter_async_context(self._wire.open(call))
                    if answer.status >= 400:
                        raise problem(answer.status, answer.headers, await answer.read())
                    kept.push_async_exit(stack.pop_all())
                    return answer

            yield await self._until_answered(call, once)

    async def _send(self, call: Call) -> Reply:
        async def once() -> Reply:
            async with self._wire.open(call) as answer:
                reply = Reply(answer.status, answer.headers, await answer.read())
            if reply.status >= 400:
                raise problem(reply.status, reply.headers, reply.body)
            return reply

        return await self._until_answered(call, once)

    async def _get(self, kind: type[T], path: str, **params: Any) -> T:
        reply = await self._send(Call("GET", path, params, again=True))
        return self._bound(read(kind, reply.body))

    async def _post(self, kind: type[T], path: str, json: Any = None, **more: Any) -> T:
        """One that makes something: with an idempotency key, so that it is made once."""
        headers = {"Idempotency-Key": str(uuid.uuid4()), **more.pop("headers", {})}
        call = Call("POST", path, json=json, headers=headers, again=True, **more)
        return self._bound(read(kind, (await self._send(call)).body))

    async def _offload(self, work: Callable[[], T]) -> T:
        """Do what waits for something else than the service, without holding up an event loop."""
        return await self._wire.offload(work)

    def _bound(self, answer: T, job: str | None = None) -> T:
        """The answer, which knows this client; masks their job too."""
        if isinstance(answer, Bound):
            answer.bind(self._owner, job)
        return answer

    async def _pages(
        self, kind: type[T], path: str, name: str, *, bound_to: str | None = None, **params: Any
    ) -> AsyncGenerator[T, None]:
        """Yield all things of a list, page by page as they are read.

        Args:
            bound_to: the job of what is yielded, see `_bound`.
        """
        cursor = None
        while True:
            page = await self._get(dict[str, Any], path, **{"limit": PAGE, **params}, cursor=cursor)
            for item in page[name]:
                yield self._bound(convert(kind, item), bound_to)
            cursor = page.get("next")
            if cursor is None:
                return

    async def _until_answered(self, call: Call, once: Callable[[], Awaitable[T]]) -> T:
        tries, began = 0, time.monotonic()
        while True:
            tries += 1
            try:
                result = await once()
            except (httpx2.TransportError, Problem) as error:
                self._met = self._met or isinstance(error, Problem)
                patience = self._patience - (time.monotonic() - began)
                pause = _pause(call, error, tries)
                if pause is None or pause > patience or self._gave_up(error, tries):
                    raise self._as_client_error(error) from error
                await self._wire.sleep(pause)
            except httpx2.InvalidURL as error:
                raise Unreachable(f"{self._wire.url!r} is no address: {error}") from error
            else:
                self._met = True
                return result

    @contextmanager
    def _reporting(self, what: str) -> Iterator[Callable[..., None]]:
        """Give `report_progress(done, of, stage=, note=)` inside the block, and report its end.

        None for `done` is as much as before.
        """
        last = Progress(what, 0.0, 1.0)

        def report_progress(
            done: float | None, of: float, *, stage: str = "", note: str = ""
        ) -> None:
            nonlocal last
            last = Progress(what, last.done if done is None else done, of, stage, note)
            if self._show is not None:
                self._show(last)

        try:
            yield report_progress
        finally:
            if self._show is not None:
                self._show(replace(last, over=True))

    def _gave_up(self, error: Exception, tries: int) -> bool:
        return not self._met and isinstance(error, httpx2.ConnectError) and tries >= FIRST_TRIES

    def _as_client_error(self, error: Exception) -> SapnetError:
        if isinstance(error, SapnetError):
            return error
        what = str(error) or type(error).__name__
        if isinstance(error, httpx2.ConnectError | httpx2.ConnectTimeout):
            what += ". On this machine it is started by: sapnet-service serve"
        return Unreachable(f"No answer from {self._wire.url}: {what}")


def _pause(call: Call, error: httpx2.TransportError | Problem, tries: int) -> float | None:
    """Seconds to wait before another try; None where there must be none.

    What never left may be sent again in any case, as may what was refused for its rate; the rest
    only where the call says so, since its answer alone may have been lost.
    """
    backoff = min(0.25 * 2 ** min(tries, 20), LONGEST_PAUSE) * random.uniform(0.5, 1.0)
    if isinstance(error, httpx2.UnsupportedProtocol | httpx2.SSEError):
        return None
    if isinstance(error, httpx2.TransportError):
        never_left = isinstance(error, httpx2.ConnectError | httpx2.ConnectTimeout)
        return backoff if call.again or never_left else None
    after = error.retry_after
    if error.status == 429:  # without the header it is a quota, and waiting does not help
        return None if after is None else after + backoff / 10
    if error.status == 409 and "Idempotency-Key" in call.headers:  # the first try is still at work
        return after
    if call.again and error.status in (503, *GATEWAY):
        return max(backoff, after or 0.0)
    return None


def read(kind: type[T], body: bytes) -> T:
    """Parse a JSON answer as one of the types; fields that are not known are passed over.

    Raises:
        NotUnderstood: it is no such document.
    """
    try:
        return msgspec.json.decode(body, type=kind)
    except msgspec.DecodeError as error:
        raise _strange(kind, error) from error


def convert(kind: type[T], document: Any) -> T:
    """Make one of the types of what was parsed already.

    Raises:
        NotUnderstood: it is no such document.
    """
    try:
        return msgspec.convert(document, kind)
    except msgspec.ValidationError as error:
        raise _strange(kind, error) from error


def _strange(kind: Any, error: Exception) -> NotUnderstood:
    name = getattr(kind, "__name__", str(kind))
    return NotUnderstood(f"The answer is no {name} that this client knows: {error}")


def address(url: str | None) -> str:
    """Return the service's address: the one given, else $SAPNET_URL, else this machine's."""
    return url or os.environ.get("SAPNET_URL") or URL


def authorization(key: str | None) -> dict[str, str]:
    """Return the headers with the key: the one given, else $SAPNET_KEY; none without a key."""
    key = key or os.environ.get("SAPNET_KEY")
    return {"Authorization": f"Bearer {key}"} if key else {}
