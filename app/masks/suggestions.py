"""A mask mended by clicks: the door to `sapnet.proposals.interactive.click_refine`, which loads no
torch."""

from pathlib import Path
from typing import Any

import numpy as np
from sqlalchemy import select
from sqlalchemy.orm import Session

from app.db.models import Image
from app.errors import Invalid, ValidationIssue
from app.masks import review
from app.masks.rle import checked, measured
from app.masks.schemas import ClickIn, SuggestIn
from app.settings import Settings
from app.storage.images import decoded_image
from app.storage.store import Storage
from sapnet.data.masks import decode, encode

NEAR = 3.0  # pixels: a negative click so near to the annotation's own point is meant against it


def find(session: Session, mask_id: str) -> tuple[dict[str, Any], str]:
    """A `ReviewMask`, and the digest of its image. Raises NotFound, Conflict."""
    row, job = review.row_of(session, mask_id)
    own = Image.dataset_id == job.dataset_id, Image.image_id == row.image_id
    return review.with_point(row), session.scalars(select(Image.sha256).where(*own)).one()


def suggest(
    storage: Storage, settings: Settings, mask: dict[str, Any], sha: str, asked: SuggestIn
) -> dict[str, Any]:
    """segmentation, bbox, area: the mask that honours the clicks. Raises Invalid."""
    from sapnet.proposals.interactive import click_refine as interactive

    size = mask["segmentation"]["size"]
    present = mask["segmentation"]
    if asked.segmentation is not None:
        present = checked(asked.segmentation, size, may_be_empty=True)
    if issues := _faults(asked.points, size):
        raise Invalid(issues)
    now = decode(present)
    point = _own_point(mask["point"], now, asked.points)
    clicks = [interactive.Click(p.x, p.y, p.positive) for p in (*point, *asked.points)]
    others = [mask.get("selected"), mask.get("refined"), mask.get("delivered")]
    others += [candidate["segmentation"] for candidate in mask["candidates"]]
    path = Path(storage.local_path(sha))
    try:
        with decoded_image(path, settings.max_image_pixels) as image:
            found = interactive.suggest(image, clicks, now, [decode(o) for o in others if o])
    except ValueError as error:
        hint = "click once on the object, or send the mask to begin with"
        raise Invalid([ValidationIssue("body", "/points", str(error), hint)]) from error
    rle = encode(found)
    return {"segmentation": rle, **measured(rle)}


def _faults(points: list[ClickIn], size: list[int]) -> list[ValidationIssue]:
    height, width = size
    return [
        ValidationIssue(
            "body",
            f"/points/{index}",
            f"the point ({p.x:g}, {p.y:g}) is outside its image of {width}×{height} pixels",
            "0 ≤ x < width and 0 ≤ y < height",
        )
        for index, p in enumerate(points)
        if not (0 <= p.x < width and 0 <= p.y < height)
    ]


def _own_point(point: list[float], now: Any, asked: list[ClickIn]) -> list[ClickIn]:
    """The annotation's point, which stays in the mask where it is and nobody clicks it away."""
    x, y = point
    against = any(not p.positive and np.hypot(p.x - x, p.y - y) <= NEAR for p in asked)
    return [ClickIn(x=x, y=y, positive=True)] if now[int(y), int(x)] and not against else []
