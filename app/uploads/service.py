"""Uploads: begun, added to, finished, used, expired.

The bytes of an upload are blobs, a piece each, and a row says how many bytes are there. Both are
written together, and the row moves by compare-and-set: of two that add at the same place one does,
and after a crash the upload goes on from its last piece, at any API that shares the database.
"""

import shutil
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import cast

from sqlalchemy import Table, select, update
from sqlalchemy.orm import Session

from app.auth import quotas
from app.auth.keys import Caller
from app.db.columns import is_id, now
from app.db.models import Upload, UploadPiece
from app.db.session import Database, rows_changed
from app.errors import Conflict, NotFound, TooLarge
from app.settings import Settings
from app.storage import garbage_collection as blobs
from app.storage.store import CHUNK, Storage

MAX_ABOUT = 4_096


@dataclass(frozen=True, slots=True)
class Stored:
    """A finished upload: the digests of its pieces, in order."""

    filename: str
    size: int
    shas: tuple[str, ...]


class NotUsable(Exception):
    """No finished upload has this id. `hint` says what to do."""

    def __init__(self, detail: str, hint: str) -> None:
        super().__init__(detail)
        self.hint = hint


def begin(
    database: Database, settings: Settings, *, length: int, filename: str, about: str
) -> Upload:
    """A new upload of `length` bytes. Raises TooLarge, QuotaExceeded."""
    if length > settings.max_upload_bytes:
        limit = settings.max_upload_bytes
        raise TooLarge(f"At most {limit:,} bytes are taken.", limit=limit)
    with database.begin() as session:
        caller: Caller | None = session.info.get("caller")
        if caller is not None:
            quotas.room_for_upload(database, settings, caller, length)
        upload = Upload(filename=filename, about=about, length=length, expires_at=_expiry(settings))
        session.add(upload)
    return upload


def get(session: Session, upload_id: str) -> Upload:
    """Raises NotFound, for one that has expired as well."""
    upload = session.get(Upload, upload_id) if is_id(upload_id) else None
    if upload is None or upload.expires_at < now():
        raise NotFound("upload", upload_id)
    return upload


def add(
    database: Database,
    storage: Storage,
    settings: Settings,
    upload: Upload,
    start: int,
    path: Path,
    sha: str,
) -> int:
    """Add a file's bytes at `start`, where the upload has come to. The file is gone afterwards.

    Returns:
        Where the upload is now, in bytes.

    Raises:
        Conflict: somebody else has added, or the upload is gone.
    """
    size = path.stat().st_size
    after = start + size
    with blobs.pinned(database, storage, [sha]):
        storage.put_file(path, sha=sha, move=True)
        with database.begin() as session:
            here = (Upload.id == upload.id, Upload.received == start, Upload.length >= after)
            moved = update(Upload).where(*here, Upload.expires_at >= now())
            moved = moved.values(received=after, expires_at=_expiry(settings))
            if rows_changed(session, moved) != 1:
                raise Conflict("Other bytes came here meanwhile; ask by HEAD for the offset.")
            session.add(UploadPiece(upload_id=upload.id, start=start, size=size, sha256=sha))
    return after


def stored(database: Database, upload_id: str) -> Stored:
    """A finished upload's pieces. Raises NotUsable."""
    with database.read() as session:
        try:
            upload = get(session, upload_id)
        except NotFound:
            hint = "begin one by POST /uploads; the id is the end of its Location"
            raise NotUsable(f"there is no upload {upload_id!r}, or it has expired", hint) from None
        if upload.received != upload.length:
            detail = f"of the upload {upload_id} there are {upload.received:,} of {upload.length:,}"
            raise NotUsable(f"{detail} bytes", f"send the rest by PATCH /uploads/{upload_id}")
        pieces = select(UploadPiece.sha256).where(UploadPiece.upload_id == upload_id)
        shas = session.scalars(pieces.order_by(UploadPiece.start)).all()
        return Stored(upload.filename, upload.length, tuple(shas))


def assemble(storage: Storage, shas: Iterable[str], path: Path) -> None:
    """Write pieces into one file. Raises BlobMissing."""
    with path.open("wb") as file:
        for sha in shas:
            with storage.open(sha) as piece:
                shutil.copyfileobj(piece, file, CHUNK)


def remove(database: Database, upload_ids: Iterable[str]) -> int:
    """End uploads, as if they had expired.

    `clean_up` removes what they hold: one may have any number of pieces.

    Returns:
        How many there were.
    """
    ids = list(upload_ids)
    ended = update(Upload).where(Upload.id.in_(ids), Upload.expires_at >= now())
    with database.begin() as session:
        return rows_changed(session, ended.values(expires_at=now() - timedelta(seconds=1)))


def clean_up(database: Database) -> int:
    """Remove the rows of uploads that have expired, a batch at a time.

    Their blobs are left to `app.storage.garbage_collection`.

    Returns:
        How many uploads there were.
    """
    with database.read() as session:
        ids = session.scalars(select(Upload.id).where(Upload.expires_at < now())).all()
    uploads, pieces = (cast(Table, table.__table__) for table in (Upload, UploadPiece))
    for upload_id in ids:
        blobs.remove_in_batches(database, pieces, pieces.c.upload_id == upload_id)
        blobs.remove_in_batches(database, uploads, uploads.c.id == upload_id)
    return len(ids)


def _expiry(settings: Settings) -> datetime:
    return now() + timedelta(hours=settings.upload_expiry_hours)
