"""GET /jobs/{id}/pseudo-masks: a page of JSON, or all of them as NDJSON."""

from operator import itemgetter
from typing import Annotated

from fastapi import APIRouter, Query, Request, Response
from fastapi.responses import StreamingResponse

from app.db.models import MaskStatus
from app.db.session import DatabaseDep
from app.http.content_negotiation import preferred
from app.http.dependencies import StorageDep
from app.http.pagination import Cursor, Paging
from app.jobs.service import get_delivered
from app.masks import service, stream
from app.masks.schemas import PseudoMaskPage

router = APIRouter(tags=["pseudo-masks"])

JSON, NDJSON = "application/json", "application/x-ndjson"
DEFAULT_LIMIT = 1_000
UserId = Annotated[int | None, Query(ge=-(2**63), lt=2**63)]


@router.get(
    "/jobs/{job_id}/pseudo-masks",
    response_model=PseudoMaskPage,
    responses={200: {"content": {NDJSON: {}}}},
)
def pseudo_masks(
    job_id: str,
    request: Request,
    response: Response,
    database: DatabaseDep,
    storage: StorageDep,
    image_id: UserId = None,
    category_id: UserId = None,
    min_quality: Annotated[float, Query(ge=0, le=1)] = 0.0,
    status: MaskStatus | None = None,
    detail: Annotated[
        bool, Query(description="with the masks before and after refinement, and candidates")
    ] = False,
    limit: Annotated[int | None, Query(ge=1, le=10_000)] = None,
    cursor: Cursor = None,
) -> Response:
    """One mask per annotation, as it stands: where one was corrected in the review, the correction.

    `Accept: application/x-ndjson` streams all of them, a line each; JSON comes in pages of `limit`
    (1,000).
    """
    kind = preferred(request, JSON, NDJSON, "application/ndjson", "application/jsonl")
    paging = Paging(request, response, limit or DEFAULT_LIMIT, cursor)
    after = paging.after(int)
    with database.read() as session:
        get_delivered(session, job_id)
    wanted = service.Filter(
        job_id, image_id, category_id, min_quality, status=status, detail=detail
    )
    vary = {"Vary": "Accept"}
    if kind != JSON:
        lines = stream.lines(database, storage, wanted, limit, after)
        return StreamingResponse(lines, media_type=kind, headers=vary)
    with database.read() as session:
        masks = service.page(session, wanted, paging.limit + 1, after)
    page = paging.page(masks, itemgetter("id"))
    body = service.encode({"annotations": page.items, "next": page.next})
    return Response(body, media_type=JSON, headers=vary | page.headers)
