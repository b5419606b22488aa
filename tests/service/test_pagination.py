"""Pages of a list: every row once, in order, whatever the limit, and a cursor only where more
follows."""

from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from fastapi import Response
from sqlalchemy import String, create_engine, insert, select
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, aliased, mapped_column
from starlette.requests import Request

from app.http.pagination import Paging, paginate

SIZES = [0, 1, 4, 5, 6, 10]


class Base(DeclarativeBase):
    pass


class Thing(Base):
    __tablename__ = "thing"
    number: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(String(8))


def filled(rows: int) -> Session:
    engine = create_engine("sqlite://")
    Base.metadata.create_all(engine)
    session = Session(engine)
    values = [{"number": 3 * i - 7, "name": f"n{(i * 7) % 11:02}"} for i in range(rows)]
    if values:
        session.execute(insert(Thing), values)
    return session


def walk(session: Session, query: Any, key: Any, limit: int, **how: Any) -> list[list[Any]]:
    """All pages, each by the link in the one before."""
    pages, url = [], "/things?limit=5&state=open"
    while True:
        parts = urlsplit(url)
        headers = [(b"host", b"here")]
        scope = {"type": "http", "method": "GET", "path": parts.path, "headers": headers}
        request = Request(scope | {"query_string": parts.query.encode(), "server": ("here", 80)})
        response = Response()
        cursor = request.query_params.get("cursor")
        page = paginate(session, query, key, Paging(request, response, limit, cursor), **how)
        pages.append(page.items)
        link = response.headers.get("Link")
        assert (link is None) == (page.next is None)
        assert page.headers == ({} if link is None else {"Link": link})
        if link is None:
            return pages
        url = link[1 : link.index(">")]
        asked = parse_qs(urlsplit(url).query)
        assert asked == {"limit": ["5"], "state": ["open"], "cursor": [page.next]}


@pytest.mark.parametrize("descending", [False, True], ids=["rising", "falling"])
@pytest.mark.parametrize("column", ["number", "name"])
@pytest.mark.parametrize("rows", SIZES)
def test_every_row_once_in_order(rows: int, column: str, descending: bool) -> None:
    session, key = filled(rows), getattr(Thing, column)
    pages = walk(session, select(Thing), key, 5, descending=descending)
    assert [len(p) for p in pages[:-1]] == [5] * (len(pages) - 1)
    assert len(pages[-1]) <= 5
    assert len(pages) == max(1, -(-rows // 5))
    keys = [getattr(thing, column) for page in pages for thing in page]
    assert keys == sorted(keys, reverse=descending)
    assert len(set(keys)) == rows


def test_rows_of_several_tables_stay_together() -> None:
    other = aliased(Thing)
    query = select(Thing, other).join(other, other.number == Thing.number)
    pages = walk(filled(6), query, Thing.number, 4)
    assert [len(page) for page in pages] == [4, 2]
    assert all(one.number == two.number for page in pages for one, two in page)


def test_filters_of_the_query_hold_on_each_page() -> None:
    pages = walk(filled(10), select(Thing).where(Thing.number > 0), Thing.number, 2)
    assert [thing.number for page in pages for thing in page] == [2, 5, 8, 11, 14, 17, 20]
