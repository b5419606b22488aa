"""What every request passes through."""

import re
import secrets
import time
from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.observability.log import begin_context, log
from app.observability.metrics import REQUEST_SECONDS, REQUESTS

_SOUND_ID = re.compile(r"[!-~]{1,128}")  # visible ASCII: it is written into logs and headers
_METHODS = ("GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "HEAD")  # a client may make up more
_UNLOGGED = ("/healthz", "/readyz", "/metrics")  # asked for every few seconds; logged at debug


class _HeadersSent(Exception):
    """Ends the handler of a HEAD request: nobody wants the rest."""


class HeadAsGet:
    """HEAD works on every GET route, and stops once the headers are known."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a HEAD on as a GET, and stop it once its headers are sent."""
        if scope["type"] != "http" or scope["method"] != "HEAD":
            await self.app(scope, receive, send)
            return

        async def send_headers(message: Message) -> None:
            if message["type"] != "http.response.start":
                raise _HeadersSent
            await send(message)
            await send({"type": "http.response.body"})

        try:
            await self.app({**scope, "method": "GET"}, receive, send_headers)
        except* _HeadersSent:
            pass


ELSEWHERE = "goes_elsewhere"
"""In a request's state: the address of another host that its answer means to redirect to."""


class Observed:
    """Counts, times and logs requests by their route's template, and gives each an id.

    The id is the client's own X-Request-ID where it sends a sound one; it stands in the answer and
    in every log line that is written on the way. Browsers are told not to guess types.
    """

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on; count, time and log it, and put its id into the answer."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        start, status = time.perf_counter(), 500
        request_id = _request_id(scope)
        method = scope["method"] if scope["method"] in _METHODS else "other"
        # Left bound: a request is a task with a context of its own, and the server logs in it too.
        begin_context(request_id=request_id)

        async def send_observed(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                route = getattr(scope.get("route"), "path", "(none)")
                REQUESTS.labels(method, route, status).inc()
                seconds = time.perf_counter() - start
                REQUEST_SECONDS.labels(method, route, status).observe(seconds)
                headers = MutableHeaders(scope=message)
                headers["X-Content-Type-Options"] = "nosniff"
                headers["X-Request-ID"] = request_id
                meant = scope.get("state", {}).get(ELSEWHERE)
                if "location" in headers and headers["location"] != meant:
                    headers["Location"] = _relative(headers["location"])
            await send(message)

        try:
            await self.app(scope, receive, send_observed)
        finally:
            write = log.debug if scope["path"] in _UNLOGGED else log.info
            milliseconds = round((time.perf_counter() - start) * 1000, 1)
            write(
                "request",
                method=scope["method"],
                path=scope["path"],
                status=status,
                ms=milliseconds,
            )


def _relative(location: str) -> str:
    """Strip scheme and host from a redirect's address.

    The framework builds it from the Host header: whoever sent that must not choose where the client
    goes.
    """
    parts = urlsplit(location)
    if not parts.netloc:
        return location
    path = "/" + parts.path.lstrip("/\\")  # //host would be another host
    return f"{path}?{parts.query}" if parts.query else path


def _request_id(scope: Scope) -> str:
    sent = Headers(scope=scope).get("x-request-id", "")
    return sent if _SOUND_ID.fullmatch(sent) else secrets.token_hex(8)
