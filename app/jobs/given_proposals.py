"""Masks that a request brings as proposals, checked before a job is made of it."""

from collections.abc import Mapping

import msgspec
from sqlalchemy import and_, select
from sqlalchemy.orm import Session

from app.db.models import Annotation, Image
from app.errors import ValidationIssue
from app.jobs.documents import text_of
from sapnet.proposals.given import check_given

_LARGEST = 2**63 - 1  # ids are no larger


def issues(session: Session, dataset_id: str, document: msgspec.Raw) -> list[ValidationIssue]:
    """Return what is wrong with the masks of a request, as the trainer would find it."""

    def sizes(ids: set[int]) -> Mapping[int, tuple[int, int]]:
        return _sizes(session, dataset_id, {id_ for id_ in ids if abs(id_) <= _LARGEST})

    return [
        ValidationIssue("body", f"/proposals/document{i.pointer}", i.problem, i.hint)
        for i in check_given(text_of(document), sizes)
    ]


def _sizes(session: Session, dataset_id: str, ids: set[int]) -> dict[int, tuple[int, int]]:
    """(h, w) of the images of annotations, by the annotation's id."""
    of_image = and_(
        Image.dataset_id == Annotation.dataset_id, Image.image_id == Annotation.image_id
    )
    query = select(Annotation.annotation_id, Image.height, Image.width).join(Image, of_image)
    wanted = Annotation.dataset_id == dataset_id, Annotation.annotation_id.in_(ids)
    rows = session.execute(query.where(*wanted))
    return {row.annotation_id: (row.height, row.width) for row in rows}
