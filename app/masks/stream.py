"""All masks of a job as NDJSON.

Of the 17 µs that a mask takes on its way from its row to a line, none is needed: what a job
delivered never changes. So its worker stores all lines as one blob, which is sent as it is, but for
the lines of masks that somebody decided about.
"""

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from app.db import Database
from app.masks.service import BATCH, Filter, as_it_stands, encode, page, selected
from app.models import Job, MaskDecision, PseudoMask
from app.storage import CHUNK, Storage

_UNDECIDED = {"status": None, "revision": None, "correction": None, "_fields": ()}


def write(path: Path, rows: Iterable[Mapping[str, Any]]) -> None:
    """The lines of masks that nobody decided about yet, by annotation id. rows: columns of
    `PseudoMask`, by name."""
    made = [
        (row["annotation_id"], encode(as_it_stands(SimpleNamespace(**row, **_UNDECIDED))))
        for row in rows
    ]
    with path.open("wb") as file:
        file.writelines(line + b"\n" for _, line in sorted(made))


def lines(
    database: Database, storage: Storage, wanted: Filter, limit: int | None, after: int | None
) -> Iterator[bytes]:
    """NDJSON in pieces of many lines. No session is open while the client reads."""
    if wanted == Filter(wanted.job_id) and limit is None and after is None:
        with database.read() as session:
            sha = session.scalar(select(Job.masks_sha).where(Job.id == wanted.job_id))
            decided = _decided(session, wanted) if sha else {}
        if sha:
            return _stored(storage.local_path(sha), wanted.job_id, decided)
    return _selected(database, wanted, limit, after)


def _decided(session: Session, wanted: Filter) -> dict[bytes, bytes]:
    """The lines of masks that somebody decided about, by annotation id."""
    ids = select(MaskDecision.annotation_id).where(MaskDecision.job_id == wanted.job_id)
    query = selected(wanted).where(PseudoMask.annotation_id.in_(ids))  # not through all rows
    masks = [as_it_stands(row) for row in session.execute(query)]
    return {str(mask["id"]).encode(): encode(mask) + b"\n" for mask in masks}


def _stored(path: Path, job_id: str, decided: dict[bytes, bytes]) -> Iterator[bytes]:
    start = len(f'{{"mask_id":"{job_id}.')
    with path.open("rb") as file:
        if not decided:
            while chunk := file.read(CHUNK):
                yield chunk
            return
        while some := file.readlines(CHUNK):
            ids = (line[start : line.index(b'"', start)] for line in some)
            yield b"".join(decided.get(i, line) for i, line in zip(ids, some, strict=True))


def _selected(
    database: Database, wanted: Filter, limit: int | None, after: int | None
) -> Iterator[bytes]:
    """A batch at a time: a line at a time is a hundred times slower."""
    left = limit
    while left is None or left > 0:
        size = BATCH if left is None else min(BATCH, left)
        with database.read() as session:
            masks = page(session, wanted, size, after)
        if not masks:
            return
        yield b"".join(encode(mask) + b"\n" for mask in masks)
        if len(masks) < size:
            return
        after = masks[-1]["id"]
        left = None if left is None else left - len(masks)
