"""GET and POST /predict, and the predictions of jobs.

COCO results, or the image with them drawn on it; and, of many images, what a worker predicted.
"""

from collections.abc import Iterator
from operator import itemgetter
from typing import Annotated, Any

import msgspec
from fastapi import APIRouter, Depends, Query, Request, Response
from fastapi.responses import StreamingResponse

from app.auth.access import access
from app.auth.keys import ANYONE, Caller, Scope
from app.db.session import Database, DatabaseDep
from app.errors import Forbidden, Invalid, ValidationIssue
from app.http.content_negotiation import preferred
from app.http.dependencies import SettingsDep, StorageDep, require_content_type
from app.http.idempotency import IDEMPOTENT
from app.http.pagination import Cursor, Paging
from app.http.prefer import ASYNC, Prefer, wants_async
from app.jobs.schemas import JobCreated
from app.predict import deferred, service
from app.predict.model_cache import PredictOptions, Runtime
from app.predict.request import (
    FORM_SCHEMA,
    JSON,
    PredictArguments,
    PredictArgumentsDep,
    json_schema,
)
from app.predict.schemas import MIRROR, TILES, PredictionPage, Result, TilesIn
from app.settings import Settings
from app.storage.images import NotAnImage
from sapnet.data.exif import AS_STORED

router = APIRouter(tags=["predict"])

PNG, NDJSON = "image/png", "application/x-ndjson"
BATCH = 200  # images; each may have a hundred results
SCORE = (
    "confidence threshold of results; default that of the best F1 of the model's validation, of a "
    "model without one 0.1, and 0.3 in drawn images"
)
FRAME, STORED = "Coordinate-Frame", "stored"
_FRAMED = {
    "schema": {"type": "string"},
    "description": "what masks and boxes refer to: `stored`, the pixels of the file. Viewers turn "
    "an image that has `;exif-orientation=2` to `8`; drawn images are not turned",
}
ANSWERS: dict[int | str, dict[str, Any]] = {
    200: {"content": {PNG: {}}, "headers": {FRAME: _FRAMED}}
}
TAKEN: dict[int | str, dict[str, Any]] = {
    **ANSWERS,
    202: {
        "model": JobCreated,
        "description": "Taken: a worker does it; the results are /jobs/{id}/predictions",
        "headers": {
            "Location": {"schema": {"type": "string"}, "description": "the job"},
            "Preference-Applied": {"schema": {"type": "string"}},
        },
    },
}
KINDS = ("multipart/form-data", JSON, "application/x-www-form-urlencoded")
BODY = {
    "requestBody": {
        "required": True,
        "content": {
            "multipart/form-data": {"schema": FORM_SCHEMA},
            JSON: {"schema": json_schema()},
        },
    }
}


def get_runtime(request: Request) -> Runtime:
    """Return the models in memory."""
    runtime: Runtime = request.app.state.runtime
    return runtime


RuntimeDep = Annotated[Runtime, Depends(get_runtime)]
Score = Annotated[float | None, Query(ge=0, le=1, description=SCORE)]


@router.get("/predict", response_model=list[Result], responses=ANSWERS)
def predict_known(
    request: Request,
    database: DatabaseDep,
    storage: StorageDep,
    settings: SettingsDep,
    runtime: RuntimeDep,
    model: Annotated[str, Query(description="its id, or an alias")],
    image: Annotated[str, Query(description="your id of the image, or its file name")],
    dataset: Annotated[str | None, Query(description="default: the model's own")] = None,
    score: Score = None,
    tiles: Annotated[TilesIn, Query(description=TILES)] = "auto",
    mirror: Annotated[bool, Query(description=MIRROR)] = False,
) -> Response:
    """Instances in an image of a data set, as COCO results.

    Those of the model's own score threshold or more, see `score`; `Accept: image/png` gives the
    image with them drawn on it. Below its own `solo.score_threshold` (0.1) a model gives nothing,
    whatever `score` says.
    """
    kind = preferred(request, JSON, PNG)
    with database.read() as session:
        model_info = service.find_model(session, model)
        image_id, sha = service.find_image(session, dataset or model_info.dataset_id, image)
    least = service.least_score(settings, model_info, score, drawn=kind == PNG)
    path = storage.local_path(sha)
    try:
        options = PredictOptions(least, tiles, mirror)
        common = (runtime, storage, settings, model_info, path, options)
        prediction = service.predict(*common, draw=kind == PNG)
    except NotAnImage as error:
        raise Invalid(
            [ValidationIssue("query", "/image", str(error), error.hint or "correct the data set")]
        ) from error
    for result in prediction.results:
        result["image_id"] = image_id
    return _answer(prediction)


@router.post(
    "/predict",
    response_model=list[Result] | PredictionPage,
    responses=TAKEN,
    openapi_extra=BODY,
    dependencies=[require_content_type(*KINDS), IDEMPOTENT],
)
# Nothing is kept, unless a worker does it: that asks for more, below.
@access(scope=Scope.READ, body=lambda settings: settings.max_image_bytes)
def predict_sent(
    request: Request,
    database: DatabaseDep,
    storage: StorageDep,
    settings: SettingsDep,
    runtime: RuntimeDep,
    arguments: PredictArgumentsDep,
    prefer: Prefer = None,
) -> Response:
    """Instances in an image that is sent (`file`, or `image` in base64), or at a `url`.

    As `GET /predict` says, without `image_id`. Addresses that are not public are not called.

    `images` is a list of ids, addresses and images in base64: the answer then has an entry for
    each, also for those that could not be read. With `Prefer: respond-async` a worker does it, and
    the answer is the job; its results are `/jobs/{id}/predictions`. More than a few images
    (`predict_at_once`, 8) and whole data sets (`dataset` alone) are done that way alone.
    """
    if wants_async(prefer):
        return _deferred(request, database, storage, settings, arguments)
    kind = preferred(request, JSON) if arguments.many else preferred(request, JSON, PNG)
    issues = _too_many(settings, arguments)
    with database.read() as session:
        model_info = service.find_model(session, arguments.model)
        of_list = arguments.many and not issues
        dataset = arguments.dataset or model_info.dataset_id
        shas = service.find_images(session, dataset, arguments, issues) if of_list else {}
    if issues:
        raise Invalid(issues)
    common = (runtime, storage, settings, model_info, arguments)
    least = service.least_score(settings, model_info, arguments.score, drawn=kind == PNG)
    options = PredictOptions(least, arguments.tiles, arguments.mirror)
    if not arguments.many:
        return _answer(service.predict_one(*common, options, draw=kind == PNG))
    body = {"predictions": list(service.predict_each(*common, shas, options)), "next": None}
    headers = {"Vary": "Accept", FRAME: STORED}
    return Response(msgspec.json.encode(body), media_type=JSON, headers=headers)


def _deferred(
    request: Request,
    database: Database,
    storage: StorageDep,
    settings: Settings,
    arguments: PredictArguments,
) -> Response:
    caller: Caller = getattr(request.state, "caller", ANYONE)
    if not caller.scope.allows(Scope.WRITE):
        raise Forbidden(
            f"A job needs a key with the scope {Scope.WRITE}; this one's is {caller.scope}.",
            headers={"WWW-Authenticate": 'Bearer realm="sapnet", error="insufficient_scope"'},
        )
    job = deferred.create(database, storage, settings, arguments)
    body = JobCreated.model_validate(job).model_dump_json()
    headers = {"Location": f"/jobs/{job.id}", "Preference-Applied": ASYNC}
    return Response(body, 202, media_type=JSON, headers=headers)


def _too_many(settings: Settings, arguments: PredictArguments) -> list[ValidationIssue]:
    hint = f"send Prefer: {ASYNC}, and a worker does it"
    if not arguments.sources:
        return [ValidationIssue("body", "/dataset", "a whole data set is not done at once", hint)]
    if len(arguments.sources) > settings.predict_at_once:
        detail = f"at most {settings.predict_at_once} images are done at once"
        return [ValidationIssue("body", "/images", detail, hint)]
    return []


@router.get(
    "/jobs/{job_id}/predictions",
    response_model=PredictionPage,
    responses={200: {"content": {NDJSON: {}}, "headers": {FRAME: _FRAMED}}},
)
def predictions(
    job_id: str,
    request: Request,
    response: Response,
    database: DatabaseDep,
    limit: Annotated[int | None, Query(ge=1, le=1_000)] = None,
    cursor: Cursor = None,
) -> Response:
    """What a job predicted, image by image, in the order of its request.

    `Accept: application/x-ndjson` streams all of them, a line each; JSON comes in pages of `limit`
    (100).
    """
    kind = preferred(request, JSON, NDJSON, "application/ndjson", "application/jsonl")
    paging = Paging(request, response, limit or 100, cursor)
    after = paging.after(int)
    with database.read() as session:
        deferred.get_successful(session, job_id)
    vary = {"Vary": "Accept", FRAME: STORED}
    if kind != JSON:
        lines = _lines(database, job_id, limit, after)
        return StreamingResponse(lines, media_type=kind, headers=vary)
    with database.read() as session:
        rows = deferred.page(session, job_id, paging.limit + 1, after)
    page = paging.page(rows, itemgetter("number"))
    body = msgspec.json.encode({"predictions": page.items, "next": page.next})
    return Response(body, media_type=JSON, headers=vary | page.headers)


def _lines(
    database: Database, job_id: str, limit: int | None, after: int | None
) -> Iterator[bytes]:
    """NDJSON, a batch at a time; no session is open while the client reads."""
    left = limit
    while left is None or left > 0:
        size = BATCH if left is None else min(BATCH, left)
        with database.read() as session:
            rows = deferred.page(session, job_id, size, after)
        if not rows:
            return
        yield b"".join(msgspec.json.encode(line) + b"\n" for line in rows)
        after = rows[-1]["number"]
        left = None if left is None else left - len(rows)


def _answer(prediction: service.Prediction) -> Response:
    frame = STORED
    if prediction.orientation != AS_STORED:
        frame = f"{STORED};exif-orientation={prediction.orientation}"
    headers = {"Vary": "Accept", FRAME: frame}
    if prediction.drawn is not None:
        return Response(prediction.drawn, media_type=PNG, headers=headers)
    return Response(msgspec.json.encode(prediction.results), media_type=JSON, headers=headers)
