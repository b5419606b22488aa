"""Points that may be wrong: where they lie, and what a training made of them."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt
from sqlalchemy import ColumnElement, and_, func, or_, select
from sqlalchemy.orm import Session

from app.datasets.image_rows import images_of
from app.datasets.statistics_schemas import Example, Finding, FindingKind
from app.db.models import Annotation, Dataset, Image, Job, JobKind, PseudoMask
from app.errors import Conflict
from app.jobs.service import get_delivered

BORDER = 1.0
"""Pixels from the image's border within which a point is on it."""
LOW_QUALITY = 0.2
"""A mask below it is told; one of those that are not seen has a quality below `UNSEEN_QUALITY`."""
UNSEEN_QUALITY = 0.5
UNSEEN = 0.05
"""Below this score of its own cells the segmenter takes a point for background."""
LOOKED_AT = 2_000
"""Masks of low quality, the worst first, of which the details are read."""
_DISC = "disc"  # sapnet.proposals.bags.DISC_SOURCE, without importing the library's proposals


def training_of(session: Session, dataset: Dataset, job_id: str) -> Job:
    """Look up a training of a data set, or of one that it was made from.

    Raises:
        NotFound: there is no such job.
        Conflict: it is none.
    """
    job = get_delivered(session, job_id)
    if job.kind is not JobKind.TRAIN:
        raise Conflict("The job is no training: it tells nothing of points.")
    version: Dataset | None = dataset
    visited: set[str] = set()
    while version is not None and version.id not in visited:
        if version.id == job.dataset_id:
            return job
        visited.add(version.id)
        version = session.get(Dataset, version.parent_id) if version.parent_id else None
    raise Conflict("The job is no training of this data set, or of one that it was made from.")


def of_positions(
    session: Session, dataset_id: str, min_distance: float, most: int
) -> Iterator[Finding]:
    """Yield what is odd about where points lie: on each other, too near, on the border."""
    columns = (Annotation.annotation_id, Annotation.image_id, Annotation.x, Annotation.y)
    query = select(*columns).where(Annotation.dataset_id == dataset_id, Annotation.pointed)
    order = (Annotation.image_id, Annotation.x, Annotation.y, Annotation.annotation_id)
    rows = session.execute(query.order_by(*order)).all()
    pairs = _near(np.array([tuple(row[1:]) for row in rows], object), min_distance)
    same = [pair for pair in pairs if pair[2] == 0]
    near = [pair for pair in pairs if pair[2] > 0]
    for kind, matching, what in (
        ("duplicate_points", same, "in the same place as another one of their image"),
        ("close_points", near, f"less than {min_distance:g} pixels from another one"),
    ):
        if not matching:
            continue
        shown = matching[:most]
        names = images_of(session, dataset_id, [rows[one].image_id for one, _, _ in shown])
        examples = [
            Example(
                image_id=rows[one].image_id,
                file_name=names[rows[one].image_id],
                annotation_id=rows[one].annotation_id,
                point=[rows[one].x, rows[one].y],
                other_annotation_id=rows[other].annotation_id,
                value=round(distance, 3),
            )
            for one, other, distance in shown
        ]
        count = len({one for one, _, _ in matching})
        yield _finding(kind, count, what, examples)
    yield from _on_border(session, dataset_id, most)


def _near(places: npt.NDArray[Any], min_distance: float) -> list[tuple[int, int, float]]:
    """Pairs of points of one image that are too near, with their distance; the nearest first.

    Args:
        places: (N, 3) image, x and y, sorted so. Each point is compared with the next, the one
            after it and so on, all points at once, until none is near in x.
    """
    if len(places) < 2:
        return []
    image, x, y = places[:, 0], places[:, 1].astype(float), places[:, 2].astype(float)
    pairs: list[tuple[int, int, float]] = []
    left = np.arange(len(places) - 1)
    step = 1
    while len(left):
        left = left[left + step < len(places)]
        right = left + step
        reached = (x[right] - x[left] < max(min_distance, 1e-9)) & (image[right] == image[left])
        left, right = left[reached], right[reached]
        distance = np.hypot(x[right] - x[left], y[right] - y[left])
        near = (distance < min_distance) | (distance == 0)
        pairs += zip(left[near], right[near], map(float, distance[near]), strict=True)
        step += 1
    return sorted(pairs, key=lambda pair: (pair[2], pair[0], pair[1]))


def _on_border(session: Session, dataset_id: str, most: int) -> Iterator[Finding]:
    own = and_(Image.dataset_id == dataset_id, Image.image_id == Annotation.image_id)
    outside = or_(
        Annotation.x < BORDER,
        Annotation.y < BORDER,
        Annotation.x > Image.width - BORDER,
        Annotation.y > Image.height - BORDER,
    )
    here = (Annotation.dataset_id == dataset_id, Annotation.pointed, outside)
    counted = select(func.count()).select_from(Annotation).join(Image, own).where(*here)
    if not (count := session.scalar(counted) or 0):
        return
    columns = (Annotation.annotation_id, Annotation.image_id, Annotation.x, Annotation.y)
    query = select(*columns, Image.file_name).join(Image, own).where(*here)
    rows = session.execute(query.order_by(Annotation.annotation_id).limit(most))
    examples = [
        Example(
            image_id=row.image_id,
            file_name=row.file_name,
            annotation_id=row.annotation_id,
            point=[row.x, row.y],
        )
        for row in rows
    ]
    yield _finding("border_points", count, "on the border of their image", examples)


def of_masks(session: Session, dataset_id: str, job_id: str, most: int) -> Iterator[Finding]:
    """Yield the points of which a training made no good mask; each by the strongest reason."""
    own = and_(
        Annotation.dataset_id == dataset_id,
        Annotation.annotation_id == PseudoMask.annotation_id,
        Annotation.image_id == PseudoMask.image_id,
    )
    low: ColumnElement[bool] = PseudoMask.quality < UNSEEN_QUALITY
    columns = (Annotation.annotation_id, Annotation.image_id, Annotation.x, Annotation.y)
    query = select(*columns, PseudoMask.quality, PseudoMask.extra).join(Annotation, own)
    query = query.where(PseudoMask.job_id == job_id, low)
    rows = session.execute(query.order_by(PseudoMask.quality).limit(LOOKED_AT))
    matching: dict[FindingKind, list[Any]] = {
        "outside_proposals": [],
        "background_points": [],
        "low_quality_masks": [],
    }
    for row in rows:
        if (kind := _reason(row.quality, row.extra or {})) is not None:
            matching[kind].append(row)
    words = {
        "outside_proposals": "outside of all proposals: nothing there looked like an object",
        "background_points": "on what the trained segmenter takes for background",
        "low_quality_masks": f"with a mask of a quality below {LOW_QUALITY:g}",
    }
    for kind, some in matching.items():
        if some:
            names = images_of(session, dataset_id, [row.image_id for row in some[:most]])
            examples = [
                Example(
                    image_id=row.image_id,
                    file_name=names[row.image_id],
                    annotation_id=row.annotation_id,
                    point=[row.x, row.y],
                    value=row.quality,
                )
                for row in some[:most]
            ]
            yield _finding(kind, len(some), words[kind], examples)


def _reason(quality: float, extra: dict[str, Any]) -> FindingKind | None:
    if extra.get("proposal_source") == _DISC:
        return "outside_proposals"
    score = (extra.get("doubts") or {}).get("seen")
    if score is not None and score < UNSEEN:
        return "background_points"
    return "low_quality_masks" if quality < LOW_QUALITY else None


def _finding(kind: Any, count: int, what: str, examples: list[Example]) -> Finding:
    detail = f"{count:,} {'point is' if count == 1 else 'points are'} {what}"
    return Finding(kind=kind, count=count, detail=detail, examples=examples)
