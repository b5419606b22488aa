"""GET /jobs/{id}/webhooks: how far the deliveries of a job's events are."""

from fastapi import APIRouter
from pydantic import BaseModel

from app.db.session import SessionDep
from app.jobs.service import get
from app.webhooks import service
from app.webhooks.schemas import WebhookOut

router = APIRouter(prefix="/jobs", tags=["jobs"])


class Webhooks(BaseModel):
    """The addresses that a job's events are posted to."""

    webhooks: list[WebhookOut]


@router.get("/{job_id}/webhooks", response_model=Webhooks)
def webhooks(job_id: str, session: SessionDep) -> dict[str, object]:
    """Where the job's events are posted, and how far that is. Secrets are not shown."""
    job = get(session, job_id)
    return {"webhooks": service.of_job(session, job.id)}
