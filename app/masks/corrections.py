"""What was decided about a job's masks becomes a new version of its data set.

The images' files are the same ones.
"""

import re
from collections import Counter
from collections.abc import Iterator
from itertools import islice
from typing import Any

from sqlalchemy import Select, and_, case, insert, select
from sqlalchemy.orm import Session

from app.datasets import removal
from app.datasets.rows import BATCH
from app.datasets.schemas import DatasetOut
from app.datasets.service import described
from app.db.columns import Base
from app.db.models import (
    Annotation,
    Category,
    Dataset,
    DatasetStatus,
    Image,
    Job,
    MaskDecision,
    MaskStatus,
    PseudoMask,
)
from app.db.session import Database
from app.errors import Conflict
from app.http import idempotency
from app.jobs.service import get_successful
from app.jobs.submit import hold_dataset
from app.masks.review import counts
from app.masks.schemas import Counts
from app.storage.garbage_collection import pause_after, wait_for_turn

_VERSION = re.compile(r", version (\d{1,9})$")
_NAME = 200
_COPIED = (
    Annotation.annotation_id,
    Annotation.image_id,
    Annotation.category_id,
    Annotation.x,
    Annotation.y,
    Annotation.box,
    Annotation.pointed,
)


def create(database: Database, job_id: str, name: str | None) -> DatasetOut:
    """Make a data set of the review of a job's masks; its parent is the job's data set.

    Rejected objects are gone, accepted and corrected ones have their masks as confirmed; of those
    that are open all is as it was. Rows are read as they are at one moment, and written in batches
    that nobody waits for; the data set is there after the last of them.

    Takes the database, not a session: it reads while it writes.

    Raises:
        NotFound: there is no such job, or the data set was deleted meanwhile.
        Conflict: the job has no results, nothing was decided, or nothing would be left.
    """
    with database.read() as session:
        job = get_successful(session, job_id)
        parent = session.get_one(Dataset, job.dataset_id)
        before = counts(session, job)
    masks = sum(before.model_dump().values())
    if before.open == masks:
        raise Conflict(
            "Nothing has been decided about the masks of this job: accept, correct or reject some "
            "first, by PATCH /masks/{mask_id}."
        )
    dataset = Dataset(
        name=name or next_name(parent.name),
        status=DatasetStatus.READY,
        parent_id=parent.id,
        images=parent.images,
        annotations=0,
        bytes=parent.bytes,
        report={},
        document_sha=parent.document_sha,
        truth_sha=parent.truth_sha,
    )
    with removal.begin(database, dataset):
        rows = _Annotations(job, dataset.id)
        _write(database, Annotation, rows.read(database))
        if not rows.per_class:
            raise Conflict("Every object was rejected: nothing would be left to train on.")
        _write(database, Image, _images(database, dataset, rows.per_image))
        decided = Counts(open=masks - sum(rows.decided.values()), **rows.decided)
        report = {
            **{
                key: parent.report[key]
                for key in ("crowd", "truth", "subsets")
                if key in parent.report
            },
            "images_without_annotations": parent.images - len(rows.per_image),
            **rows.annotated,
            "corrections": {"job_id": job.id, **decided.model_dump()},
        }
        return _finish(database, dataset, rows.per_class, report)


def _finish(
    database: Database, dataset: Dataset, per_class: Counter[int], report: dict[str, Any]
) -> DatasetOut:
    with database.begin() as session:
        hold_dataset(session, dataset.parent_id or "")
        _categories(session, dataset, per_class)
        there = removal.finish(session, dataset.id, annotations=per_class.total(), report=report)
        if not there:
            raise Conflict("The new version took too long to write; ask again.")
        answer = described(session, session.get_one(Dataset, dataset.id))
        idempotency.save_response(session, 201, f"/datasets/{dataset.id}", answer)
        return answer


def next_name(name: str) -> str:
    """Return the name of the next version: "cells" gives "cells, version 2", and so on."""
    match = _VERSION.search(name)
    version = f", version {int(match[1]) + 1 if match else 2}"
    return name[: match.start() if match else None][: _NAME - len(version)] + version


class _Annotations:
    """The annotations of the new version, and what was counted while they were read.

    Attributes:
        per_class: annotations by category id.
        per_image: by image id.
        decided: masks by status, but for those that are open.
        annotated: how many have a point, a box, a confirmed mask.
    """

    def __init__(self, job: Job, dataset_id: str) -> None:
        self._job, self._dataset_id = job, dataset_id
        self.per_class: Counter[int] = Counter()
        self.per_image: Counter[int] = Counter()
        self.decided = {s.value: 0 for s in MaskStatus if s is not MaskStatus.OPEN}
        self.annotated = {"points": 0, "boxes": 0, "masks": 0}

    def read(self, database: Database) -> Iterator[dict[str, Any]]:
        """Yield their rows, by one query: what is decided meanwhile is not in them."""
        with database.read() as session:
            for row in session.execute(self._query().execution_options(yield_per=BATCH)):
                *values, status = row
                if status in self.decided:
                    self.decided[status] += 1
                if status is MaskStatus.REJECTED:
                    continue
                self.per_class[row.category_id] += 1
                self.per_image[row.image_id] += 1
                names = (*(column.key for column in _COPIED), "segmentation")
                copy = dict(zip(names, values, strict=True))
                self.annotated["points"] += copy["pointed"]
                self.annotated["boxes"] += copy["box"] is not None
                self.annotated["masks"] += copy["segmentation"] is not None
                yield {"dataset_id": self._dataset_id, **copy}

    def _query(self) -> Select[Any]:
        own = Annotation.annotation_id
        decision = and_(MaskDecision.job_id == self._job.id, MaskDecision.annotation_id == own)
        delivered = and_(PseudoMask.job_id == self._job.id, PseudoMask.annotation_id == own)
        mask = case(
            (MaskDecision.status == MaskStatus.ACCEPTED, PseudoMask.segmentation),
            (MaskDecision.status == MaskStatus.CORRECTED, MaskDecision.segmentation),
            else_=Annotation.segmentation,
        )
        return (
            select(*_COPIED, mask, MaskDecision.status)
            .select_from(Annotation)
            .outerjoin(MaskDecision, decision)
            .outerjoin(PseudoMask, delivered)
            .where(Annotation.dataset_id == self._job.dataset_id)
            .order_by(Annotation.pk)
        )


def _images(
    database: Database, dataset: Dataset, per_image: Counter[int]
) -> Iterator[dict[str, Any]]:
    kept = (Image.sha256, Image.subset, Image.split_group)
    columns = (Image.image_id, Image.file_name, Image.width, Image.height, *kept)
    query = select(*columns).where(Image.dataset_id == dataset.parent_id).order_by(Image.pk)
    with database.read() as session:
        for row in session.execute(query.execution_options(yield_per=BATCH)).mappings():
            of_image = per_image[row["image_id"]]
            yield {"dataset_id": dataset.id, **row, "annotations": of_image}


def _categories(session: Session, dataset: Dataset, per_class: Counter[int]) -> None:
    query = select(Category).where(Category.dataset_id == dataset.parent_id).order_by(Category.pk)
    session.add_all(
        Category(
            dataset_id=dataset.id,
            category_id=category.category_id,
            name=category.name,
            annotations=per_class[category.category_id],
        )
        for category in session.scalars(query).all()
    )


def _write(database: Database, table: type[Base], rows: Iterator[dict[str, Any]]) -> None:
    while batch := list(islice(rows, BATCH)):
        with database.begin() as session:
            began = wait_for_turn(session)
            session.execute(insert(table), batch)
        pause_after(began)
