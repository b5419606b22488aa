"""POST /models and DELETE /models/{model}: models that were trained elsewhere.

A file is looked at before it is kept (`sapnet.utils.tensor_file`); a worker reads it, in a job of
the kind `import_model`.
"""

from typing import Any

from fastapi import APIRouter, Request, Response
from fastapi.concurrency import run_in_threadpool

from app.auth.access import access
from app.auth.quotas import room_for_model
from app.db.models import Job
from app.db.session import DatabaseDep, SessionDep
from app.http.dependencies import SettingsDep, StorageDep
from app.http.idempotency import IDEMPOTENT
from app.http.multipart import receive
from app.http.scratch import scratch_folder
from app.jobs import models
from app.jobs.schemas import JobCreated
from app.registry.schemas import ModelName

router = APIRouter(prefix="/models", tags=["models"])

FORM: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "content": {
            "multipart/form-data": {
                "schema": {
                    "type": "object",
                    "properties": {
                        "file": {
                            "type": "string",
                            "format": "binary",
                            "description": "model.pt or .safetensors of this service, a SOLOv2 of "
                            "mmdetection (ResNet-18 to 101, the light ones too), or the state "
                            "dict of a backbone",
                        },
                        "file_upload": {
                            "type": "string",
                            "description": "id of a finished upload, in place of `file`",
                        },
                        "name": {"type": "string", "maxLength": 200},
                    },
                },
                "example": {"name": "COCO, light R-18", "file": "(the file)"},
            }
        },
    }
}
EXAMPLE = "-F file=@model.pth"


@router.post(
    "",
    status_code=202,
    response_model=JobCreated,
    openapi_extra=FORM,
    dependencies=[IDEMPOTENT],
)
@access(body=lambda settings: settings.max_model_bytes, first=room_for_model)
async def import_model(
    request: Request,
    response: Response,
    database: DatabaseDep,
    storage: StorageDep,
    settings: SettingsDep,
) -> Job:
    """Send a model that was trained elsewhere, to predict with or to go on from (`from_model`).

    A file that is unsafe, damaged or cut off is refused at once; a worker reads the rest, and its
    job (`model_id`) names the model, or says why it was not taken. Nothing in the file is run.
    """
    async with scratch_folder(settings.folder("uploads")) as folder:
        form = await receive(
            request,
            folder,
            max_bytes=settings.max_model_bytes,
            max_parts=8,
            texts=("name", "file_upload"),
            max_part_bytes={},
            example=EXAMPLE,
        )
        job = await run_in_threadpool(models.create, database, storage, settings, form, folder)
    response.headers["Location"] = f"/jobs/{job.id}"
    return job


@router.delete("/{model_id}", status_code=204)
def delete_model(model_id: ModelName, session: SessionDep) -> None:
    """Remove an imported model, with its jobs. One that was trained here goes with its data set.

    409 while a job needs it, and where it has an alias.
    """
    models.delete(session, model_id)
