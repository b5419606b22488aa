"""POST /models/{model}/onnx: a model in ONNX, made once, by a job of the kind `onnx`."""

from fastapi import APIRouter, Response
from sqlalchemy import select
from sqlalchemy.orm import Session

from app.db.models import ACTIVE, SUCCESSFUL, Job, JobKind, Model
from app.db.session import SessionDep
from app.http.dependencies import SettingsDep
from app.jobs.schemas import JobCreated
from app.jobs.submit import new_job, submit
from app.registry import service as registry
from app.registry.schemas import ModelName
from app.settings import Settings

router = APIRouter(prefix="/models", tags=["models"])


@router.post("/{model_id}/onnx", status_code=202, response_model=JobCreated)
def make_onnx(
    model_id: ModelName, response: Response, session: SessionDep, settings: SettingsDep
) -> Job:
    """Have a worker make the ONNX file, which takes a minute or so.

    Where it is made, or being made, this is the job that did it, or does.
    """
    job = onnx_job(session, settings, registry.get(session, model_id))
    response.headers["Location"] = f"/jobs/{job.id}"
    return job


def onnx_job(session: Session, settings: Settings, model: Model) -> Job:
    """Return the job that made the model's ONNX file or makes it, else a new one."""
    states = [*ACTIVE, *(SUCCESSFUL if model.onnx_sha else ())]
    query = select(Job).where(
        Job.kind == JobKind.ONNX, Job.model_id == model.id, Job.state.in_(states)
    )
    existing = session.scalars(query.order_by(Job.id.desc()).limit(1)).first()
    if existing is not None:
        return existing
    dataset_id = session.get_one(Job, model.job_id).dataset_id
    return submit(session, settings, new_job(JobKind.ONNX, dataset_id, {}, model.id))
