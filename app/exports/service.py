"""Exports: requested, looked up, removed.

The work itself is the worker's: a job of the kind `export`, whose id the export has too: leased,
cancelled and reported like any other.
"""

from typing import cast

from sqlalchemy import Select, Table, select
from sqlalchemy.orm import Session, undefer

from app.db.columns import is_id
from app.db.models import ACTIVE, Export, Job, JobKind
from app.errors import Conflict, NotFound
from app.exports.schemas import ExportOut, ExportRequest, described
from app.http import idempotency
from app.http.pagination import Page, Paging, paginate
from app.jobs import service as jobs
from app.jobs.submit import new_job, submit
from app.settings import Settings
from app.storage.garbage_collection import remove_rows


def create(session: Session, settings: Settings, job_id: str, request: ExportRequest) -> ExportOut:
    """Put an export of a job's masks into the queue.

    Raises:
        NotFound: there is no such job.
        Conflict: the job has no results.
    """
    source = jobs.get_delivered(session, job_id)
    job = new_job(JobKind.EXPORT, source.dataset_id, request.model_dump(mode="json"))
    submit(session, settings, job)
    export = Export(id=job.id, job_id=source.id)
    session.add(export)
    session.flush()
    made = described(export, job)
    idempotency.save_response(session, 202, f"/exports/{job.id}", made)
    return made


def get(session: Session, export_id: str) -> tuple[Export, Job]:
    """Look an export up, with the job that makes it.

    Raises:
        NotFound: there is no such export.
    """
    query = _with_jobs().where(Export.id == export_id)
    row = session.execute(query).one_or_none() if is_id(export_id) else None
    if row is None:
        raise NotFound("export", export_id)
    return row[0], row[1]


def get_file(session: Session, export_id: str) -> Export:
    """Look up an export whose file is there.

    Raises:
        NotFound: there is no such export.
        Conflict: its file is not there; with the state of its job.
    """
    export, job = get(session, export_id)
    if export.sha256 is None:
        raise Conflict(
            f"The export has no file: it is {job.state}.", state=job.state, reason=job.reason
        )
    return export


def page(session: Session, job_id: str, paging: Paging) -> Page[tuple[Export, Job]]:
    """Return exports of a job, each with the job that makes it, the newest first.

    Raises:
        NotFound: there is no such job.
    """
    jobs.get(session, job_id)
    query = _with_jobs().where(Export.job_id == job_id)
    return paginate(session, query, Export.id, paging, descending=True)


def remove(session: Session, export_id: str) -> None:
    """Remove an export, with its file.

    Raises:
        NotFound: there is no such export.
        Conflict: it is being made.
    """
    _, job = get(session, export_id)
    if job.state in ACTIVE:
        raise Conflict("The export is not over; cancel its job first.", state=job.state)
    for table in (Export.__table__, Job.__table__):
        remove_rows(session, cast(Table, table), table.c.id == export_id)


def _with_jobs() -> Select[Export, Job]:
    """Return the query for exports, each with the job that makes it and what it was asked."""
    query = select(Export, Job).join(Job, Job.id == Export.id)
    return query.options(undefer(Job.request))
