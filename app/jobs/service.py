"""Jobs: looked up, listed, cancelled. The work itself is the worker's."""

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from sqlalchemy import false, func, select, update
from sqlalchemy.orm import Session

from app.db.columns import is_id, now
from app.db.models import (
    SUCCESSFUL,
    EventType,
    Job,
    JobKind,
    JobState,
    Reason,
    Shard,
    ShardState,
)
from app.db.session import rows_changed
from app.errors import Conflict, NotFound
from app.http.pagination import Page, Paging, paginate
from app.jobs import events
from app.jobs.kinds import DELIVERING, KINDS, result_of
from app.settings import Settings
from app.storage.store import Storage


def get(session: Session, job_id: str) -> Job:
    """Look a job up.

    Raises:
        NotFound: there is none of this id.
    """
    job = session.get(Job, job_id) if is_id(job_id) else None
    if job is None:
        raise NotFound("job", job_id)
    return job


def get_successful(session: Session, job_id: str) -> Job:
    """Look up a training that has results.

    Raises:
        NotFound: there is no such job.
        Conflict: it is no training, or it has no results; with its state.
    """
    return _with_results(session, job_id, [JobKind.TRAIN], "is no training")


def get_delivered(session: Session, job_id: str) -> Job:
    """Look up a job that has masks: a training, or one that labelled images.

    Raises:
        NotFound: there is no such job.
        Conflict: it delivers no masks, or it has none yet; with its state.
    """
    return _with_results(session, job_id, DELIVERING, "delivers no masks")


def _with_results(session: Session, job_id: str, kinds: Collection[JobKind], else_: str) -> Job:
    job = get(session, job_id)
    if job.kind not in kinds:
        kind = KINDS[job.kind].label
        raise Conflict(f"The job {else_} ({kind}); its result is {result_of(job)}.")
    if job.state not in SUCCESSFUL:
        raise Conflict(
            f"The job has no results: it is {job.state}.", state=job.state, reason=job.reason
        )
    return job


def page(
    session: Session,
    paging: Paging,
    state: JobState | None = None,
    dataset_id: str | None = None,
) -> Page[Job]:
    """Return jobs, the newest first."""
    query = select(Job)
    if state is not None:
        query = query.where(Job.state == state)
    if dataset_id is not None:
        query = query.where(Job.dataset_id == dataset_id if is_id(dataset_id) else false())
    return paginate(session, query, Job.id, paging, descending=True)


def shard_counts(session: Session, job_id: str) -> dict[str, int] | None:
    """Return the number of a job's shards by state; None where it has none."""
    query = select(Shard.state, func.count().label("shards")).where(Shard.job_id == job_id)
    rows = session.execute(query.group_by(Shard.state))
    by_state = {row.state: row.shards for row in rows}
    return {s.value: by_state.get(s, 0) for s in ShardState} if by_state else None


def shards(session: Session, paging: Paging, job_id: str) -> Page[Shard]:
    """Return shards of a job, in the order in which they were cut."""
    return paginate(session, select(Shard).where(Shard.job_id == job_id), Shard.pk, paging)


def cancel(session: Session, job_id: str) -> Job:
    """Cancel a job: at once while it is queued; a running one stops within seconds.

    Asking again changes nothing.

    Raises:
        NotFound: there is no such job.
        Conflict: it is over already.
    """
    get(session, job_id)
    queued = {
        "state": JobState.CANCELLED,
        "finished_at": now(),
        "lease_until": None,
        "error": None,
    }
    steps: list[tuple[JobState, Mapping[str, Any]]] = [
        (JobState.QUEUED, queued),
        (JobState.RUNNING, {"state": JobState.CANCELLING}),
    ]
    requested = {"cancel_requested": True, "reason": Reason.CANCEL_REQUESTED}
    for state, values in steps:
        query = update(Job).where(Job.id == job_id, Job.state == state)
        if rows_changed(session, query.values({**values, **requested})):
            events.append_state(session, job_id, (EventType.CANCEL_REQUESTED, {}))
    job = get(session, job_id)
    session.refresh(job)
    if not job.cancel_requested:
        raise Conflict(f"The job is over: it {_past(job.state)}.", state=job.state)
    return job


def log_file(storage: Storage, settings: Settings, job: Job) -> Path | None:
    """Return the log of a job that is over, or of one that runs on this machine.

    None where there is none (yet).
    """
    if job.log_sha is not None:
        return storage.local_path(job.log_sha)
    path = settings.data_dir.resolve() / "jobs" / job.id / "log.txt"
    return path if path.is_file() else None


def last_lines(path: Path, count: int) -> str:
    """Return the last `count` lines of a text, read from its end: at most a megabyte of it."""
    with path.open("rb") as file:
        size = file.seek(0, 2)
        file.seek(max(0, size - (1 << 20)))
        lines = file.read().decode("utf-8", "replace").splitlines(keepends=True)
    return "".join(lines[-count:])


def _past(state: JobState) -> str:
    return {JobState.FAILED: "failed", JobState.CANCELLED: "was cancelled"}.get(state, "succeeded")
