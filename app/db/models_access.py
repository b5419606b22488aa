"""Tables of what comes in with requests: keys, saved responses, files on their way.

A part of app/db/models.py, from where they are imported.
"""

from sqlalchemy import ForeignKey, Index, String
from sqlalchemy.orm import Mapped, mapped_column

from app.db.columns import Base, BlobRef, Created, DatasetRef, Id, Moment, RowId, UserId


class ApiKey(Base):
    """What is known about a key: see `app.auth.keys`. Never deleted, only revoked."""

    __tablename__ = "api_key"

    id: Mapped[Id]
    prefix: Mapped[str] = mapped_column(String(32), unique=True)
    sha256: Mapped[str] = mapped_column(String(64))
    """Of the whole key; not a blob."""
    owner: Mapped[str] = mapped_column(String(64))
    scope: Mapped[str] = mapped_column(String(16))
    name: Mapped[str] = mapped_column(String(100))
    created_at: Mapped[Created]
    expires_at: Mapped[Moment | None]
    revoked_at: Mapped[Moment | None]


class IdempotencyRecord(Base):
    """The answer to a request with an Idempotency-Key: see `app.http.idempotency`."""

    __tablename__ = "kept_answer"
    __table_args__ = (Index(None, "owner", "key", unique=True),)

    pk: Mapped[RowId]
    owner: Mapped[str] = mapped_column(String(64))
    """Of the key that asked; "" for none, which a unique index would take for different ones."""
    key: Mapped[str] = mapped_column(String(255))
    fingerprint: Mapped[str] = mapped_column(String(64))
    status: Mapped[int]
    location: Mapped[str]
    body: Mapped[str]
    created_at: Mapped[Moment] = mapped_column(index=True)


class BlobPin(Base):
    """A blob that is being stored and has no row yet; see `app.storage.garbage_collection`."""

    __tablename__ = "blob_pin"

    pk: Mapped[RowId]
    pinned_by: Mapped[str] = mapped_column(String(32), index=True)
    sha256: Mapped[str] = mapped_column(String(64), index=True)
    created_at: Mapped[Created]


class ImportFile(Base):
    """A file that was sent for a data set that is `importing`.

    One in pieces has several rows, in order. Gone when the import is over.
    """

    __tablename__ = "import_file"

    pk: Mapped[RowId]
    dataset_id: Mapped[DatasetRef]
    part: Mapped[str] = mapped_column(String(16))
    number: Mapped[int]
    """Which file of the import this is a piece of."""
    filename: Mapped[str]
    sha256: Mapped[BlobRef]


class Upload(Base):
    """A file on its way, by tus: see `app.uploads`."""

    __tablename__ = "upload"

    id: Mapped[Id]
    owner: Mapped[str | None] = mapped_column(String(64), index=True)
    filename: Mapped[str]
    about: Mapped[str]
    """The header Upload-Metadata, as it was sent."""
    length: Mapped[UserId]
    received: Mapped[UserId] = mapped_column(default=0)
    """Bytes that are stored: the offset at which to go on. Moved by compare-and-set."""
    created_at: Mapped[Created]
    expires_at: Mapped[Moment] = mapped_column(index=True)


class UploadPiece(Base):
    """Bytes of an upload, in the order of `start`."""

    __tablename__ = "upload_piece"
    __table_args__ = (Index(None, "upload_id", "start", unique=True),)

    pk: Mapped[RowId]
    upload_id: Mapped[str] = mapped_column(ForeignKey("upload.id", ondelete="CASCADE"))
    start: Mapped[UserId]
    size: Mapped[UserId]
    sha256: Mapped[BlobRef]
