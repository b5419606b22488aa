"""All masks of a job as NDJSON.

Of the 17 µs that a mask takes on its way from its row to a line, none is needed: what a job
delivered never changes. So its worker stores all lines as one blob, which is sent as it is, but for
the lines of masks that somebody decided about; where these are many, all come from the rows.
"""

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any, BinaryIO

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from app.db.models import Job, MaskDecision, PseudoMask
from app.db.session import Database
from app.errors import BlobMissing
from app.masks.service import BATCH, Filter, as_it_stands, encode, page, selected
from app.observability.log import log
from app.storage.store import CHUNK, Storage

_UNDECIDED = {
    "status": None,
    "revision": None,
    "correction": None,
    "decided_category": None,
    "rule_id": None,
    "_fields": (),
}


def write(path: Path, rows: Iterable[Mapping[str, Any]]) -> None:
    """Write the lines of masks that nobody decided about yet, by annotation id.

    Args:
        rows: columns of `PseudoMask`, by name.
    """
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
        stored = _stored(database, storage, wanted)
        if stored is not None:
            return stored
    return _selected(database, wanted, limit, after)


def _stored(database: Database, storage: Storage, wanted: Filter) -> Iterator[bytes] | None:
    """Return the blob with what was decided since.

    None where there is none, and where more was decided than should be in memory at once.
    """
    job = Job.id == wanted.job_id
    with database.read() as session:
        sha = session.scalar(select(Job.masks_sha).where(job))
        of_job = MaskDecision.job_id == wanted.job_id
        count = session.scalar(select(func.count()).select_from(MaskDecision).where(of_job)) or 0
        if sha is None or count > BATCH:
            return None
        decided = _decided(session, wanted) if count else {}
    try:  # now, not when the answer has begun
        file = storage.open(sha)
    except (BlobMissing, OSError) as error:
        log.warning("masks are read from their rows", job=wanted.job_id, error=repr(error))
        return None
    return _patched(file, wanted.job_id, decided)


def _decided(session: Session, wanted: Filter) -> dict[bytes, bytes]:
    """The lines of masks that somebody decided about, by annotation id."""
    ids = select(MaskDecision.annotation_id).where(MaskDecision.job_id == wanted.job_id)
    query = selected(wanted).where(PseudoMask.annotation_id.in_(ids))  # not through all rows
    masks = [as_it_stands(row) for row in session.execute(query)]
    return {str(mask["id"]).encode(): encode(mask) + b"\n" for mask in masks}


def _patched(file: BinaryIO, job_id: str, decided: dict[bytes, bytes]) -> Iterator[bytes]:
    start = len(f'{{"mask_id":"{job_id}.')
    with file:
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
