"""Cursor paging: `?cursor=…&limit=…` in, `next` and `Link: <…>; rel="next"` out."""

import base64
import binascii
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from operator import attrgetter
from typing import Annotated, Any, Generic, TypeVar

from fastapi import Depends, Query, Request, Response
from sqlalchemy import Select
from sqlalchemy.orm import InstrumentedAttribute, Session

from app.db.columns import is_id
from app.errors import Invalid, ValidationIssue

Cursor = Annotated[str | None, Query(min_length=1, description="`next` of the page before; opaque")]

Key = TypeVar("Key", int, str)
Item = TypeVar("Item")


def encode(key: int | str) -> str:
    """Return the cursor that stands for the key of a page's last item."""
    return base64.urlsafe_b64encode(json.dumps(key).encode()).decode().rstrip("=")


def decode(cursor: str | None, kind: type[Key]) -> Key | None:
    """Return the key that a cursor stands for; None for none.

    Raises:
        Invalid: it is no cursor.
    """
    if cursor is None:
        return None
    try:
        padded = cursor + "=" * (-len(cursor) % 4)
        key = json.loads(base64.b64decode(padded, altchars=b"-_", validate=True))
    except (binascii.Error, ValueError, RecursionError):
        key = None
    fits = is_id(key) if isinstance(key, str) else isinstance(key, int) and abs(key) < 2**63
    if type(key) is not kind or not fits:
        raise Invalid(
            [ValidationIssue("query", "/cursor", "not a cursor", "use `next` of the last page")]
        )
    return key


@dataclass(frozen=True)
class Page(Generic[Item]):
    """Items of a list, and the cursor of those that follow; None where none do.

    Attributes:
        headers: for an endpoint that makes its own response.
    """

    items: list[Item]
    next: str | None
    headers: dict[str, str]


@dataclass(frozen=True)
class Paging:
    """Which page of a list is wanted."""

    request: Request
    response: Response
    limit: int
    cursor: str | None

    def after(self, kind: type[Key]) -> Key | None:
        """Return the key that the page begins after; None where it is the first.

        Raises:
            Invalid: what came is no cursor.
        """
        return decode(self.cursor, kind)

    def page(self, rows: Sequence[Item], key_of: Callable[[Item], int | str]) -> Page[Item]:
        """Return the page that begins with the first of the rows, with a Link header to the next.

        Args:
            rows: one more than `limit`, where there are so many.
            key_of: what the next page begins after, of an item.
        """
        items = list(rows[: self.limit])
        if len(rows) <= self.limit:
            return Page(items, None, {})
        cursor = encode(key_of(items[-1]))
        url = self.request.url.include_query_params(cursor=cursor)
        # Relative: what host and scheme the client used is for the client to know.
        headers = {"Link": f'<{url.path}?{url.query}>; rel="next"'}
        self.response.headers.update(headers)
        return Page(items, cursor, headers)


def paging(default: int, most: int = 1_000) -> Any:
    """Return the dependency that reads `limit` and `cursor`.

    Args:
        default: limit where none is given. most: the largest that may be.
    """
    limits = Query(ge=1, le=most, description="at most so many")

    def read(
        request: Request,
        response: Response,
        limit: Annotated[int, limits] = default,
        cursor: Cursor = None,
    ) -> Paging:
        return Paging(request, response, limit, cursor)

    return Depends(read)


def paginate(
    session: Session,
    query: Select[*tuple[Any, ...]],
    key: InstrumentedAttribute[int] | InstrumentedAttribute[str],
    paging: Paging,
    *,
    descending: bool = False,
) -> Page[Any]:
    """Return the page of a query's rows that is wanted, in the order of a unique key.

    Rows of one column, or of one table, are given as what is in them.
    """
    after = paging.after(key.type.python_type)
    if after is not None:
        query = query.where(key < after if descending else key > after)
    ordered = query.order_by(key.desc() if descending else key.asc())
    rows = session.execute(ordered.add_columns(key.label("page_key")).limit(paging.limit + 1)).all()
    page = paging.page(rows, attrgetter("page_key"))
    items = [row[0] if len(row) == 2 else tuple(row[:-1]) for row in page.items]
    return Page(items, page.next, page.headers)
