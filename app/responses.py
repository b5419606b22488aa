"""Answers that are stored files: ETag, If-None-Match, Range and HEAD."""

import re

from fastapi import Request, Response
from fastapi.responses import FileResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.errors import RangeNotSatisfiable
from app.storage import Storage

IMMUTABLE = "private, max-age=31536000, immutable"
_FROM = re.compile(r"\s*bytes\s*=\s*(\d+)\s*-\s*\d*\s*")


def blob_response(
    request: Request,
    storage: Storage,
    sha: str,
    *,
    media_type: str,
    filename: str | None = None,
) -> Response:
    """A blob. Its digest is its ETag, and it never changes. Raises BlobMissing,
    RangeNotSatisfiable. `filename` makes it a download by that name."""
    headers = {
        "ETag": f'"{sha}"',
        "Cache-Control": IMMUTABLE,
        "X-Content-Type-Options": "nosniff",
    }
    if _matches(request.headers.get("if-none-match"), sha):
        return Response(status_code=304, headers=headers)
    path = storage.local_path(sha)
    stat = path.stat()
    start = _FROM.fullmatch(request.headers.get("range", ""))
    if start and int(start[1]) >= stat.st_size:
        raise RangeNotSatisfiable(stat.st_size)
    return FileResponse(
        path, headers=headers, media_type=media_type, filename=filename, stat_result=stat
    )


def _matches(if_none_match: str | None, sha: str) -> bool:
    tags = [tag.strip().removeprefix("W/") for tag in (if_none_match or "").split(",")]
    return "*" in tags or f'"{sha}"' in tags


class _HeadersSent(Exception):
    """Ends the handler of a HEAD request: nobody wants the rest."""


class HeadAsGet:
    """ASGI middleware: HEAD works on every GET route, and stops once the headers are known."""

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
