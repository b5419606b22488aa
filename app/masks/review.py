"""The review: masks of low quality first, and what is decided about each."""

from typing import Any

from sqlalchemy import Row, Select, and_, func, insert, select, tuple_, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from app.auth.keys import Caller
from app.db.columns import now
from app.db.models import Annotation, Category, Job, MaskDecision, MaskStatus, PseudoMask
from app.db.session import rows_changed
from app.errors import Invalid, NotFound, ValidationIssue
from app.http.if_match import changed_meanwhile, check_match
from app.jobs.service import get_delivered
from app.masks.rle import checked
from app.masks.schemas import Acceptance, Choice, Correction, Counts, Decision, PlainDecision
from app.masks.service import Filter, as_it_stands, selected


def queue(
    session: Session, job: Job, wanted: Filter, limit: int, after: int | None
) -> list[dict[str, Any]]:
    """Return at most `limit` masks with their points, the lowest quality first.

    Args:
        after: an annotation id: only masks behind that annotation's are returned, whatever was
            decided about it since.
    """
    place = tuple_(PseudoMask.quality, PseudoMask.annotation_id)
    query = _with_points(wanted, job).order_by(PseudoMask.quality, PseudoMask.annotation_id)
    if after is not None:
        of_mask = PseudoMask.job_id == job.id, PseudoMask.annotation_id == after
        quality = session.scalar(select(PseudoMask.quality).where(*of_mask))
        query = query.where(place > tuple_(quality, after))
    return [with_point(row) for row in session.execute(query.limit(limit))]


def counts(session: Session, job: Job) -> Counts:
    """How many of the job's masks are in each status."""
    masks = select(func.count()).select_from(PseudoMask).where(PseudoMask.job_id == job.id)
    decided = select(MaskDecision.status, func.count()).where(MaskDecision.job_id == job.id)
    by_status = {row[0]: row[1] for row in session.execute(decided.group_by(MaskDecision.status))}
    named = {s.value: by_status.get(s, 0) for s in MaskStatus if s is not MaskStatus.OPEN}
    return Counts(open=(session.scalar(masks) or 0) - sum(named.values()), **named)


def get(session: Session, mask_id: str) -> dict[str, Any]:
    """A `ReviewMask`. Raises NotFound; Conflict where its job has no results."""
    return with_point(row_of(session, mask_id)[0])


def decide(
    session: Session,
    mask_id: str,
    decision: Decision,
    if_match: str | None,
) -> dict[str, Any]:
    """Record a decision, and return the mask after it.

    Args:
        if_match: the If-Match header: the mask's revision that the decision was made from.

    Raises:
        NotFound: there is no such mask.
        Conflict: its job has no results.
        PreconditionRequired: there is no If-Match.
        PreconditionFailed: the mask has another revision by now.
        Invalid: the mask, the candidate, or the class is none.
    """
    row, job = row_of(session, mask_id)
    revision = row.revision or 0
    check_match(if_match, revision)
    caller: Caller | None = session.info.get("caller")
    status, correction = _outcome(row, decision)
    values = {
        "status": status,
        "segmentation": correction,
        "category_id": _category(session, job, row, decision),
        "rule_id": None,
        "revision": revision + 1,
        "decided_by": caller.owner if caller else None,
        "decided_at": now(),
    }
    key = {"job_id": row.job_id, "annotation_id": row.annotation_id}
    if row.revision is None:
        try:
            session.execute(insert(MaskDecision).values(**key, **values))
        except IntegrityError:
            raise changed_meanwhile() from None
    else:
        unchanged = update(MaskDecision).filter_by(**key).where(MaskDecision.revision == revision)
        if not rows_changed(session, unchanged.values(values)):
            raise changed_meanwhile()
    return get(session, mask_id)


def _category(session: Session, job: Job, row: Row[Any], decision: Decision) -> int | None:
    """The class in place of the delivered one; None where that one stands.

    A class that was given before stays, as long as the mask is not rejected or reopened.
    """
    if isinstance(decision, PlainDecision):
        return None
    wanted: int | None = decision.category_id
    if wanted is None:
        wanted = row.decided_category
    if wanted is None or wanted == row.category_id:
        return None
    of_dataset = Category.dataset_id == job.dataset_id, Category.category_id == wanted
    if session.scalar(select(Category.pk).where(*of_dataset)) is None:
        detail = f"the data set has no class {wanted}"
        hint = "take the id of one of its `categories`, or add the class to a new version"
        raise Invalid([ValidationIssue("body", "/category_id", detail, hint)])
    return wanted


def _outcome(row: Row[Any], decision: Decision) -> tuple[MaskStatus, dict[str, Any] | None]:
    """Return the status, and the mask in place of the delivered one.

    To accept what was corrected keeps the correction: it is the mask as it stands.
    """
    if isinstance(decision, Correction):
        mask = checked(decision.segmentation, row.segmentation["size"])
        return MaskStatus.CORRECTED, dict(mask)
    if isinstance(decision, Choice):
        candidates = (row.extra or {}).get("candidates") or []
        if decision.candidate >= len(candidates):
            detail = f"there is no candidate {decision.candidate}: the mask has {len(candidates)}"
            raise Invalid(
                [ValidationIssue("body", "/candidate", detail, "take the index of one of them")]
            )
        return MaskStatus.CORRECTED, candidates[decision.candidate]["segmentation"]
    if isinstance(decision, Acceptance):
        kept = row.correction
        return MaskStatus.ACCEPTED if kept is None else MaskStatus.CORRECTED, kept
    return MaskStatus.REJECTED if decision.decision == "reject" else MaskStatus.OPEN, None


def row_of(session: Session, mask_id: str) -> tuple[Row[Any], Job]:
    """A row of `selected` with its detail and its point, and its job. Raises NotFound, Conflict."""
    job_id, _, number = mask_id.partition(".")
    digits = number.removeprefix("-")
    if not (digits.isascii() and digits.isdecimal() and len(digits) <= 19):
        raise NotFound("mask", mask_id)
    annotation_id = int(number)
    if not -(2**63) <= annotation_id < 2**63:
        raise NotFound("mask", mask_id)
    try:
        job = get_delivered(session, job_id)
    except NotFound:
        raise NotFound("mask", mask_id) from None
    query = _with_points(Filter(job.id, detail=True), job)
    row = session.execute(query.where(PseudoMask.annotation_id == annotation_id)).one_or_none()
    if row is None:
        raise NotFound("mask", mask_id)
    return row, job


def _with_points(wanted: Filter, job: Job) -> Select[Any]:
    own = and_(
        Annotation.dataset_id == job.dataset_id,
        Annotation.annotation_id == PseudoMask.annotation_id,
    )
    points = Annotation.x.label("own_x"), Annotation.y.label("own_y")
    return selected(wanted).outerjoin(Annotation, own).add_columns(*points)


def with_point(row: Row[Any]) -> dict[str, Any]:
    """A `ReviewMask`: with the annotation's point, or that of a predicted mask."""
    x, y = (row.own_x, row.own_y) if row.own_x is not None else (row.point_x, row.point_y)
    return as_it_stands(row) | {"point": [x, y]}
