"""Two jobs side by side: the masks that both have, and how far the second moved from the first."""

from typing import Any

from sqlalchemy import and_, func, select
from sqlalchemy.orm import Session, aliased

from app.db.models import Dataset, Job, PseudoMask
from app.errors import Conflict
from app.jobs.service import get_successful


def compare(session: Session, job_id: str, other_id: str) -> dict[str, Any]:
    """A `Comparison` of all masks, those that changed most first; but for `next`.

    Raises NotFound; Conflict where one of them has no results, or where their data sets are not
    versions of one another: an annotation id then names other things.
    """
    before, after = get_successful(session, job_id), get_successful(session, other_id)
    if not _lineage(session, before) & _lineage(session, after):
        raise Conflict("The data sets of these jobs are not versions of one another.")
    jobs = {"before": before, "after": after}
    return {
        "metrics": {name: job.metrics or {} for name, job in jobs.items()},
        "quality": {name: _quality(session, job) for name, job in jobs.items()},
        "masks": _pairs(session, before, after),
    }


def _pairs(session: Session, before: Job, after: Job) -> list[dict[str, Any]]:
    one, two = aliased(PseudoMask), aliased(PseudoMask)
    same = and_(two.job_id == after.id, two.annotation_id == one.annotation_id)
    columns: list[Any] = [one.annotation_id, one.image_id, one.segmentation, one.quality]
    columns += [two.segmentation.label("second"), two.quality.label("second_quality")]
    query = select(*columns).join(two, same)
    query = query.where(one.job_id == before.id, one.image_id == two.image_id)
    pairs = [
        {
            "id": row.annotation_id,
            "image_id": row.image_id,
            "iou": iou(row.segmentation, row.second),
            "quality_before": row.quality,
            "quality_after": row.second_quality,
        }
        for row in session.execute(query)
    ]
    return sorted(pairs, key=lambda p: (-1.0 if p["iou"] is None else p["iou"], p["id"]))


def iou(one: Any, two: Any) -> float | None:
    """None where the masks are of images of different sizes."""
    if one["size"] != two["size"]:
        return None
    from pycocotools import mask as coco_mask  # loads numpy

    return round(float(coco_mask.iou([one], [two], [0])[0, 0]), 6)


def _lineage(session: Session, job: Job) -> set[str]:
    """The job's data set and all that it was made from."""
    ancestors: set[str] = set()
    dataset = session.get(Dataset, job.dataset_id)
    while dataset is not None and dataset.id not in ancestors:
        ancestors.add(dataset.id)
        dataset = session.get(Dataset, dataset.parent_id) if dataset.parent_id else None
    return ancestors


def _quality(session: Session, job: Job) -> dict[str, Any]:
    query = select(func.count(), func.avg(PseudoMask.quality)).where(PseudoMask.job_id == job.id)
    masks, mean = session.execute(query).one()
    return {"masks": masks, "mean": None if mean is None else round(float(mean), 6)}
