"""What was decided about a job's masks becomes a new version of its data set.

Rows are copied by the database; the images' files are the same ones.
"""

import re

from sqlalchemy import and_, case, func, insert, literal, or_, select
from sqlalchemy.orm import Session, aliased

from app.datasets.schemas import DatasetOut
from app.datasets.service import described
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
from app.errors import Conflict
from app.http import idempotency
from app.jobs.service import get_successful
from app.jobs.submit import hold_dataset
from app.masks.review import counts

_VERSION = re.compile(r", version (\d{1,9})$")
_NAME = 200


def create(session: Session, job_id: str, name: str | None) -> DatasetOut:
    """Make a data set of the review of a job's masks; its parent is the job's data set.

    Rejected objects are gone, accepted and corrected ones have their masks as confirmed; of those
    that are open all is as it was.

    Raises:
        NotFound: there is no such job.
        Conflict: the job has no results, nothing was decided, or nothing would be left.
    """
    job = get_successful(session, job_id)
    hold_dataset(session, job.dataset_id)
    decided = counts(session, job)
    if not decided.accepted + decided.corrected + decided.rejected:
        raise Conflict(
            "Nothing has been decided about the masks of this job: accept, correct or reject some "
            "first, by PATCH /masks/{mask_id}."
        )
    parent = session.get_one(Dataset, job.dataset_id)
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
    session.add(dataset)
    session.flush()
    _annotations(session, job, dataset.id)
    per_class = _per_class(session, dataset.id)
    dataset.annotations = sum(per_class.values())
    if not dataset.annotations:
        raise Conflict("Every object was rejected: nothing would be left to train on.")
    _categories(session, job, dataset.id, per_class)
    empty = _images(session, job, dataset.id)
    dataset.report = {
        **{key: parent.report[key] for key in ("crowd", "truth") if key in parent.report},
        "images_without_annotations": empty,
        "corrections": {"job_id": job.id, **decided.model_dump()},
    }
    session.flush()
    answer = described(session, dataset)
    idempotency.save_response(session, 201, f"/datasets/{dataset.id}", answer)
    return answer


def next_name(name: str) -> str:
    """Return the name of the next version: "cells" gives "cells, version 2", and so on."""
    match = _VERSION.search(name)
    version = f", version {int(match[1]) + 1 if match else 2}"
    return name[: match.start() if match else None][: _NAME - len(version)] + version


def _annotations(session: Session, job: Job, dataset_id: str) -> None:
    own = Annotation.annotation_id
    decision = and_(MaskDecision.job_id == job.id, MaskDecision.annotation_id == own)
    delivered = and_(PseudoMask.job_id == job.id, PseudoMask.annotation_id == own)
    mask = case(
        (MaskDecision.status == MaskStatus.ACCEPTED, PseudoMask.segmentation),
        (MaskDecision.status == MaskStatus.CORRECTED, MaskDecision.segmentation),
        else_=Annotation.segmentation,
    )
    kept = or_(MaskDecision.status.is_(None), MaskDecision.status != MaskStatus.REJECTED)
    columns = (own, Annotation.image_id, Annotation.category_id, Annotation.x, Annotation.y)
    rows = (
        select(literal(dataset_id), *columns, mask)
        .select_from(Annotation)
        .outerjoin(MaskDecision, decision)
        .outerjoin(PseudoMask, delivered)
        .where(Annotation.dataset_id == job.dataset_id, kept)
        .order_by(Annotation.pk)
    )
    names = ["dataset_id", *(column.key for column in columns), "segmentation"]
    session.execute(insert(Annotation).from_select(names, rows))


def _per_class(session: Session, dataset_id: str) -> dict[int, int]:
    query = select(Annotation.category_id, func.count()).where(Annotation.dataset_id == dataset_id)
    return {row[0]: row[1] for row in session.execute(query.group_by(Annotation.category_id))}


def _categories(session: Session, job: Job, dataset_id: str, per_class: dict[int, int]) -> None:
    query = select(Category).where(Category.dataset_id == job.dataset_id).order_by(Category.pk)
    session.add_all(
        Category(
            dataset_id=dataset_id,
            category_id=category.category_id,
            name=category.name,
            annotations=per_class.get(category.category_id, 0),
        )
        for category in session.scalars(query).all()
    )


def _images(session: Session, job: Job, dataset_id: str) -> int:
    """How many of them have no annotation."""
    of_new = aliased(Annotation)
    in_new = and_(of_new.dataset_id == dataset_id, of_new.image_id == Image.image_id)
    count = select(func.count()).select_from(of_new).where(in_new).scalar_subquery()
    columns = (Image.image_id, Image.file_name, Image.width, Image.height, Image.sha256)
    rows = select(literal(dataset_id), *columns, count).where(Image.dataset_id == job.dataset_id)
    names = ["dataset_id", *(column.key for column in columns), "annotations"]
    session.execute(insert(Image).from_select(names, rows.order_by(Image.pk)))
    none = select(func.count()).select_from(Image).where(Image.dataset_id == dataset_id)
    return session.scalar(none.where(Image.annotations == 0)) or 0
