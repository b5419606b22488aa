"""A model in ONNX: made once, by a job of the kind `onnx`, when somebody asks for it."""

from sqlalchemy import select
from sqlalchemy.orm import Session

from app.db.models import ACTIVE, SUCCESSFUL, Job, Model
from app.jobs import events
from app.jobs.queue import QUEUE_OF, enqueue
from app.settings import Settings
from app.webhooks import service as webhooks

KIND = "onnx"


def ask(session: Session, settings: Settings, model: Model) -> Job:
    """The job that made it or makes it; where there is none, a new one."""
    job = _there(session, model)
    if job is None:
        dataset_id = session.get_one(Job, model.job_id).dataset_id
        job = Job(
            kind=KIND,
            dataset_id=dataset_id,
            method=KIND,
            preset="",
            seed=0,
            request={},
            model_id=model.id,
        )
        session.add(job)
        session.flush()
        events.created(session, job)
        webhooks.register(session, settings, job.id, None)
        enqueue(session, job.id, settings.broker_url, QUEUE_OF[KIND])
    return job


def _there(session: Session, model: Model) -> Job | None:
    states = [*ACTIVE, *(SUCCESSFUL if model.onnx_sha else ())]
    query = select(Job).where(Job.kind == KIND, Job.model_id == model.id, Job.state.in_(states))
    return session.scalars(query.order_by(Job.id.desc()).limit(1)).first()
