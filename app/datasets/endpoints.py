"""Data sets: images with one point an object."""

from typing import Annotated, Any

from fastapi import APIRouter, Query, Request, Response
from fastapi import Path as PathParameter
from fastapi.concurrency import run_in_threadpool

from app.auth.access import access
from app.auth.quotas import room_for_upload
from app.datasets import service
from app.datasets.rows import bbox_of
from app.datasets.schemas import (
    FORM_TEXTS,
    UPLOAD_FORM,
    AnnotationOut,
    AnnotationPage,
    DatasetOut,
    DatasetPage,
    ImageOut,
    ImagePage,
)
from app.db.models import Annotation, Image
from app.db.session import DatabaseDep, SessionDep
from app.http.dependencies import SettingsDep, StorageDep
from app.http.file_response import blob_response
from app.http.idempotency import IDEMPOTENT
from app.http.multipart import receive
from app.http.pagination import Paging, paging
from app.http.prefer import ASYNC, Prefer, wants_async
from app.http.scratch import scratch_folder
from app.storage.images import media_type_of

router = APIRouter(prefix="/datasets", tags=["datasets"])


DEFERRED: dict[int | str, dict[str, Any]] = {
    202: {
        "model": DatasetOut,
        "description": "Taken, and imported by a worker: `status` becomes ready or invalid",
        "headers": {
            "Location": {"schema": {"type": "string"}, "description": "the data set"},
            "Preference-Applied": {"schema": {"type": "string"}},
        },
    }
}


@router.post(
    "",
    status_code=201,
    openapi_extra=UPLOAD_FORM,
    responses=DEFERRED,
    dependencies=[IDEMPOTENT],
)
@access(body=lambda settings: settings.max_upload_bytes, first=room_for_upload)
async def create(
    request: Request,
    response: Response,
    database: DatabaseDep,
    storage: StorageDep,
    settings: SettingsDep,
    prefer: Prefer = None,
) -> DatasetOut:
    """Send annotations and images; everything that is wrong with them is listed in one 422.

    A large data set, by its bytes, its files or its documents, is answered with 202 and imported by
    a worker, as is one whose images are to be fetched: its `report` then says how far that is, and,
    where it becomes `invalid`, lists everything that is wrong. Files of any size may be sent before
    by tus, to /uploads.

    The body goes to disk as it comes, and whatever happens nothing of it stays but the data set.
    """
    async with scratch_folder(settings.folder("uploads")) as folder:
        form = await receive(
            request,
            folder,
            max_bytes=settings.max_upload_bytes,
            max_parts=settings.max_form_parts,
            texts=FORM_TEXTS,
            max_part_bytes=dict.fromkeys(("annotations", "truth"), settings.max_document_bytes),
        )
        wished = wants_async(prefer)
        status, dataset = await run_in_threadpool(
            _create,
            database,
            storage,
            settings,
            form,
            folder,
            respond_async=wished,
        )
    response.status_code = status
    if wished:
        response.headers["Preference-Applied"] = ASYNC
    response.headers["Location"] = f"/datasets/{dataset.id}"
    return dataset


@router.get("")
def list_datasets(session: SessionDep, paging: Annotated[Paging, paging(50)]) -> DatasetPage:
    """The newest first."""
    page = service.page(session, paging)
    return DatasetPage(datasets=[service.summary(d) for d in page.items], next=page.next)


@router.get("/{dataset_id}")
def get_dataset(dataset_id: str, session: SessionDep) -> DatasetOut:
    """Counts, classes, and what was odd about it."""
    return service.described(session, service.get(session, dataset_id))


@router.delete("/{dataset_id}", status_code=204)
def delete_dataset(dataset_id: str, session: SessionDep, force: bool = False) -> None:
    """Remove a data set, with its images.

    It is gone at once; a worker frees its space. 409 while a job of it, or one that needs it, is
    not over; where a model of it has an alias; and, unless `force`, where it has jobs at all: they
    go with it, with their masks and models.
    """
    service.delete(session, dataset_id, force=force)


@router.get("/{dataset_id}/images")
def list_images(
    dataset_id: str, session: SessionDep, paging: Annotated[Paging, paging(100)]
) -> ImagePage:
    """By image id."""
    page = service.image_page(session, dataset_id, paging)
    return ImagePage(images=[_image(i) for i in page.items], next=page.next)


@router.get("/{dataset_id}/images/{image_id}", response_class=Response)
def get_image(
    dataset_id: str,
    image_id: Annotated[int, PathParameter(ge=-(2**63), lt=2**63)],
    request: Request,
    session: SessionDep,
    storage: StorageDep,
) -> Response:
    """The image file as it was sent. `image_id` is the user's own."""
    image = service.image(session, dataset_id, image_id)
    with storage.open(image.sha256) as file:
        media_type = media_type_of(file.read(12))
    return blob_response(request, storage, image.sha256, media_type=media_type)


@router.get("/{dataset_id}/annotations")
def list_annotations(
    dataset_id: str,
    session: SessionDep,
    paging: Annotated[Paging, paging(1_000, most=10_000)],
    image_id: Annotated[int | None, Query(ge=-(2**63), lt=2**63)] = None,
) -> AnnotationPage:
    """By annotation id: each object's class, point and box, and its mask where it is confirmed."""
    page = service.annotation_page(session, dataset_id, image_id, paging)
    return AnnotationPage(annotations=[_annotation(a) for a in page.items], next=page.next)


def _create(*args: Any, **options: Any) -> tuple[int, DatasetOut]:
    from app.datasets.create import create_dataset  # loads the readers of formats, and numpy

    return create_dataset(*args, **options)


def _image(image: Image) -> ImageOut:
    return ImageOut(
        id=image.image_id,
        file_name=image.file_name,
        width=image.width,
        height=image.height,
        annotations=image.annotations,
        sha256=image.sha256,
        subset=image.subset,
        group=image.split_group,
    )


def _annotation(row: Annotation) -> AnnotationOut:
    return AnnotationOut(
        id=row.annotation_id,
        image_id=row.image_id,
        category_id=row.category_id,
        point=(row.x, row.y),
        mask=row.segmentation,
        bbox=bbox_of(row.box) if row.box else None,
        pointed=row.pointed,
    )
