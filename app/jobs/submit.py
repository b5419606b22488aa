"""Putting a job into its queue: what all kinds of jobs have in common."""

import hashlib
import json
from typing import Any

import msgspec
from sqlalchemy import select
from sqlalchemy.orm import Session

from app.db.models import Dataset, Job, JobKind, Model
from app.errors import NotFound
from app.jobs import events
from app.jobs.queue import enqueue
from app.settings import Settings
from app.storage.store import Storage
from app.webhooks import service as webhooks
from app.webhooks.schemas import WebhookIn

MAX_REQUEST_BYTES = 4_096
"""Of a request in a job's row, as JSON; a larger one is a blob."""


def new_job(
    kind: JobKind, dataset_id: str | None, request: dict[str, Any], model_id: str | None = None
) -> Job:
    """Return a job that is no training, and so has no method, preset or seed of its own."""
    return Job(
        kind=kind,
        dataset_id=dataset_id,
        method=kind.value,
        preset="",
        seed=0,
        request=request,
        model_id=model_id,
    )


def take_out_request(job: Job) -> dict[str, bytes]:
    """Take a large request out of a new job's row.

    Returns:
        The blob to store, by its digest, before the row is written; none for a small request.
    """
    document = msgspec.json.encode(job.request)  # which takes documents as text
    if len(document) <= MAX_REQUEST_BYTES:
        job.request = json.loads(document)
        return {}
    job.request, job.request_sha = {}, hashlib.sha256(document).hexdigest()
    return {job.request_sha: document}


def request_of(storage: Storage, job: Job) -> dict[str, Any]:
    """Return what a job was asked for.

    Raises:
        BlobMissing: it was large, and storage has lost it.
    """
    sha = job.request_sha
    request: dict[str, Any] = job.request if sha is None else json.loads(storage.read(sha))
    return request


def submit(session: Session, settings: Settings, job: Job, webhook: WebhookIn | None = None) -> Job:
    """Write the job's row, its first event and its webhooks; notify a worker after the commit.

    Raises:
        NotFound: the data set, or that of the model, was deleted meanwhile.
    """
    if job.dataset_id is not None:
        hold_dataset(session, job.dataset_id)
    if job.model_id is not None:
        hold_model(session, job.model_id)
    session.add(job)
    session.flush()
    events.created(session, job)
    webhooks.register(session, settings, job.id, webhook)
    enqueue(session, job, settings.broker_url)
    return job


def hold_model(session: Session, model_id: str) -> None:
    """Keep a model from being deleted until the session's transaction ends.

    Raises:
        NotFound: it is deleted already.
    """
    job_id = session.scalar(select(Model.job_id).where(Model.id == model_id))
    query = select(Job.dataset_id).where(Job.id == job_id)
    row = session.execute(query.with_for_update(read=True, key_share=True)).one_or_none()
    if row is None:
        raise NotFound("model", model_id)
    if row.dataset_id is not None:
        hold_dataset(session, row.dataset_id)


def hold_dataset(session: Session, dataset_id: str) -> None:
    """Keep a data set from being deleted until the session's transaction ends.

    For transactions that add to it or copy from it.

    Raises:
        NotFound: it is deleted already.
    """
    query = select(Dataset.id).where(Dataset.id == dataset_id)
    # On SQLite, which has no such locks, writing transactions take turns anyway.
    if session.scalar(query.with_for_update(read=True, key_share=True)) is None:
        raise NotFound("data set", dataset_id)
