"""Predictions that a worker makes: requested, looked up, and cleaned up after."""

import tempfile
import time
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

from sqlalchemy import insert, select, update
from sqlalchemy.orm import Session

from app.db.columns import now
from app.db.models import ACTIVE, SUCCESSFUL, Job, JobKind, JobState, Prediction
from app.db.session import Database
from app.errors import Conflict, Invalid, ValidationIssue
from app.http import idempotency
from app.jobs.queue import enqueue
from app.jobs.schemas import JobCreated
from app.jobs.service import get as get_job
from app.jobs.submit import new_job, submit
from app.predict.model_cache import PredictOptions
from app.predict.request import PredictArguments, Source
from app.predict.service import find_images, find_model, least_score
from app.settings import Settings
from app.storage import garbage_collection as blobs
from app.storage.garbage_collection import pinned
from app.storage.store import Storage
from sapnet.utils.files import file_sha256

_BATCH = 500
_WAIT = timedelta(minutes=4)
"""So long is a job not taken after a batch of its images; less than `reaper.LONGEST_WAIT`."""


def create(
    database: Database,
    storage: Storage,
    settings: Settings,
    arguments: PredictArguments,
) -> Job:
    """Put a prediction into the queue; its id is sent once it is committed.

    Images that were sent are stored first; where anything fails, no row and no blob is left.

    Raises:
        NotFound: there is no such model, or no such data set.
        Conflict: the data set is not ready.
        Invalid: with every image that is not there.
    """
    with tempfile.TemporaryDirectory(dir=settings.folder("uploads")) as name:
        files = dict(_on_disk(arguments, Path(name)))
        with pinned(database, storage, files.values()):
            storage.put_files({sha: path for path, sha in files.items()}, move=True)
            by_source = {int(path.name): sha for path, sha in files.items()}
            return _create(database, settings, arguments, by_source)


def _on_disk(arguments: PredictArguments, folder: Path) -> Iterator[tuple[Path, str]]:
    """Yield each image that was sent as a file, named by its number, with its digest."""
    for number, source in enumerate(arguments.sources):
        if source.file is not None:
            path = folder / str(number)
            with path.open("wb") as out:
                while chunk := source.file.read(1 << 20):
                    out.write(chunk)
            yield path, file_sha256(path)


def _create(
    database: Database,
    settings: Settings,
    arguments: PredictArguments,
    sent: dict[int, str],
) -> Job:
    """Write the job and its images, a batch in a transaction, so that nobody waits for all of them.

    No worker takes the job before the last of them. Where that never comes the job fails, as its
    images are fewer than its request says.
    """
    with database.read() as session:
        model = find_model(session, arguments.model)
        issues: list[ValidationIssue] = []
        of_dataset = arguments.dataset or model.dataset_id
        shas = find_images(session, of_dataset, arguments, issues)
    if issues:
        raise Invalid(issues)
    sources = arguments.sources or tuple(Source("", id=id) for id in shas)
    options = PredictOptions(
        least_score(settings, model, arguments.score), arguments.tiles, arguments.mirror
    )
    request = {"score": options.score, **options.settings(), "images": len(sources)}
    job = new_job(JobKind.PREDICT, of_dataset, request, model.id)
    starts = range(0, max(len(sources), 1), _BATCH)
    for start in starts:
        rows = [
            {
                "number": number,
                "image_id": source.id,
                "url": source.url,
                "sha256": sent.get(number) if source.id is None else shas[source.id],
            }
            for number, source in enumerate(sources[start : start + _BATCH], start)
        ]
        waits = None if start == starts[-1] else now() + _WAIT
        with database.begin() as session:
            if start == 0:
                job.lease_until = waits
                submit(session, settings, job)
            else:
                queued = update(Job).where(Job.id == job.id, Job.state == JobState.QUEUED)
                session.execute(queued.values(lease_until=waits))
            if rows:
                session.execute(insert(Prediction), [{**row, "job_id": job.id} for row in rows])
            if waits is None:
                made = JobCreated.model_validate(job)
                idempotency.save_response(session, 202, f"/jobs/{job.id}", made)
                if start > 0:
                    enqueue(session, job, settings.broker_url)
        if waits is not None:
            time.sleep(blobs.PAUSE_SECONDS)
    return job


def get_successful(session: Session, job_id: str) -> Job:
    """Look up a job that has predictions.

    Raises:
        NotFound: there is no such job.
        Conflict: it has no predictions; with its state.
    """
    job = get_job(session, job_id)
    if job.kind is not JobKind.PREDICT:
        raise Conflict(f"The job made no predictions: its kind is {job.kind}.")
    if job.state not in SUCCESSFUL:
        raise Conflict(
            f"The job has no results: it is {job.state}.", state=job.state, reason=job.reason
        )
    return job


def page(session: Session, job_id: str, limit: int, after: int | None) -> list[dict[str, Any]]:
    """Return at most `limit` images with their results, in the order of the request.

    Args:
        after: number of an image in the request; those behind it are returned.
    """
    query = select(Prediction).where(Prediction.job_id == job_id)
    if after is not None:
        query = query.where(Prediction.number > after)
    return [_line(row) for row in session.scalars(query.order_by(Prediction.number).limit(limit))]


def _line(row: Prediction) -> dict[str, Any]:
    own_id = {} if row.image_id is None else {"image_id": row.image_id}
    return {
        "number": row.number,
        "image_id": row.image_id,
        "url": row.url,
        "size": row.size,
        "error": row.error,
        "results": [{**own_id, **result} for result in row.results or []],
    }


def clean_up(database: Database) -> None:
    """Let go of the images of jobs that are over, a batch at a time.

    What no data set names is removed. Calling it again does nothing.
    """
    over = select(Job.id).where(Job.kind == JobKind.PREDICT, Job.state.not_in(ACTIVE))
    named_blobs = (Prediction.job_id.in_(over), Prediction.sha256.is_not(None))
    left = True
    while left:
        query = select(Prediction.pk, Prediction.sha256).where(*named_blobs).limit(_BATCH)
        with database.read() as session:
            left = session.scalar(select(Prediction.pk).where(*named_blobs).limit(1)) is not None
        if left:
            with database.begin() as session:
                rows = session.execute(query).all()
                blobs.abandon(session, (row.sha256 for row in rows if row.sha256 is not None))
                gone = update(Prediction).where(Prediction.pk.in_([row.pk for row in rows]))
                session.execute(gone.values(sha256=None))
            time.sleep(blobs.PAUSE_SECONDS)
