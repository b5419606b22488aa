"""POST /jobs/{id}/exports, then GET /exports/{id} until it is over, then its file."""

from typing import Annotated

from fastapi import APIRouter, Request, Response

from app.db.session import SessionDep
from app.exports import service
from app.exports.schemas import ExportOut, ExportPage, ExportRequest, described
from app.http.dependencies import SettingsDep, StorageDep, require_content_type
from app.http.file_response import blob_response
from app.http.idempotency import IDEMPOTENT
from app.http.pagination import Paging, paging

router = APIRouter(tags=["exports"])

MEDIA_TYPES = {".zip": "application/zip", ".json": "application/json", ".xml": "application/xml"}


@router.post(
    "/jobs/{job_id}/exports",
    status_code=202,
    dependencies=[require_content_type("application/json"), IDEMPOTENT],
)
def create(
    job_id: str,
    body: ExportRequest,
    response: Response,
    session: SessionDep,
    settings: SettingsDep,
) -> ExportOut:
    """Put a job's masks into a file of another tool's format.

    The masks are exported as they stand after review, without those that were rejected. `coco` and
    `cvat` are a single document where no images come with them, all others a zip.
    """
    made = service.create(session, settings, job_id, body)
    response.headers["Location"] = f"/exports/{made.id}"
    return made


@router.get("/jobs/{job_id}/exports")
def list_exports(
    job_id: str, session: SessionDep, paging: Annotated[Paging, paging(50)]
) -> ExportPage:
    """Exports of a job, the newest first."""
    page = service.page(session, job_id, paging)
    return ExportPage(exports=[described(*row) for row in page.items], next=page.next)


@router.get("/exports/{export_id}")
def get_export(export_id: str, session: SessionDep) -> ExportOut:
    """How far it is; then what it holds, what was left out, and what the format lost."""
    return described(*service.get(session, export_id))


@router.get("/exports/{export_id}/file", response_class=Response)
def get_file(
    export_id: str, request: Request, session: SessionDep, storage: StorageDep
) -> Response:
    """The file; whole, or by Range. 409 while it is not there."""
    export = service.get_file(session, export_id)
    name, sha = str(export.filename), str(export.sha256)
    kind = MEDIA_TYPES[name[name.rindex(".") :]]
    return blob_response(request, storage, sha, media_type=kind, filename=name)


@router.delete("/exports/{export_id}", status_code=204)
def delete_export(export_id: str, session: SessionDep) -> None:
    """Remove an export with its file.

    409 while it is being made: cancel it first, as the job of the same id.
    """
    service.remove(session, export_id)
