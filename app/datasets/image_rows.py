"""Rows of images by their ids, a batch at a time."""

from collections.abc import Iterable, Iterator
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from app.db.models import Image

_BATCH = 500  # below SQLite's limit on bound values


def rows_of(session: Session, dataset_id: str, ids: Iterable[int]) -> Iterator[Any]:
    """Yield id, file name, size and subset of images."""
    wanted = list(dict.fromkeys(ids))
    query = select(Image.image_id, Image.file_name, Image.width, Image.height, Image.subset)
    query = query.where(Image.dataset_id == dataset_id)
    for start in range(0, len(wanted), _BATCH):
        some = Image.image_id.in_(wanted[start : start + _BATCH])
        yield from session.execute(query.where(some))


def images_of(session: Session, dataset_id: str, ids: Iterable[int]) -> dict[int, str]:
    """Return the file names of images by id."""
    return {row.image_id: row.file_name for row in rows_of(session, dataset_id, ids)}
