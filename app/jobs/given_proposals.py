"""Masks that a request brings as proposals, checked before a job is made of it."""

from collections.abc import Mapping
from typing import Any

from sqlalchemy import and_, select
from sqlalchemy.orm import Session

from app.db.models import Annotation, Image
from app.errors import ValidationIssue
from sapnet.proposals.given import annotation_ids, check_given

_BATCH = 500  # ids in a query
_LARGEST = 2**63 - 1  # ids are no larger


def issues(
    session: Session, dataset_id: str, proposals: Mapping[str, Any]
) -> list[ValidationIssue]:
    """Return what is wrong with the masks of a request, as the trainer would find it."""
    if proposals.get("kind") != "given":
        return []
    document = proposals["document"]
    ids = [id_ for id_ in annotation_ids(document) if abs(id_) <= _LARGEST]
    sizes = _sizes(session, dataset_id, ids)
    return [
        ValidationIssue("body", f"/proposals/document{i.pointer}", i.problem, i.hint)
        for i in check_given(document, sizes)
    ]


def _sizes(session: Session, dataset_id: str, ids: list[int]) -> dict[int, tuple[int, int]]:
    """(h, w) of the images of annotations, by the annotation's id."""
    of_image = and_(
        Image.dataset_id == Annotation.dataset_id, Image.image_id == Annotation.image_id
    )
    query = select(Annotation.annotation_id, Image.height, Image.width).join(Image, of_image)
    sizes: dict[int, tuple[int, int]] = {}
    for start in range(0, len(ids), _BATCH):
        wanted = Annotation.annotation_id.in_(ids[start : start + _BATCH])
        for row in session.execute(query.where(Annotation.dataset_id == dataset_id, wanted)):
            sizes[row.annotation_id] = (row.height, row.width)
    return sizes
