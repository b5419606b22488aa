"""GET /jobs/{id}/events: a stream of server-sent events, or a page of JSON."""

from operator import attrgetter
from typing import Annotated

from fastapi import APIRouter, Header, Request, Response
from fastapi.sse import EventSourceResponse

from app.db.models import EventType
from app.db.session import DatabaseDep
from app.errors import Unavailable
from app.http.content_negotiation import preferred
from app.http.pagination import Paging, paging
from app.jobs import events, service
from app.jobs.event_schemas import EventPage
from app.jobs.event_stream import Feed, look, stream

router = APIRouter(prefix="/jobs", tags=["jobs"])

SSE, JSON = "text/event-stream", "application/json"
LastEventId = Annotated[
    int | None, Header(alias="Last-Event-ID", ge=0, lt=2**31, description="give what came after it")
]

STREAM = {
    "itemSchema": {
        "type": "object",
        "properties": {
            "id": {"type": "string", "pattern": "^[0-9]+$"},
            "event": {"type": "string", "enum": [t.value for t in EventType]},
            "data": {
                "type": "string",
                "contentMediaType": "application/json",
                "contentSchema": {"$ref": "#/components/schemas/EventOut"},
            },
            "retry": {"type": "integer", "minimum": 0},
        },
    }
}
"""Of each server-sent event, as OpenAPI 3.2 has it, and FastAPI for streams of its own."""


@router.get(
    "/{job_id}/events",
    response_model=EventPage,
    responses={
        200: {"content": {SSE: STREAM}},
        204: {"description": "There is nothing after that id, and the job is over"},
    },
)
def job_events(
    job_id: str,
    request: Request,
    database: DatabaseDep,
    paging: Annotated[Paging, paging(100)],
    last_event_id: LastEventId = None,
) -> Response:
    """Everything that happened to the job, in order, and what happens next.

    Server-sent events until the one of type `end`. Ids count from 1 without gaps; with
    `Last-Event-ID` it goes on from there, so that a reader who comes back misses nothing.
    `Accept: application/json` gives pages of what there is so far.
    """
    kind = preferred(request, SSE, JSON)
    after = max(paging.after(int) or 0, last_event_id or 0)
    with database.read() as session:
        service.get(session, job_id)
    vary = {"Vary": "Accept", "Cache-Control": "no-cache"}
    rows, over = look(database, job_id, after, paging.limit + 1 if kind == JSON else 1)
    if kind == JSON:
        page = paging.page(rows, attrgetter("seq"))
        body = events.encode_page(page.items, page.next)
        return Response(body, media_type=JSON, headers=vary | page.headers)
    if over and not rows:
        return Response(status_code=204, headers=vary)  # tells a browser not to come again
    feed: Feed = request.app.state.feed
    vary["X-Accel-Buffering"] = "no"  # nginx would keep the events to itself
    return EventSourceResponse(stream(feed, job_id, after), headers=vary)


@router.get(
    "/{job_id}/tensorboard",
    response_class=Response,
    responses={200: {"content": {"application/octet-stream": {}}}},
)
def tensorboard(job_id: str, database: DatabaseDep) -> Response:
    """Losses and validations so far as an event file of TensorBoard, whether or not it is set.

    Put it into a folder, and `tensorboard --logdir` shows it.
    """
    from sapnet.utils.extras import missing_extra
    from sapnet.utils.tracking.base import TrackedEvent, advancing, scalars_of
    from sapnet.utils.tracking.tensorboard import event_file

    with database.read() as session:
        job = service.get(session, job_id)
        params = {"method": job.method, "preset": job.preset, "seed": str(job.seed)}
        rows = events.of_types(session, job_id, (EventType.PROGRESS, EventType.VALIDATION))
    tracked = [
        TrackedEvent(seq=e.seq, type=e.type, time=e.moment.timestamp(), data=e.data) for e in rows
    ]
    scalars = advancing((scalar for event in tracked for scalar in scalars_of(event)), {})
    try:
        content = event_file(scalars, params)
    except ModuleNotFoundError as error:
        if (message := missing_extra(error)) is None:
            raise
        raise Unavailable(message) from error
    name = f"events.out.tfevents.{int(job.created_at.timestamp())}.{job.id}"
    headers = {
        "Content-Disposition": f'attachment; filename="{name}"',
        "Cache-Control": "no-cache",
    }
    return Response(content, media_type="application/octet-stream", headers=headers)
