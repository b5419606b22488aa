"""What happened to a job, in order: an append-only log, from which SSE and webhooks are read.

A job's events are numbered 1, 2, 3, … without gaps. The number comes from the job's own row, which
stays locked until the transaction ends: events become visible in their order, so a reader that
has seen number n has missed none before it. Whoever writes has changed the job's row in the same
transaction: the worker under its lease, the API in its state.
"""

from collections.abc import Collection, Mapping, Sequence
from typing import Any

import msgspec
from sqlalchemy import insert, select, update
from sqlalchemy.orm import Session

from app.db.columns import now
from app.db.models import (
    ACTIVE,
    Dataset,
    DatasetStatus,
    EventType,
    Job,
    JobEvent,
    JobKind,
    JobState,
)
from app.storage import garbage_collection as blobs

NewEvent = tuple[EventType, Mapping[str, Any]]


def append(session: Session, job_id: str, events: Sequence[NewEvent]) -> None:
    """Add events to a job's log, as part of the session's transaction.

    Does nothing for a job that is gone.
    """
    if not events:
        return
    counted = update(Job).where(Job.id == job_id).values(last_event=Job.last_event + len(events))
    row = session.execute(
        counted.returning(Job.last_event, Job.attempt).execution_options(synchronize_session=False)
    ).one_or_none()
    if row is None:
        return
    last, attempt = row
    moment, first = now(), last - len(events) + 1
    rows = [
        {"job_id": job_id, "seq": first + i, "moment": moment, "attempt": attempt, "type": type_}
        | {"data": dict(data)}
        for i, (type_, data) in enumerate(events)
    ]
    session.execute(insert(JobEvent), rows)


def append_state(session: Session, job_id: str, *before: NewEvent) -> None:
    """Add the events of the state that was just written into the job's row.

    They say why it is so, and, where the job is over, that it ended.

    Args:
        before: events that come first.
    """
    what = (Job.state, Job.reason, Job.error, Job.model_id, Job.kind, Job.dataset_id)
    query = select(*what).where(Job.id == job_id)
    row = session.execute(query).one_or_none()
    if row is None:
        return
    why = {"reason": row.reason, "error": row.error}
    new_events: list[NewEvent] = list(before)
    if row.state is JobState.FAILED:
        new_events.append((EventType.ERROR, why))
    if row.state is JobState.QUEUED and row.error is not None:
        new_events.append((EventType.SETBACK, why))
    if row.state in ACTIVE:
        new_events.append((EventType.STATE, {"state": row.state, "reason": row.reason}))
    else:
        new_events.append((EventType.END, {"state": row.state, **why, "model_id": row.model_id}))
        if row.kind is JobKind.IMPORT:
            _end_import(session, row.dataset_id, row.error or f"the import was {row.state}")
        if row.kind is JobKind.IMPORT_MODEL:
            _let_file_go(session, job_id)
    append(session, job_id, new_events)


def _end_import(session: Session, dataset_id: str, error: str) -> None:
    """However its import ended: a data set that did not become ready or invalid is invalid."""
    issue = {"part": "", "pointer": "", "detail": error, "hint": "send it again"}
    values = {"status": DatasetStatus.INVALID, "report": {"errors": [issue]}}
    unfinished = (Dataset.id == dataset_id, Dataset.status == DatasetStatus.IMPORTING)
    session.execute(update(Dataset).where(*unfinished).values(values))


def _let_file_go(session: Session, job_id: str) -> None:
    """However its import ended, the file that a model was sent as is not kept."""
    sha = session.scalar(select(Job.initial_sha).where(Job.id == job_id))
    session.execute(update(Job).where(Job.id == job_id).values(initial_sha=None))
    blobs.abandon(session, [sha] if sha else [])


def created(session: Session, job: Job) -> None:
    """Add the first event. The job's row must have been flushed."""
    data = {"state": job.state, "kind": job.kind, "dataset_id": job.dataset_id}
    append(session, job.id, [(EventType.CREATED, data)])


def after(session: Session, job_id: str, seq: int, limit: int) -> list[JobEvent]:
    """Return at most `limit` events with numbers above `seq`, in order."""
    query = select(JobEvent).where(JobEvent.job_id == job_id, JobEvent.seq > seq)
    return list(session.scalars(query.order_by(JobEvent.seq).limit(limit)))


def of_types(session: Session, job_id: str, types: Collection[EventType]) -> list[JobEvent]:
    """Return all events of a job that are of these types, in order."""
    query = select(JobEvent).where(JobEvent.job_id == job_id, JobEvent.type.in_(types))
    return list(session.scalars(query.order_by(JobEvent.seq)))


def document(event: JobEvent) -> dict[str, Any]:
    """Return an event as it goes over the wire, the same in SSE, pages and webhooks."""
    return {
        "id": event.seq,
        "type": event.type,
        "timestamp": event.moment.isoformat(timespec="milliseconds").replace("+00:00", "Z"),
        "job_id": event.job_id,
        "attempt": event.attempt,
        "data": event.data,
    }


def encode(event: JobEvent) -> bytes:
    """Return the document as JSON, on one line."""
    return msgspec.json.encode(document(event))


def encode_page(page: Sequence[JobEvent], following: str | None) -> bytes:
    """Return a page of events as JSON; `following` is the cursor of the next one."""
    return msgspec.json.encode({"events": [document(e) for e in page], "next": following})
