"""Pseudo-masks of a job as they stand, with what was decided about each."""

from dataclasses import dataclass
from typing import Any

import msgspec
from sqlalchemy import Select, and_, func, select
from sqlalchemy.orm import Session

from app.db.models import MaskDecision, MaskStatus, PseudoMask
from app.masks.rle import measured

BATCH = 2_000


@dataclass(frozen=True, slots=True)
class Filter:
    """Which masks of which job.

    Attributes:
        detail: whether to add the mask before and after refinement, and the other candidates.
    """

    job_id: str
    image_id: int | None = None
    category_id: int | None = None
    min_quality: float = 0.0
    max_quality: float = 1.0
    status: MaskStatus | None = None
    detail: bool = False


def selected(wanted: Filter) -> Select[Any]:
    """The masks, in no order; rows for `as_it_stands`.

    A mask is of the class that it was given last.
    """
    decided = and_(
        MaskDecision.job_id == PseudoMask.job_id,
        MaskDecision.annotation_id == PseudoMask.annotation_id,
    )
    columns: list[Any] = [
        PseudoMask.job_id,
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
        PseudoMask.point_x,
        PseudoMask.point_y,
        MaskDecision.status,
        MaskDecision.revision,
        MaskDecision.segmentation.label("correction"),
        MaskDecision.category_id.label("decided_category"),
        MaskDecision.rule_id,
        *([PseudoMask.extra] if wanted.detail else []),
    ]
    query = select(*columns).outerjoin(MaskDecision, decided)
    query = query.where(PseudoMask.job_id == wanted.job_id)
    if wanted.image_id is not None:
        query = query.where(PseudoMask.image_id == wanted.image_id)
    if wanted.category_id is not None:
        stands = func.coalesce(MaskDecision.category_id, PseudoMask.category_id)
        query = query.where(stands == wanted.category_id)
    if wanted.min_quality > 0:
        query = query.where(PseudoMask.quality >= wanted.min_quality)
    if wanted.max_quality < 1:
        query = query.where(PseudoMask.quality <= wanted.max_quality)
    if wanted.status is not None:
        status = func.coalesce(MaskDecision.status, MaskStatus.OPEN)
        query = query.where(status == wanted.status)
    return query


def page(session: Session, wanted: Filter, limit: int, after: int | None) -> list[dict[str, Any]]:
    """At most `limit` masks whose annotation id is above `after`, in the order of these ids."""
    query = selected(wanted).order_by(PseudoMask.annotation_id).limit(limit)
    if after is not None:
        query = query.where(PseudoMask.annotation_id > after)
    return [as_it_stands(row) for row in session.execute(query)]


def encode(document: Any) -> bytes:
    """JSON, without the detour through a response model: ten thousand masks are many numbers."""
    return msgspec.json.encode(document)


def as_it_stands(row: Any) -> dict[str, Any]:
    """A row of `selected` as a `PseudoMaskOut`: a correction takes the delivered mask's place."""
    mask = {
        "mask_id": f"{row.job_id}.{row.annotation_id}",
        "id": row.annotation_id,
        "image_id": row.image_id,
        "category_id": row.category_id,
        "segmentation": row.segmentation,
        "bbox": [row.x, row.y, row.w, row.h],
        "area": row.area,
        "quality": row.quality,
        "source": row.source,
        "status": row.status or MaskStatus.OPEN,
        "revision": row.revision or 0,
    }
    if "extra" in row._fields:
        mask |= row.extra or {}
        mask["candidates"] = mask.get("candidates") or []
    if row.decided_category not in (None, row.category_id):
        mask |= {"category_id": row.decided_category, "delivered_category_id": row.category_id}
    if row.rule_id is not None:
        mask["rule_id"] = row.rule_id
    if row.correction is not None:
        mask |= {"segmentation": row.correction, "source": "confirmed", **measured(row.correction)}
        if "extra" in row._fields:
            mask["delivered"] = row.segmentation
    return mask
