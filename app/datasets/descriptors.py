"""Descriptors of images: made by a worker after their rows, read for statistics and rankings.

They go by the digest of the file, so that a new version of a data set needs none made again.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import numpy.typing as npt
import structlog
from sqlalchemy import Insert, Table, and_, exists, select
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.orm import Session

from app.db.models import Image, ImageDescriptor
from app.db.session import Database
from app.errors import BlobMissing, Unavailable
from app.settings import Settings
from app.storage.decode_budget import DECODING, IMPORT_PATIENCE
from app.storage.garbage_collection import remove_in_batches
from app.storage.store import Storage
from sapnet.data.descriptor import COUNT, VERSION, Descriptor, describe
from sapnet.data.images import ImageProblem, read_header

log = structlog.get_logger()

SCANNED = 2_000
"""Rows of images that are looked through by one query."""
BATCH = 32
"""Descriptors that are written together."""


@dataclass(frozen=True)
class Described:
    """The images of a data set that have a descriptor, N of them, by id.

    Attributes:
        ids: (N,) int64.
        hashes: (N,) uint64.
        features: (N, COUNT) uint8.
        missing: how many images have none yet.
        unreadable: how many images cannot be read, and so have none.
    """

    ids: npt.NDArray[np.int64]
    hashes: npt.NDArray[np.uint64]
    features: npt.NDArray[np.uint8]
    missing: int
    unreadable: int


def of_dataset(session: Session, dataset_id: str) -> Described:
    """Read the descriptors of a data set's images."""
    columns = (Image.image_id, ImageDescriptor.hash, ImageDescriptor.features)
    own = and_(ImageDescriptor.sha256 == Image.sha256, ImageDescriptor.version == VERSION)
    query = select(*columns, ImageDescriptor.sha256).outerjoin(ImageDescriptor, own)
    query = query.where(Image.dataset_id == dataset_id).order_by(Image.image_id)
    ids: list[int] = []
    hashes: list[int] = []
    features: list[bytes] = []
    missing = unreadable = 0
    for image_id, hash_, some, sha in session.execute(query):
        if sha is None:
            missing += 1
        elif hash_ is None or some is None or len(some) != COUNT:
            unreadable += 1
        else:
            ids.append(image_id)
            hashes.append(hash_)
            features.append(some)
    return Described(
        np.array(ids, np.int64),
        np.array(hashes, np.int64).view(np.uint64),
        np.frombuffer(b"".join(features), np.uint8).reshape(-1, COUNT),
        missing,
        unreadable,
    )


def lacking(session: Session, after: int) -> tuple[list[str], int | None]:
    """Look through some images for files without a descriptor.

    Args:
        after: key of the row to begin behind.

    Returns:
        Digests of such files, and the key of the last row; None where there are no more.
    """
    last = session.scalar(
        select(Image.pk).where(Image.pk > after).order_by(Image.pk).offset(SCANNED - 1).limit(1)
    )
    own = and_(ImageDescriptor.sha256 == Image.sha256, ImageDescriptor.version == VERSION)
    query = select(Image.sha256).outerjoin(ImageDescriptor, own)
    query = query.where(Image.pk > after, ImageDescriptor.sha256.is_(None))
    if last is not None:
        query = query.where(Image.pk <= last)
    return list(dict.fromkeys(session.scalars(query.order_by(Image.pk)))), last


def newest(session: Session) -> int:
    """Key of the newest row of an image; 0 where there is none."""
    return session.scalar(select(Image.pk).order_by(Image.pk.desc()).limit(1)) or 0


def make(
    database: Database,
    storage: Storage,
    settings: Settings,
    shas: Sequence[str],
    stopping: Callable[[], bool] = lambda: False,
) -> int:
    """Describe files, and write the descriptors a batch at a time.

    Files that are gone, and those for which there is no memory now, are left out.

    Returns:
        How many were written.
    """
    written, rows = 0, []
    for sha in shas:
        if stopping():
            break
        try:
            rows.append(_row(sha, _described(storage, settings, sha)))
        except (BlobMissing, Unavailable) as error:
            log.warning("an image is not described", sha256=sha, error=str(error))
        if len(rows) == BATCH:
            written += _write(database, rows)
            rows = []
    return written + _write(database, rows)


def clean_up(database: Database) -> None:
    """Remove the descriptors of files that no image has any more, a batch at a time."""
    table = cast(Table, ImageDescriptor.__table__)
    has = exists().where(Image.__table__.c.sha256 == table.c.sha256)
    remove_in_batches(database, table, ~has)


def _described(storage: Storage, settings: Settings, sha: str) -> Descriptor | None:
    path = storage.local_path(sha)
    try:
        height, width = read_header(path, settings.max_image_pixels).size
        with DECODING.room(height * width, IMPORT_PATIENCE):
            return describe(path, settings.max_image_pixels)
    except ImageProblem:
        return None


def _row(sha: str, made: Descriptor | None) -> dict[str, Any]:
    signed = None if made is None else int(np.uint64(made.hash).astype(np.int64))
    features = None if made is None else made.features
    return {"sha256": sha, "version": VERSION, "hash": signed, "features": features}


def _write(database: Database, rows: list[dict[str, Any]]) -> int:
    if rows:
        with database.begin() as session:
            session.execute(_insert(session), rows)
    return len(rows)


def _insert(session: Session) -> Insert:
    """INSERT that takes the place of what an earlier release, or another worker, has made."""
    table = cast(Table, ImageDescriptor.__table__)
    made = postgresql if session.get_bind().dialect.name == "postgresql" else sqlite
    insertion: Any = made.insert(table)
    new = {name: insertion.excluded[name] for name in ("version", "hash", "features")}
    changed: Insert = insertion.on_conflict_do_update(index_elements=["sha256"], set_=new)
    return changed
