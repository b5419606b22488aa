"""POST /jobs/label: a model's masks for images without points, to be reviewed."""

from typing import Any

from fastapi import APIRouter, Response

from app.db.models import Job
from app.db.session import DatabaseDep
from app.http.dependencies import SettingsDep, StorageDep, require_content_type
from app.http.idempotency import IDEMPOTENT
from app.jobs.schemas import JobCreated
from app.predict import label
from app.predict.schemas import LabelRequest

router = APIRouter(tags=["jobs"])

LOCATED: dict[int | str, dict[str, Any]] = {
    202: {"headers": {"Location": {"schema": {"type": "string"}, "description": "the job"}}}
}


@router.post(
    "/jobs/label",
    status_code=202,
    response_model=JobCreated,
    responses=LOCATED,
    dependencies=[require_content_type("application/json"), IDEMPOTENT],
)
def label_images(
    body: LabelRequest,
    response: Response,
    database: DatabaseDep,
    storage: StorageDep,
    settings: SettingsDep,
) -> Job:
    """Let a model label the images of a data set that have no annotations, or those named.

    The masks are `/jobs/{id}/pseudo-masks`, with a quality, and are reviewed as those of a training
    are: `/jobs/{id}/review`. Those that are accepted or corrected become annotations of the next
    version of the data set (`/jobs/{id}/corrections`); nothing else does.

    Classes are told by their names. In images that have annotations, objects that one of these is
    on are left out.
    """
    job = label.create(database, storage, settings, body)
    response.headers["Location"] = f"/jobs/{job.id}"
    return job
