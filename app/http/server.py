"""The HTTP server: uvicorn, with limits on what a connection may hold without asking anything.

uvicorn waits for ever for the rest of a request's head, of any size, and a process has few file
descriptors: half-sent requests would lock everybody else out.
"""

import asyncio
import resource
from contextlib import suppress
from typing import Any

import uvicorn
from fastapi import FastAPI
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from app.settings import Settings

OWN_DESCRIPTORS = 64  # of the database, storage, logs, and files that are read and written
MAX_DESCRIPTORS = 1 << 16
MAX_HEAD_BYTES = 1 << 17
HEAD_TOO_LARGE = b"\r\n".join(
    [
        b"HTTP/1.1 431 Request Header Fields Too Large",
        b"content-length: 0",
        b"connection: close",
        b"",
        b"",
    ]
)


def server_config(app: FastAPI, settings: Settings) -> uvicorn.Config:
    """The configuration of a server of this application."""
    return uvicorn.Config(
        app,
        http=_protocol(settings.request_head_seconds),
        ws="none",
        log_level=settings.log_level,
        log_config=None,  # app.observability.logging has set it up
        access_log=False,  # app.http.middleware writes a line a request
        limit_concurrency=_connections(settings.max_connections),
        timeout_graceful_shutdown=3,
    )


def _connections(wanted: int) -> int:
    """Return at most `wanted`, as far as the system's limit on descriptors goes.

    Each request may need one for its connection and one for a file. The limit is raised as far as
    it may be.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = MAX_DESCRIPTORS if hard == resource.RLIM_INFINITY else min(hard, MAX_DESCRIPTORS)
    if soft != resource.RLIM_INFINITY and soft < most:
        with suppress(OSError, ValueError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))
            soft = most
    return max(8, min(wanted, (soft - OWN_DESCRIPTORS) // 2))


def _protocol(head_seconds: float) -> type[asyncio.Protocol]:
    class LimitedHead(HttpToolsProtocol):
        """Closes a connection whose next request's head takes too long, or is too large."""

        _timer: asyncio.TimerHandle | None = None
        _head_bytes = 0

        def connection_made(self, transport: Any) -> None:
            super().connection_made(transport)
            self._start_timer()

        def connection_lost(self, exc: Exception | None) -> None:
            self._stop_timer()
            super().connection_lost(exc)

        def data_received(self, data: bytes) -> None:
            before = self.cycle
            super().data_received(data)
            if self.cycle is not before:  # the head is whole
                self._stop_timer()
            elif before is None or before.response_complete:
                self._head_bytes += len(data)
                if self._head_bytes > MAX_HEAD_BYTES and not self.transport.is_closing():
                    self.transport.write(HEAD_TOO_LARGE)
                    self.transport.close()
                elif self._timer is None:
                    self._start_timer()

        def _start_timer(self) -> None:
            self._timer = self.loop.call_later(head_seconds, self.transport.abort)

        def _stop_timer(self) -> None:
            self._head_bytes = 0
            if self._timer is not None:
                self._timer.cancel()
                self._timer = None

    return LimitedHead
