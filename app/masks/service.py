"""Pseudo-masks of a job, in the order of your annotation ids."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import msgspec
from sqlalchemy import Row, select
from sqlalchemy.orm import Session

from app.db import Database
from app.models import PseudoMask

BATCH = 2_000


@dataclass(frozen=True, slots=True)
class Filter:
    """Which masks of which job. `detail` adds the mask before and after refinement."""

    job_id: str
    image_id: int | None = None
    category_id: int | None = None
    min_quality: float = 0.0
    detail: bool = False


def page(session: Session, wanted: Filter, limit: int, after: int | None) -> list[dict[str, Any]]:
    """At most `limit` masks whose annotation id is above `after`."""
    query = (
        select(
            PseudoMask.annotation_id,
            PseudoMask.image_id,
            PseudoMask.category_id,
            PseudoMask.segmentation,
            PseudoMask.x,
            PseudoMask.y,
            PseudoMask.w,
            PseudoMask.h,
            PseudoMask.area,
            PseudoMask.quality,
            PseudoMask.source,
            *([PseudoMask.extra] if wanted.detail else []),
        )
        .where(PseudoMask.job_id == wanted.job_id)
        .order_by(PseudoMask.annotation_id)
        .limit(limit)
    )
    if after is not None:
        query = query.where(PseudoMask.annotation_id > after)
    if wanted.image_id is not None:
        query = query.where(PseudoMask.image_id == wanted.image_id)
    if wanted.category_id is not None:
        query = query.where(PseudoMask.category_id == wanted.category_id)
    if wanted.min_quality > 0:
        query = query.where(PseudoMask.quality >= wanted.min_quality)
    return [_annotation(row) for row in session.execute(query)]


def lines(
    database: Database, wanted: Filter, limit: int | None, after: int | None
) -> Iterator[bytes]:
    """NDJSON, a batch at a time: a line at a time is a hundred times slower. No session is open
    while the client reads."""
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


def encode(document: Any) -> bytes:
    """JSON, without the detour through a response model: ten thousand masks are many numbers."""
    return msgspec.json.encode(document)


def _annotation(row: Row[Any]) -> dict[str, Any]:
    annotation = {
        "id": row.annotation_id,
        "image_id": row.image_id,
        "category_id": row.category_id,
        "segmentation": row.segmentation,
        "bbox": [row.x, row.y, row.w, row.h],
        "area": row.area,
        "quality": row.quality,
        "source": row.source,
    }
    return annotation | (row.extra or {}) if "extra" in row._fields else annotation
