"""The masks that a job delivers, written under its lease."""

import math
import time
from collections.abc import Iterator
from itertools import islice
from typing import Any, cast

from sqlalchemy import Table, insert

from app.db.models import PseudoMask
from app.storage.garbage_collection import PAUSE_SECONDS
from worker.jobs.context import JobContext
from worker.jobs.transitions import remove_under_lease
from worker.runtime.lease import renew_lease

BATCH = 500
"""Masks in one transaction: a fraction of a second, which is how long others may have to wait."""


def record_masks(ctx: JobContext, masks: Iterator[dict[str, Any]]) -> int:
    """Write the masks, each batch under the lease.

    Those of an attempt that got no further are removed before. Nobody sees any before the job has
    results; where that never comes, `app.masks.leftovers` removes them.

    Args:
        masks: columns of `PseudoMask`, by name.

    Returns:
        How many there were.

    Raises:
        LeaseLost: the job is no longer ours, or its cancellation came first.
    """
    table = cast(Table, PseudoMask.__table__)
    remove_under_lease(ctx, table, table.c.job_id == ctx.job_id)
    count = 0
    while rows := list(islice(masks, BATCH)):
        with ctx.database.begin() as session:
            renew_lease(session, ctx.lease, ctx.settings, unless_cancelled=True)
            session.execute(insert(PseudoMask), rows)
        count += len(rows)
        time.sleep(PAUSE_SECONDS)
    return count


def box_columns(mask: dict[str, Any]) -> dict[str, float]:
    """The columns of a mask's box, from COCO's x, y, width and height."""
    x, y, w, h = map(finite, mask["bbox"])
    return {"x": x, "y": y, "w": w, "h": h}


def finite(value: Any) -> float:
    """Return a number of a result.

    Raises:
        ValueError: it is one that JSON has no word for.
    """
    number = float(value)
    if not math.isfinite(number):
        raise ValueError(f"{value} is no number for JSON")
    return number
