"""Cursor paging: `?cursor=…&limit=…` in, `next` and `Link: <…>; rel="next"` out."""

import base64
import binascii
import json
from typing import Annotated, TypeVar

from fastapi import Query, Request, Response

from app.db.columns import is_id
from app.errors import Fault, Invalid

Cursor = Annotated[str | None, Query(min_length=1, description="`next` of the page before; opaque")]
Limit = Annotated[int, Query(ge=1, le=1000, description="at most so many")]

T = TypeVar("T", int, str)


def encode(key: int | str) -> str:
    return base64.urlsafe_b64encode(json.dumps(key).encode()).decode().rstrip("=")


def decode(cursor: str | None, kind: type[T]) -> T | None:
    """The key that a cursor stands for; None for none. Raises Invalid for what is no cursor."""
    if cursor is None:
        return None
    try:
        padded = cursor + "=" * (-len(cursor) % 4)
        key = json.loads(base64.b64decode(padded, altchars=b"-_", validate=True))
    except (binascii.Error, ValueError, RecursionError):
        key = None
    fits = is_id(key) if isinstance(key, str) else isinstance(key, int) and abs(key) < 2**63
    if type(key) is not kind or not fits:
        raise Invalid([Fault("query", "/cursor", "not a cursor", "use `next` of the last page")])
    return key


def link_next(request: Request, response: Response, cursor: str | None) -> None:
    """Name the next page in the answer's Link header, if there is one."""
    if cursor is not None:
        url = request.url.include_query_params(cursor=cursor)
        # Relative: what host and scheme the client used is for the client to know.
        response.headers["Link"] = f'<{url.path}?{url.query}>; rel="next"'
