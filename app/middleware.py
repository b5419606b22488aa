"""What every request passes through."""

import time

from prometheus_client import Counter, Histogram
from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

REQUESTS = Counter("sapnet_http_requests", "Requests answered.", ["method", "route", "status"])
SECONDS = Histogram("sapnet_http_request_seconds", "To the answer's headers.", ["method", "route"])


class _HeadersSent(Exception):
    """Ends the handler of a HEAD request: nobody wants the rest."""


class HeadAsGet:
    """HEAD works on every GET route, and stops once the headers are known."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
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


class Observed:
    """Counts and times requests by their route's template, and has browsers not guess types."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        start = time.perf_counter()

        async def send_observed(message: Message) -> None:
            if message["type"] == "http.response.start":
                route = getattr(scope.get("route"), "path", "(none)")
                REQUESTS.labels(scope["method"], route, message["status"]).inc()
                SECONDS.labels(scope["method"], route).observe(time.perf_counter() - start)
                MutableHeaders(scope=message)["X-Content-Type-Options"] = "nosniff"
            await send(message)

        await self.app(scope, receive, send_observed)
