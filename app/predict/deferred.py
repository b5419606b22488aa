"""Predictions that a worker makes: asked for, looked at, and tidied up after."""

import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from sqlalchemy import insert, select, update
from sqlalchemy.orm import Session

from app.db.models import ACTIVE, SUCCESSFUL, Job, JobKind, Prediction
from app.db.session import Database
from app.errors import Conflict, Invalid, ValidationIssue
from app.http import idempotency
from app.jobs.schemas import JobCreated
from app.jobs.service import get as get_job
from app.jobs.submit import new_job, submit
from app.predict.request import Asked, Source
from app.predict.service import find_images, find_model
from app.settings import Settings
from app.storage.garbage_collection import forget, pinned
from app.storage.store import Storage
from sapnet.utils.files import file_sha256

_BATCH = 2_000


def create(
    database: Database, storage: Storage, settings: Settings, asked: Asked, score: float
) -> Job:
    """A queued job; its id is sent once it is committed. Pictures that were sent are stored first;
    where anything fails, no row and no blob is left. Raises NotFound, Invalid."""
    with tempfile.TemporaryDirectory(dir=settings.folder("uploads")) as name:
        files = dict(_on_disk(asked, Path(name)))
        with pinned(database, storage, files.values()):
            storage.put_files({sha: path for path, sha in files.items()}, move=True)
            by_source = {int(path.name): sha for path, sha in files.items()}
            with database.begin() as session:
                return _create(session, settings, asked, score, by_source)


def _on_disk(asked: Asked, folder: Path) -> Iterator[tuple[Path, str]]:
    """Each picture that was sent as a file, named by its number, with its digest."""
    for number, source in enumerate(asked.sources):
        if source.file is not None:
            path = folder / str(number)
            with path.open("wb") as out:
                while chunk := source.file.read(1 << 20):
                    out.write(chunk)
            yield path, file_sha256(path)


def _create(
    session: Session, settings: Settings, asked: Asked, score: float, sent: dict[int, str]
) -> Job:
    model = find_model(session, asked.model)
    issues: list[ValidationIssue] = []
    of_dataset = asked.dataset or model.dataset_id
    shas = find_images(session, of_dataset, asked, issues)
    if issues:
        raise Invalid(issues)
    job = submit(
        session, settings, new_job(JobKind.PREDICT, of_dataset, {"score": score}, model.id)
    )
    sources = asked.sources or tuple(Source("", id=id) for id in shas)
    for start in range(0, len(sources), _BATCH):
        rows = [
            {
                "job_id": job.id,
                "number": number,
                "image_id": source.id,
                "url": source.url,
                "sha256": sent.get(number) if source.id is None else shas[source.id],
            }
            for number, source in enumerate(sources[start : start + _BATCH], start)
        ]
        session.execute(insert(Prediction), rows)
    idempotency.save_response(session, 202, f"/jobs/{job.id}", JobCreated.model_validate(job))
    return job


def get_successful(session: Session, job_id: str) -> Job:
    """A job that has predictions. Raises NotFound; Conflict, with its state, where it has none."""
    job = get_job(session, job_id)
    if job.kind is not JobKind.PREDICT:
        raise Conflict(f"The job made no predictions: its kind is {job.kind}.")
    if job.state not in SUCCESSFUL:
        raise Conflict(
            f"The job has no results: it is {job.state}.", state=job.state, reason=job.reason
        )
    return job


def page(session: Session, job_id: str, limit: int, after: int | None) -> list[dict[str, Any]]:
    """At most `limit` pictures, in the order of the request, from the one after number `after`."""
    query = select(Prediction).where(Prediction.job_id == job_id)
    if after is not None:
        query = query.where(Prediction.number > after)
    return [_line(row) for row in session.scalars(query.order_by(Prediction.number).limit(limit))]


def _line(row: Prediction) -> dict[str, Any]:
    known = {} if row.image_id is None else {"image_id": row.image_id}
    return {
        "number": row.number,
        "image_id": row.image_id,
        "url": row.url,
        "size": row.size,
        "error": row.error,
        "results": [{**known, **result} for result in row.results or []],
    }


def clean_up(database: Database, storage: Storage) -> None:
    """Let go of the pictures of jobs that are over: what no data set names is removed. Whoever does
    it again does nothing."""
    over = select(Job.id).where(Job.kind == JobKind.PREDICT, Job.state.not_in(ACTIVE))
    held = (Prediction.job_id.in_(over), Prediction.sha256.is_not(None))
    with database.read() as session:
        shas = set(session.scalars(select(Prediction.sha256).where(*held).distinct()))
    if shas:
        with database.begin() as session:
            session.execute(update(Prediction).where(*held).values(sha256=None))
        forget(database, storage, [sha for sha in shas if sha is not None])
