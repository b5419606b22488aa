"""Rules that accept many masks at once: made, listed, taken back.

A rule is a row, and every decision by it names it: who, when, from which quality on. Masks are
decided about in batches that nobody waits for; one that somebody decides about meanwhile is left to
that decision.
"""

from typing import Any, cast

from sqlalchemy import ColumnElement, Insert, Select, Table, delete, func, literal, select, update
from sqlalchemy.orm import Session

from app.auth.keys import Caller
from app.db.columns import Utc, is_id, now
from app.db.models import AcceptanceRule, MaskDecision, MaskStatus, PseudoMask
from app.db.session import Database, rows_changed
from app.errors import NotFound
from app.http import idempotency
from app.jobs.service import get_delivered
from app.jobs.submit import hold_dataset
from app.masks.schemas import AcceptRequest, RuleOut
from app.storage.garbage_collection import pause_after, wait_for_turn

BATCH = 2_000


def accept(database: Database, job_id: str, request: AcceptRequest) -> RuleOut:
    """Accept the open masks of a job that fit a rule.

    Broken off, it has accepted a part of them, which the rule says; asked again, a new rule accepts
    the rest.

    Raises:
        NotFound: there is no such job.
        Conflict: the job has no masks.
    """
    with database.begin() as session:
        job = get_delivered(session, job_id)
        if job.dataset_id is not None:
            hold_dataset(session, job.dataset_id)
        caller: Caller | None = session.info.get("caller")
        rule = AcceptanceRule(
            job_id=job.id,
            **request.model_dump(),
            made_by=caller.owner if caller else None,
            made_at=now(),
            accepted=0,
        )
        session.add(rule)
        session.flush()
        session.expunge(rule)
    after: int | None = None
    while True:
        with database.begin() as session:
            began = wait_for_turn(session)
            last = _last_of_batch(session, rule, after)
            if last is None:
                return _finish(session, rule)
            _accept(session, rule, after, last)
        pause_after(began)
        after = last


def _finish(session: Session, rule: AcceptanceRule) -> RuleOut:
    made = RuleOut.model_validate(session.get_one(AcceptanceRule, rule.id))
    idempotency.save_response(session, 201, location(rule.job_id, rule.id), made)
    return made


def location(job_id: str, rule_id: str) -> str:
    """Return the address of a rule."""
    return f"/jobs/{job_id}/review/rules/{rule_id}"


def get(session: Session, job_id: str, rule_id: str) -> AcceptanceRule:
    """Look a rule up.

    Raises:
        NotFound: there is no such rule.
    """
    own = AcceptanceRule.id == rule_id, AcceptanceRule.job_id == job_id
    rule = session.scalars(select(AcceptanceRule).where(*own)).one_or_none()
    if rule is None or not is_id(rule_id):
        raise NotFound("rule", rule_id)
    return rule


def rules(session: Session, job_id: str) -> list[AcceptanceRule]:
    """Return the rules of a job's review, the newest first.

    Raises:
        NotFound: there is no such job.
        Conflict: the job has no masks.
    """
    job = get_delivered(session, job_id)
    query = select(AcceptanceRule).where(AcceptanceRule.job_id == job.id)
    return list(session.scalars(query.order_by(AcceptanceRule.id.desc())))


def take_back(database: Database, job_id: str, rule_id: str) -> None:
    """Open the masks that a rule has accepted, but for those decided about since, and remove it.

    Versions that were made meanwhile stay as they are.

    Raises:
        NotFound: there is no such rule.
    """
    with database.read() as session:
        rule = get(session, job_id, rule_id)
    by_rule = MaskDecision.job_id == job_id, MaskDecision.rule_id == rule_id
    changed = 1
    while changed:
        with database.begin() as session:
            began = wait_for_turn(session)
            some = session.scalars(select(MaskDecision.pk).where(*by_rule).limit(BATCH)).all()
            opened = update(MaskDecision).where(MaskDecision.pk.in_(some), *by_rule)
            changed = rows_changed(session, opened.values(**_decision(MaskStatus.OPEN, None)))
            if not changed:
                session.execute(delete(AcceptanceRule).where(AcceptanceRule.id == rule.id))
        pause_after(began)


def _fitting(rule: AcceptanceRule) -> list[ColumnElement[bool]]:
    """The masks that a rule is about, whatever was decided about them."""
    conditions = [PseudoMask.job_id == rule.job_id, PseudoMask.quality >= rule.min_quality]
    if rule.image_id is not None:
        conditions.append(PseudoMask.image_id == rule.image_id)
    if rule.category_id is not None:  # open masks are of the class that they were delivered with
        conditions.append(PseudoMask.category_id == rule.category_id)
    return conditions


def _last_of_batch(session: Session, rule: AcceptanceRule, after: int | None) -> int | None:
    """The annotation id up to which a batch of masks goes; None where there are no more."""
    ids = select(PseudoMask.annotation_id).where(*_fitting(rule))
    if after is not None:
        ids = ids.where(PseudoMask.annotation_id > after)
    batch = ids.order_by(PseudoMask.annotation_id).limit(BATCH).subquery()
    return session.scalar(select(func.max(batch.c.annotation_id)))


def _accept(session: Session, rule: AcceptanceRule, after: int | None, last: int) -> None:
    """Accept those of the open masks with annotation ids in (after, last] that fit the rule."""
    fitting = [*_fitting(rule), PseudoMask.annotation_id <= last]
    if after is not None:
        fitting.append(PseudoMask.annotation_id > after)
    reopened = update(MaskDecision).where(
        MaskDecision.job_id == rule.job_id,
        MaskDecision.status == MaskStatus.OPEN,
        MaskDecision.annotation_id.in_(select(PseudoMask.annotation_id).where(*fitting)),
    )
    accepted = rows_changed(session, reopened.values(**_decision(MaskStatus.ACCEPTED, rule)))
    columns: dict[str, ColumnElement[Any]] = {
        "job_id": PseudoMask.__table__.c.job_id,
        "annotation_id": PseudoMask.__table__.c.annotation_id,
        "status": literal(MaskStatus.ACCEPTED, MaskDecision.__table__.c.status.type),
        "revision": literal(1),
        "decided_by": literal(rule.made_by, MaskDecision.__table__.c.decided_by.type),
        "decided_at": literal(rule.made_at, Utc()),
        "rule_id": literal(rule.id),
    }
    undecided: Select[Any] = select(*columns.values()).where(*fitting)
    insertion = _insert(session).from_select(list(columns), undecided)
    counted = insertion.execution_options(preserve_rowcount=True)  # which drivers else forget
    accepted += rows_changed(session, counted)
    raised = update(AcceptanceRule).where(AcceptanceRule.id == rule.id)
    session.execute(raised.values(accepted=AcceptanceRule.accepted + accepted))


def _insert(session: Session) -> Insert:
    """INSERT of decisions that leaves alone what was decided meanwhile."""
    table = cast(Table, MaskDecision.__table__)
    unique = [table.c.job_id, table.c.annotation_id]
    if session.get_bind().dialect.name == "postgresql":
        from sqlalchemy.dialects import postgresql  # slow to load, as the next is

        return postgresql.insert(table).on_conflict_do_nothing(index_elements=unique)
    from sqlalchemy.dialects import sqlite

    return sqlite.insert(table).on_conflict_do_nothing(index_elements=unique)


def _decision(status: MaskStatus, rule: AcceptanceRule | None) -> dict[str, object]:
    return {
        "status": status,
        "revision": MaskDecision.revision + 1,
        "rule_id": rule.id if rule else None,
        "decided_by": rule.made_by if rule else None,
        "decided_at": rule.made_at if rule else now(),
        "segmentation": None,
        "category_id": None,
    }
