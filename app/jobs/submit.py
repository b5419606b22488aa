"""Putting a job into its queue: what all kinds of jobs have in common."""

from typing import Any

from sqlalchemy.orm import Session

from app.db.models import Job, JobKind
from app.jobs import events
from app.jobs.queue import enqueue
from app.settings import Settings
from app.webhooks import service as webhooks
from app.webhooks.schemas import WebhookIn


def new_job(
    kind: JobKind, dataset_id: str, request: dict[str, Any], model_id: str | None = None
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


def submit(session: Session, settings: Settings, job: Job, webhook: WebhookIn | None = None) -> Job:
    """Write the job's row, its first event and its webhooks; notify a worker after the commit."""
    session.add(job)
    session.flush()
    events.created(session, job)
    webhooks.register(session, settings, job.id, webhook)
    enqueue(session, job, settings.broker_url)
    return job
