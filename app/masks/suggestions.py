"""A mask corrected by clicks: by the learned prompter, or by the image's edges without torch."""

from pathlib import Path
from typing import Any

import numpy as np
from sqlalchemy import select
from sqlalchemy.orm import Session

from app.db.models import Image
from app.errors import Invalid, ValidationIssue
from app.masks import review
from app.masks.click_model import ClickModel
from app.masks.rle import checked, measured
from app.masks.schemas import ClickIn, SuggestIn
from app.settings import Settings
from app.storage.images import decoded_image
from app.storage.store import Storage
from sapnet.data.masks import decode, encode
from sapnet.proposals.interactive.clicks import Click
from sapnet.types import BoolArray

NEAR = 3.0  # pixels: a negative click so near to the annotation's own point is meant against it


def find(session: Session, mask_id: str) -> tuple[dict[str, Any], str]:
    """A `ReviewMask`, and the digest of its image. Raises NotFound, Conflict."""
    row, job = review.row_of(session, mask_id)
    own = Image.dataset_id == job.dataset_id, Image.image_id == row.image_id
    return review.with_point(row), session.scalars(select(Image.sha256).where(*own)).one()


def suggest(
    storage: Storage,
    settings: Settings,
    model: ClickModel,
    mask: dict[str, Any],
    sha: str,
    asked: SuggestIn,
) -> dict[str, Any]:
    """segmentation, bbox, area: the mask that honours the clicks. Raises Invalid, Unavailable."""
    size = mask["segmentation"]["size"]
    present = mask["segmentation"]
    if asked.segmentation is not None:
        present = checked(asked.segmentation, size, may_be_empty=True)
    if issues := _faults(asked.points, size):
        raise Invalid(issues)
    now = decode(present)
    point = _own_point(mask["point"], now, asked.points)
    clicks = [Click(p.x, p.y, p.positive) for p in (*point, *asked.points)]
    image = decoded_image(Path(storage.local_path(sha)), settings.max_image_pixels)
    try:
        if settings.click_method == "prompter":
            corrected = model.refine(sha, image, clicks, now)
        else:
            from sapnet.proposals.interactive.click_refine import suggest as by_edges

            with image as pixels:
                corrected = by_edges(pixels, clicks, now, _alternatives(mask))
    except ValueError as error:
        hint = "click once on the object, or send the mask to begin with"
        raise Invalid([ValidationIssue("body", "/points", str(error), hint)]) from error
    rle = encode(corrected)
    return {"segmentation": rle, **measured(rle)}


def _alternatives(mask: dict[str, Any]) -> list[BoolArray]:
    """What else the object might be, (H, W) bool each."""
    others = [mask.get("selected"), mask.get("refined"), mask.get("delivered")]
    others += [candidate["segmentation"] for candidate in mask["candidates"]]
    return [decode(other) for other in others if other]


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
