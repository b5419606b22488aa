"""The gate that every request passes: who is it, may they, how often, how large a body.

It stands before the routes, so that a stranger's upload is refused before a byte of it is read.
"""

import asyncio
import time
from base64 import b64decode
from collections.abc import Mapping

from fastapi import FastAPI
from fastapi.concurrency import run_in_threadpool
from sqlalchemy.exc import SQLAlchemyError
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.types import ASGIApp, Message, Receive, Send
from starlette.types import Scope as Connection

from app import errors
from app.auth import own_site
from app.auth.access import AccessTable
from app.auth.keys import Caller, Callers, Scope
from app.auth.oidc.claims import identity
from app.auth.oidc.cookies import LOGIN, session_key
from app.auth.oidc.provider import Provider
from app.auth.own_site import SAFE
from app.auth.ownership import seen_by
from app.auth.rate_limit import Rates
from app.db.session import Database
from app.errors import AppError, Forbidden, TooDeep, TooLarge, Unauthorized, Unavailable
from app.settings import Settings

BYTES_A_SECOND = 1 << 14  # of a body, once its first seconds are over


class AuthMiddleware:
    """Middleware. Leaves the caller, and a database with the caller's eyes, in the request."""

    def __init__(
        self,
        app: ASGIApp,
        database: Database,
        settings: Settings,
        provider: Provider | None = None,
    ) -> None:
        self._app, self._database, self._settings = app, database, settings
        self._provider = provider
        closed = provider is not None
        self._callers = Callers(database, settings.key_cache_seconds, closed=closed)
        self._rates = Rates(settings)
        self._table: AccessTable | None = None

    async def __call__(self, scope: Connection, receive: Receive, send: Send) -> None:
        """Pass a request on if key, rate, quota and size allow it; else answer with the problem."""
        if scope["type"] == "websocket":  # there are none, and none is open by accident
            await send({"type": "websocket.close", "code": 1008})
            return
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        request = Request(scope)
        try:
            limit = await self._admit(request)
        except AppError as error:
            await errors.app_error(request, error)(scope, receive, send)
            return
        receive = _counted(receive, limit, self._settings.request_body_seconds)
        if _is_json(request):
            receive = _shallow(receive)
        await self._app(scope, receive, send)

    async def _admit(self, request: Request) -> int:
        """The most bytes its body may have. Raises what the request is refused with."""
        path = request.scope["path"].removeprefix(request.scope.get("root_path", ""))
        wanted = self._table_of(request.app).of(request.method, path)
        limit, length = wanted.body(self._settings), _length(request)
        if length > limit:
            raise TooLarge(f"At most {limit:,} bytes are taken here.", limit=limit)
        if wanted.scope is not None:
            caller = await self._caller(request, wanted.scope, basic=wanted.basic)
            request.state.caller = caller
            request.state.database = seen_by(self._database, caller, self._settings)
            if wanted.first is not None:
                arguments = (self._database, self._settings, caller, length)
                await run_in_threadpool(wanted.first, *arguments)
        elif wanted.counted:
            await self._rates.count(_address(request), write=True)
        return limit

    def _table_of(self, app: FastAPI) -> AccessTable:
        """Made with the first request: by then all routes are there."""
        if self._table is None:
            self._table = AccessTable(app.routes)
        return self._table

    async def _caller(self, request: Request, wanted: Scope, *, basic: bool) -> Caller:
        address = _address(request)
        write = request.method not in SAFE
        try:
            key = _sent_key(request.headers, basic=basic)
            cookie = session_key(request, self._settings) if key is None else None
            caller = await self._known(cookie if key is None else key)
            if caller.key is None:
                own_site.admit(request, self._settings)
            elif cookie is not None and write:
                own_site.from_own_page(request.headers)
        except Unauthorized as error:
            await self._rates.count(address, write=write)
            if self._provider is not None:
                error.extra["login"] = LOGIN
            raise
        await self._rates.count(caller.key or address, write=write)
        if not caller.scope.allows(wanted):
            challenge = f'Bearer realm="sapnet", error="insufficient_scope", scope="{wanted}"'
            raise Forbidden(
                f"This needs a key with the scope {wanted}; this one's is {caller.scope}.",
                headers={"WWW-Authenticate": challenge},
            )
        return caller

    async def _known(self, key: str | None) -> Caller:
        if caller := self._callers.remembered(key):
            return caller
        try:
            return await run_in_threadpool(self._look_up, key)
        except SQLAlchemyError as error:
            raise Unavailable(
                "The database cannot be asked for keys; see /readyz.", headers={"Retry-After": "5"}
            ) from error

    def _look_up(self, key: str | None) -> Caller:
        provider = self._provider
        if key is None or provider is None or not provider.takes_tokens or key.count(".") != 2:
            return self._callers.look_up(key)
        claims = provider.access_claims(key)
        owner, scope = identity(claims, self._settings)
        caller = Caller(owner, scope, f"oidc:{owner}")
        if claims["exp"] - time.time() > self._settings.key_cache_seconds:
            self._callers.remember(key, caller)
        return caller


def _sent_key(headers: Mapping[str, str], *, basic: bool) -> str | None:
    """RFC 6750, 2.1; "" for credentials of another kind, which are no key.

    Args:
        basic: whether the password of RFC 7617 is taken as well. Browsers send that to a site by
            themselves, so it is not for all routes.
    """
    kind, _, value = headers.get("authorization", "").strip().partition(" ")
    if not kind:
        return None
    if kind.lower() == "bearer":
        return value.strip()
    if basic and kind.lower() == "basic":
        try:
            return b64decode(value.strip(), validate=True).decode().partition(":")[2]
        except ValueError:
            return ""
    return ""


def _address(request: Request) -> str:
    return request.client.host if request.client else "local"


def _length(request: Request) -> int:
    text = request.headers.get("content-length", "")
    return int(text) if text.isdecimal() else 0


def _counted(receive: Receive, limit: int, seconds: float) -> Receive:
    """Count the body as it is read.

    FastAPI would make other errors than HTTPException a 400.

    Args:
        limit: bytes of the body.
        seconds: that the body may take, and one more for each `BYTES_A_SECOND` of it.

    Raises:
        HTTPException: at the first byte too many, or where the body comes too slowly.
    """
    total, began, whole = 0, time.monotonic(), False

    async def counted() -> Message:
        nonlocal total, whole
        if whole:  # what comes next is the client's leaving, for which nobody waits in vain
            return await receive()
        left = began + seconds + total / BYTES_A_SECOND - time.monotonic()
        try:
            message = await asyncio.wait_for(receive(), max(left, 0.001))
        except TimeoutError:
            close = {"Connection": "close"}
            raise HTTPException(408, "The body came too slowly.", close) from None
        whole = not message.get("more_body", False)
        total += len(message.get("body", b""))
        if total > limit:
            raise HTTPException(413, f"At most {limit:,} bytes are taken here.")
        return message

    return counted


def _is_json(request: Request) -> bool:
    kind = request.headers.get("content-type", "").split(";")[0].strip().lower()
    return kind in ("", "application/json") or kind.endswith("+json")


def _shallow(receive: Receive) -> Receive:
    """Raises an HTTPException at the first bracket too many, before anything parses the body."""
    from sapnet.data.depth import Depth  # loads numpy

    depth = Depth()

    async def shallow() -> Message:
        message = await receive()
        if depth.too_deep(message.get("body", b"")):
            raise TooDeep
        return message

    return shallow
