"""The rows of a new version of a data set, read from those that it is made of."""

from collections import Counter
from collections.abc import Iterator
from typing import Any

import numpy as np
from sqlalchemy import Select, and_, case, select

from app.datasets.rows import BATCH
from app.db.models import Annotation, Image, JobKind, MaskDecision, MaskStatus, PseudoMask
from app.db.session import Database
from app.masks.version_change import AddedImages, Change, Ids, Reviewed
from sapnet.data.inner_point import inner_point
from sapnet.data.masks import holds_points

Row = dict[str, Any]
_KEPT: tuple[Any, ...] = (
    Annotation.annotation_id,
    Annotation.image_id,
    Annotation.category_id,
    Annotation.x,
    Annotation.y,
    Annotation.box,
    Annotation.pointed,
    Annotation.segmentation,
)
_IMAGE = (
    Image.image_id,
    Image.file_name,
    Image.width,
    Image.height,
    Image.sha256,
    Image.subset,
    Image.split_group,
)
_STATUSES = tuple(s.value for s in MaskStatus)


class Annotations:
    """The annotations of a new version, and what was counted while they were read.

    Attributes:
        per_class: annotations by category id.
        per_image: by image id.
        annotated: how many have a point, a box, a confirmed mask.
    """

    def __init__(
        self, database: Database, dataset_id: str, parent_id: str, ids: Ids | None, change: Change
    ) -> None:
        """Read nothing yet.

        Args:
            dataset_id: of the version.
            ids: of the parent's annotations.
        """
        self._database, self._dataset_id, self._parent_id = database, dataset_id, parent_id
        self._change, self._taken = change, ids
        self.per_class: Counter[int] = Counter()
        self.per_image: Counter[int] = Counter()
        self.annotated = {"points": 0, "boxes": 0, "masks": 0}
        self._decided: Counter[str] = Counter()
        self._open_images: set[int] = set()
        self._added: Counter[int] = Counter()
        self._reclassified = 0

    def read(self) -> Iterator[Row]:
        """Yield their rows, each table by one query: what is decided meanwhile is not in them."""
        trained = [job for job in self._change.reviews if job.kind is JobKind.TRAIN]
        yield from self._of_parent(trained[0] if trained else None)
        for job in self._change.reviews:
            if job.kind is JobKind.LABEL and job.ids is not None:
                yield from self._predicted(job, self._shift(job.ids))
        for other in self._change.added:
            if other.annotation_ids is not None:
                yield from self._of_other(other, self._shift(other.annotation_ids))

    def report(self) -> dict[str, Any]:
        """The parts of the report about reviews: see `app.datasets.schemas`."""
        jobs = [job.id for job in self._change.reviews]
        decided = {status: self._decided[status] for status in _STATUSES}
        corrections = {"job_id": jobs[0], **decided}
        review = {
            "jobs": jobs,
            "reclassified": self._reclassified,
            "added": self._added.total(),
            "images_with_open_masks": len(self._open_images & set(self._added)),
            "rules": [
                {
                    "job_id": rule.job_id,
                    "min_quality": rule.min_quality,
                    "category_id": rule.category_id,
                    "image_id": rule.image_id,
                    "made_by": rule.made_by,
                    "made_at": rule.made_at.isoformat(),
                    "accepted": rule.accepted,
                }
                for job in self._change.reviews
                for rule in job.rules
            ],
        }
        return {"corrections": corrections, "review": review}

    def _shift(self, ids: Ids) -> int:
        by = ids.shift(self._taken)
        self._taken = ids.moved(by).joined(self._taken)
        return by

    def _of_parent(self, job: Reviewed | None) -> Iterator[Row]:
        if job is None:
            for row in self._rows(_annotations(self._parent_id)):
                yield from self._kept(_copy(row))
            return
        for row in self._rows(_reviewed(self._parent_id, job.id)):
            if row.delivered is not None:
                self._decided[row.status or MaskStatus.OPEN] += 1
            if row.status is MaskStatus.REJECTED:
                continue
            copy = _copy(row)
            if row.decided_category not in (None, row.category_id):
                copy["category_id"] = row.decided_category
                self._reclassified += 1
            if row.decided_mask is not None and not self._is_point(row.status):
                copy["segmentation"] = row.decided_mask
            yield from self._kept(copy)

    def _is_point(self, status: MaskStatus) -> bool:
        """Whether no more than its point is to become of a mask."""
        return status is MaskStatus.ACCEPTED and self._change.accepted_as == "points"

    def _predicted(self, job: Reviewed, shift: int) -> Iterator[Row]:
        """Masks of a model that were accepted or corrected, as annotations."""
        for row in self._rows(_predictions(job.id)):
            self._decided[row.status or MaskStatus.OPEN] += 1
            if row.image_id in self._change.without_images:
                continue
            if row.status not in (MaskStatus.ACCEPTED, MaskStatus.CORRECTED):
                if row.status is not MaskStatus.REJECTED:
                    self._open_images.add(row.image_id)
                continue
            self._reclassified += row.decided_category not in (None, row.category_id)
            x, y = _point(row)
            category = row.category_id if row.decided_category is None else row.decided_category
            for made in self._kept(
                {
                    "annotation_id": row.annotation_id + shift,
                    "image_id": row.image_id,
                    "category_id": category,
                    "x": x,
                    "y": y,
                    "box": None,
                    "pointed": True,
                    "segmentation": None if self._is_point(row.status) else row.decided_mask,
                }
            ):
                self._added[row.image_id] += 1
                yield made

    def _of_other(self, other: AddedImages, shift: int) -> Iterator[Row]:
        for row in self._rows(_annotations(other.id)):
            moved = {
                "annotation_id": row.annotation_id + shift,
                "image_id": row.image_id + other.image_shift,
                "category_id": other.classes[row.category_id],
            }
            yield self._counted(_copy(row) | moved)

    def _kept(self, row: Row) -> Iterator[Row]:
        """The row with the class that it has in the version, unless it is left out there."""
        if row["image_id"] in self._change.without_images:
            return
        ids, category = self._change.classes.ids, row["category_id"]
        if category in ids:
            if (category := ids[category]) is None:
                return
            row["category_id"] = category
        yield self._counted(row)

    def _counted(self, row: Row) -> Row:
        self.per_class[row["category_id"]] += 1
        self.per_image[row["image_id"]] += 1
        self.annotated["points"] += row["pointed"]
        self.annotated["boxes"] += row["box"] is not None
        self.annotated["masks"] += row["segmentation"] is not None
        return {"dataset_id": self._dataset_id, **row}

    def _rows(self, query: Select[Any]) -> Iterator[Any]:
        with self._database.read() as session:
            yield from session.execute(query.execution_options(yield_per=BATCH))


def _annotations(dataset_id: str) -> Select[Any]:
    query: Select[Any] = select(*_KEPT).where(Annotation.dataset_id == dataset_id)
    return query.order_by(Annotation.pk)


def _copy(row: Any) -> Row:
    return {column.key: getattr(row, column.key) for column in _KEPT}


_DECIDED_MASK = case(
    (MaskDecision.status == MaskStatus.ACCEPTED, PseudoMask.segmentation),
    (MaskDecision.status == MaskStatus.CORRECTED, MaskDecision.segmentation),
).label("decided_mask")
_DECIDED = (
    _DECIDED_MASK,
    MaskDecision.category_id.label("decided_category"),
    MaskDecision.status.label("status"),
)


def _reviewed(dataset_id: str, job_id: str) -> Select[Any]:
    """The annotations of a data set, with what was decided in the review of a training."""
    own = Annotation.annotation_id
    decision = and_(MaskDecision.job_id == job_id, MaskDecision.annotation_id == own)
    delivered = and_(PseudoMask.job_id == job_id, PseudoMask.annotation_id == own)
    return (
        _annotations(dataset_id)
        .add_columns(*_DECIDED, PseudoMask.pk.label("delivered"))
        .outerjoin(MaskDecision, decision)
        .outerjoin(PseudoMask, delivered)
    )


def _predictions(job_id: str) -> Select[Any]:
    """All masks of a model, with what was decided about them; of open ones not the mask itself."""
    decision = and_(
        MaskDecision.job_id == PseudoMask.job_id,
        MaskDecision.annotation_id == PseudoMask.annotation_id,
    )
    columns = (
        PseudoMask.annotation_id,
        PseudoMask.image_id,
        PseudoMask.category_id,
        PseudoMask.point_x,
        PseudoMask.point_y,
        *_DECIDED,
    )
    query = select(*columns).outerjoin(MaskDecision, decision)
    return query.where(PseudoMask.job_id == job_id).order_by(PseudoMask.annotation_id)


def _point(row: Any) -> tuple[float, float]:
    """The point of a mask: the one that came with it, unless a correction took it out of it."""
    point = row.point_x, row.point_y
    if (
        row.status is MaskStatus.CORRECTED
        and not holds_points(row.decided_mask, np.array([point])).all()
    ):
        return inner_point(row.decided_mask)
    return point


def images(database: Database, dataset_id: str, parent_id: str, change: Change) -> Iterator[Row]:
    """Yield the rows of the images of a version, but for their numbers of objects."""
    sources = [(parent_id, 0), *((other.id, other.image_shift) for other in change.added)]
    for source, shift in sources:
        query = select(*_IMAGE).where(Image.dataset_id == source).order_by(Image.pk)
        with database.read() as session:
            for row in session.execute(query.execution_options(yield_per=BATCH)).mappings():
                if source != parent_id or row["image_id"] not in change.without_images:
                    moved = row["image_id"] + shift
                    yield {**row, "dataset_id": dataset_id, "image_id": moved}
