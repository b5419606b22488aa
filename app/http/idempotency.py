"""Idempotency-Key: a POST that is sent again makes nothing again, and gets the same answer.

After the IETF's draft-ietf-httpapi-idempotency-key-header-07:
- the same key with the same request: the first answer, word for word;
- with another request: 422;
- while the first is still at work: 409 with Retry-After.

The answer is a row, written in the transaction that makes what it is about (`save_response`). There
is no moment at which the one is there without the other, whatever plug is pulled, and of two that
pass the 409 (they went to different processes) the unique index lets one commit: the other one's
transaction is rolled back, and it gets the first one's answer. A request that was refused made
nothing, so its key is free for the corrected one.

A request is known by method, path, query, media type and body, hashed as it is read. A form's
boundary, which clients draw anew each time, is left out of the hash.
"""

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Annotated, Any

from fastapi import Depends, Header, Response
from fastapi.concurrency import run_in_threadpool
from pydantic import BaseModel
from python_multipart.multipart import parse_options_header
from sqlalchemy import delete, insert, select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session
from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app import errors
from app.auth.keys import ANYONE, Caller
from app.db.columns import now
from app.db.models import IdempotencyRecord
from app.db.session import Database
from app.errors import AppError, Conflict, Invalid, ValidationIssue
from app.settings import Settings

_KEY = re.compile(r"[!-~]{1,255}")
_RETRY_AFTER = "1"  # seconds
_ABOUT = "Sent again with the same key, a request makes nothing again and gets the same answer."
_KeyHeader = Header(pattern=f"^{_KEY.pattern}$", description=_ABOUT)


def _described(idempotency_key: Annotated[str | None, _KeyHeader] = None) -> None:
    """What `IdempotencyMiddleware` reads, for the API's description."""


IDEMPOTENT = Depends(_described)
"""For the `dependencies` of a route whose work calls `save_response`."""


def save_response(session: Session, status: int, location: str, body: BaseModel) -> None:
    """Save the response to this request, if it has an Idempotency-Key.

    To be called in the transaction that makes what the response is about.
    """
    once: _Once | None = session.info.get("once")
    if once is not None:
        once.save_response(session, status, location, body.model_dump_json())


class IdempotencyMiddleware:
    """Middleware of POST requests that have a key. Inside the gate: keys are each owner's own."""

    def __init__(self, app: ASGIApp, database: Database, settings: Settings) -> None:
        self._app, self._database = app, database
        self._kept_for = timedelta(hours=settings.idempotency_hours)
        self._at_work: set[tuple[str, str]] = set()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a POST that has a key once, and repeat that answer; pass all else on."""
        key = None
        if scope["type"] == "http" and scope["method"] == "POST":
            key = Headers(scope=scope).get("idempotency-key")
        if key is None:
            await self._app(scope, receive, send)
            return
        answer: Response
        try:
            await self._take_turns(scope, receive, send, key)
            return
        except AppError as error:
            answer = errors.app_error(Request(scope), error)
        except HTTPException as error:  # a body that is too large, found out while it was read
            answer = errors.http_error(Request(scope), error)
        await answer(scope, receive, send)

    async def _take_turns(self, scope: Scope, receive: Receive, send: Send, key: str) -> None:
        if not _KEY.fullmatch(key):
            raise _invalid_key(
                "1 to 255 visible ASCII characters, without spaces", "such as a UUID"
            )
        caller: Caller = scope.get("state", {}).get("caller", ANYONE)
        request_key = (caller.owner or "", key)
        if request_key in self._at_work:
            raise Conflict(
                "A request with this Idempotency-Key is still at work; ask again for its answer.",
                headers={"Retry-After": _RETRY_AFTER},
            )
        self._at_work.add(request_key)
        try:
            await self._once(scope, _Body(scope, receive), send, *request_key)
        finally:
            self._at_work.discard(request_key)

    async def _once(self, scope: Scope, body: "_Body", send: Send, owner: str, key: str) -> None:
        before = await run_in_threadpool(self._find, owner, key)
        if before is None:
            once = _Once(owner, key, body, self._kept_for)
            state = scope.setdefault("state", {})
            database: Database = state.get("database", self._database)
            state["database"] = database.for_request(once=once)
            try:
                await self._app(scope, body.receive, send)
                return
            except _Raced:
                before = await run_in_threadpool(self._find, owner, key)
        assert before is not None, "the unique index refused it, so it is there"
        if not await body.read():
            return  # the client has left
        if before.fingerprint != body.fingerprint():
            raise _invalid_key("this key was used for another request", "take a new key")
        headers = {"Location": before.location, "Idempotent-Replayed": "true"}
        answer = Response(before.body, before.status, headers, media_type="application/json")
        await answer(scope, body.receive, send)

    def _find(self, owner: str, key: str) -> IdempotencyRecord | None:
        query = select(IdempotencyRecord).where(
            IdempotencyRecord.owner == owner, IdempotencyRecord.key == key
        )
        with self._database.read() as session:
            return session.scalars(
                query.where(IdempotencyRecord.created_at > now() - self._kept_for)
            ).one_or_none()


class _Raced(Exception):
    """Another process committed the same key first."""


class _Body:
    """The request's body on its way to whoever reads it, hashed."""

    def __init__(self, scope: Scope, receive: Receive) -> None:
        self._receive, self._ended, self._left = receive, False, False
        headers = Headers(scope=scope)
        kind, options = parse_options_header(headers.get("content-type"))
        self._boundary = _boundary(kind, options)
        self._tail = b""
        self._hash = hashlib.sha256()
        for part in (scope["method"], scope["path"], scope["query_string"], kind):
            raw = part if isinstance(part, bytes) else part.encode()
            self._hash.update(b"%d:%b," % (len(raw), raw))

    async def receive(self) -> Message:
        message = await self._receive()
        if message["type"] == "http.request":
            self._update(message.get("body", b""))
            self._ended = not message.get("more_body", False)
        else:
            self._left = True
        return message

    async def read(self) -> bool:
        """To its end; False where the client left before."""
        while not self._ended and not self._left:
            await self.receive()
        return self._ended

    def fingerprint(self) -> str:
        """Of the request, once its body is read."""
        whole = self._hash.copy()
        whole.update(self._tail)
        return whole.hexdigest()

    def _update(self, data: bytes) -> None:
        if self._boundary:
            *parts, data = (self._tail + data).split(self._boundary)
            for part in parts:
                self._hash.update(part)
            sure = max(0, len(data) - len(self._boundary) + 1)  # after it one may begin
            data, self._tail = data[:sure], data[sure:]
        self._hash.update(data)


@dataclass(frozen=True, slots=True)
class _Once:
    owner: str
    key: str
    body: _Body
    kept_for: timedelta

    def save_response(self, session: Session, status: int, location: str, body: str) -> None:
        row: Mapping[str, Any] = {
            "owner": self.owner,
            "key": self.key,
            "fingerprint": self.body.fingerprint(),
            "status": status,
            "location": location,
            "body": body,
            "created_at": now(),
        }
        session.execute(
            delete(IdempotencyRecord).where(IdempotencyRecord.created_at <= now() - self.kept_for)
        )
        try:
            session.execute(insert(IdempotencyRecord).values(**row))
        except IntegrityError as error:
            raise _Raced from error


def _boundary(kind: bytes, options: Mapping[bytes, bytes]) -> bytes:
    return options.get(b"boundary", b"") if kind.startswith(b"multipart/") else b""


def _invalid_key(detail: str, hint: str) -> Invalid:
    return Invalid([ValidationIssue("header", "/Idempotency-Key", detail, hint)])
