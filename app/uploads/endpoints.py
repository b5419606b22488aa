"""Uploads that go on after a break.

tus 1.0.0 (https://tus.io/protocols/resumable-upload) with its extensions creation, checksum,
expiration and termination. POST /datasets takes them by id.
"""

from datetime import datetime
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Depends, Header, Request, Response
from fastapi.concurrency import run_in_threadpool
from fastapi.routing import APIRoute
from pydantic import BaseModel, Field
from starlette.datastructures import MutableHeaders
from starlette.types import Message, Receive, Scope, Send

from app.auth.access import access
from app.db.models import Upload
from app.db.session import Database, DatabaseDep, SessionDep
from app.errors import BadHeader, Conflict, PreconditionFailed, UnsupportedMedia
from app.http.dependencies import SettingsDep, StorageDep
from app.settings import Settings
from app.storage.store import Storage
from app.uploads import service
from app.uploads.headers import (
    ALGORITHMS,
    BODY,
    EXTENSIONS,
    VERSION,
    http_date,
    of_upload,
    read_checksum,
    read_filename,
)
from app.uploads.receiving import receive


class TusRoute(APIRoute):
    """Every answer says the version, the refusals too."""

    async def handle(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer, with the header Tus-Resumable on every answer."""

        async def send_with_version(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message)["Tus-Resumable"] = VERSION
            await send(message)

        await super().handle(scope, receive, send_with_version)


def _check_version(request: Request) -> None:
    """Before anything else of a request is looked at."""
    version = request.headers.get("tus-resumable")
    if version is None:
        raise BadHeader(f"Send the header Tus-Resumable: {VERSION}.")
    if version != VERSION:
        detail = f"Tus-Resumable: this is {VERSION}, not {version!r}."
        raise PreconditionFailed(detail, headers={"Tus-Version": VERSION})


class UploadOut(BaseModel):
    """A file on its way."""

    id: str
    filename: str = Field(description="as Upload-Metadata had it; may be empty")
    length: int
    offset: int = Field(description="bytes that are kept: where to go on")
    expires_at: datetime


router = APIRouter(prefix="/uploads", tags=["uploads"], route_class=TusRoute)

SAME_VERSION = Depends(_check_version)
Resumable = Annotated[Literal["1.0.0"], Header(alias="Tus-Resumable")]
Length = Annotated[int, Header(alias="Upload-Length", ge=0, lt=2**63, description="bytes in all")]
Offset = Annotated[int, Header(alias="Upload-Offset", ge=0, lt=2**63, description="from HEAD")]
Metadata = Annotated[
    str,
    Header(
        alias="Upload-Metadata",
        description="`filename` and the name in base64; other keys after commas",
        json_schema_extra={"pattern": r"^filename (?:[A-Za-z0-9+/]{4})*$"},
    ),
]
Sum = Annotated[
    str | None,
    Header(
        alias="Upload-Checksum",
        description="of the bytes of this request: sha256, sha1 or md5, and the digest in base64",
        json_schema_extra={"pattern": r"^(sha256|sha1|md5) [A-Za-z0-9+/]{24}([A-Za-z0-9+/]{4})*$"},
    ),
]
Override = Annotated[
    str | None, Header(alias="X-HTTP-Method-Override", description="PATCH or DELETE")
]
BYTES: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "content": {BODY: {"schema": {"type": "string", "format": "binary"}}},
    }
}


@router.options("", status_code=204)
def options(settings: SettingsDep) -> Response:
    """What of tus there is."""
    headers = {
        "Tus-Version": VERSION,
        "Tus-Extension": EXTENSIONS,
        "Tus-Max-Size": str(settings.max_upload_bytes),
        "Tus-Checksum-Algorithm": ",".join(ALGORITHMS),
    }
    return Response(status_code=204, headers=headers)


@router.post("", status_code=201, dependencies=[SAME_VERSION])
def create(
    response: Response,
    database: DatabaseDep,
    settings: SettingsDep,
    tus_resumable: Resumable,
    upload_length: Length,
    upload_metadata: Metadata = "",
) -> UploadOut:
    """Begin an upload. Its bytes follow by PATCH to its Location."""
    filename = read_filename(upload_metadata)
    upload = service.begin(
        database, settings, length=upload_length, filename=filename, about=upload_metadata
    )
    response.headers["Location"] = f"/uploads/{upload.id}"
    response.headers["Upload-Expires"] = http_date(upload.expires_at)
    return _described(upload)


@router.get("/{upload_id}")
def get_upload(upload_id: str, response: Response, session: SessionDep) -> UploadOut:
    """How far it is: HEAD has it in the headers, Upload-Offset first."""
    upload = service.get(session, upload_id)
    response.headers.update(of_upload(upload))
    return _described(upload)


@router.patch("/{upload_id}", status_code=204, openapi_extra=BYTES, dependencies=[SAME_VERSION])
@access(body=lambda settings: settings.max_upload_bytes)
async def patch(
    upload_id: str,
    request: Request,
    database: DatabaseDep,
    storage: StorageDep,
    settings: SettingsDep,
    tus_resumable: Resumable,
    upload_offset: Offset,
    upload_checksum: Sum = None,
) -> Response:
    """Add bytes at the offset.

    What came before the line broke is kept, unless there is a checksum, with which it is all or
    nothing: 460 where it does not fit.
    """
    return await _add(
        request, database, storage, settings, upload_id, upload_offset, upload_checksum
    )


@router.delete("/{upload_id}", status_code=204, dependencies=[SAME_VERSION])
def delete(upload_id: str, database: DatabaseDep, tus_resumable: Resumable) -> Response:
    """Forget it, finished or not. A data set that was made of it stays."""
    _end(database, upload_id)
    return Response(status_code=204)


@router.post("/{upload_id}", status_code=204, openapi_extra=BYTES, dependencies=[SAME_VERSION])
@access(body=lambda settings: settings.max_upload_bytes)
async def overridden(
    upload_id: str,
    request: Request,
    database: DatabaseDep,
    storage: StorageDep,
    settings: SettingsDep,
    tus_resumable: Resumable,
    upload_offset: Offset = 0,
    upload_checksum: Sum = None,
    method: Override = None,
) -> Response:
    """PATCH or DELETE, for those who cannot send these."""
    wanted = (method or "").upper()
    if wanted == "DELETE":
        await run_in_threadpool(_end, database, upload_id)
        return Response(status_code=204)
    if wanted != "PATCH":
        raise BadHeader("X-HTTP-Method-Override says what this is to be: PATCH or DELETE.")
    return await _add(
        request, database, storage, settings, upload_id, upload_offset, upload_checksum
    )


async def _add(
    request: Request,
    database: Database,
    storage: Storage,
    settings: Settings,
    upload_id: str,
    offset: int,
    checksum: str | None,
) -> Response:
    kind = request.headers.get("content-type", "").split(";")[0].strip().lower()
    if kind != BODY:
        raise UnsupportedMedia(f"Send Content-Type: {BODY}; it was {kind!r}.")
    expected = read_checksum(checksum)
    upload = await run_in_threadpool(_look_up, database, upload_id)
    if upload.received != offset:
        raise Conflict(
            f"The upload is at {upload.received:,}, not at {offset:,}.",
            headers={"Upload-Offset": str(upload.received)},
            offset=upload.received,
        )
    await receive(request, database, storage, settings, upload, expected)
    upload = await run_in_threadpool(_look_up, database, upload_id)
    return Response(status_code=204, headers=of_upload(upload))


def _look_up(database: Database, upload_id: str) -> Upload:
    with database.read() as session:
        return service.get(session, upload_id)


def _end(database: Database, upload_id: str) -> None:
    _look_up(database, upload_id)
    service.remove(database, [upload_id])


def _described(upload: Upload) -> UploadOut:
    return UploadOut(
        id=upload.id,
        filename=upload.filename,
        length=upload.length,
        offset=upload.received,
        expires_at=upload.expires_at,
    )
