"""GET and POST /predict: COCO results, or a picture with them drawn on it."""

from typing import Annotated, Any

import msgspec
from fastapi import APIRouter, Depends, Form, Query, Request, Response, UploadFile
from pydantic import WithJsonSchema

from app.accept import preferred
from app.db import DatabaseDep
from app.deps import SettingsDep, StorageDep, takes
from app.predict import service
from app.predict.runtime import Runtime
from app.predict.schemas import Result
from app.settings import Settings

router = APIRouter(tags=["predict"])

JSON, PNG = "application/json", "image/png"
SCORE = "least score of a result; default 0.1, and 0.3 in pictures"
ANSWERS: dict[int | str, dict[str, Any]] = {200: {"content": {PNG: {}}}}


def get_runtime(request: Request) -> Runtime:
    runtime: Runtime = request.app.state.runtime
    return runtime


RuntimeDep = Annotated[Runtime, Depends(get_runtime)]
Score = Annotated[float | None, Query(ge=0, le=1, description=SCORE)]
FormScore = Annotated[
    float | None,
    Form(ge=0, le=1, description=SCORE),
    WithJsonSchema({"type": "number", "minimum": 0, "maximum": 1}),  # a form has no null
]


@router.get("/predict", response_model=list[Result], responses=ANSWERS)
def predict_known(
    request: Request,
    database: DatabaseDep,
    storage: StorageDep,
    settings: SettingsDep,
    runtime: RuntimeDep,
    model: str,
    image: Annotated[str, Query(description="your id of the image, or its file name")],
    dataset: Annotated[str | None, Query(description="default: the model's own")] = None,
    score: Score = None,
) -> Response:
    """Instances in an image of a data set, as COCO results. `Accept: image/png` gives the picture
    with those drawn on it whose score is 0.3 or more; `score` sets another limit.

    Below its own `solo.score_threshold` (0.1) a model gives nothing, whatever `score` says."""
    kind = preferred(request, JSON, PNG)
    with database.read() as session:
        known = service.find_model(session, model)
        image_id, sha = service.find_image(session, dataset or known.dataset_id, image)
    least = _least(settings, kind, score)
    path = storage.local_path(sha)
    prediction = service.predict(runtime, storage, settings, known, path, least)
    for result in prediction.results:
        result["image_id"] = image_id
    return _answer(kind, prediction)


@router.post(
    "/predict",
    response_model=list[Result],
    responses=ANSWERS,
    dependencies=[takes("multipart/form-data", "application/x-www-form-urlencoded")],
)
def predict_sent(
    request: Request,
    database: DatabaseDep,
    storage: StorageDep,
    settings: SettingsDep,
    runtime: RuntimeDep,
    file: UploadFile,
    model: Annotated[str, Form(min_length=1)],
    score: FormScore = None,
) -> Response:
    """Instances in the image that is sent: as `GET /predict` says, without `image_id`."""
    kind = preferred(request, JSON, PNG)
    with database.read() as session:
        known = service.find_model(session, model)
    least = _least(settings, kind, score)
    return _answer(kind, service.predict(runtime, storage, settings, known, file.file, least))


def _least(settings: Settings, kind: str, score: float | None) -> float:
    if score is not None:
        return score
    return settings.overlay_score if kind == PNG else settings.predict_score


def _answer(kind: str, prediction: service.Prediction) -> Response:
    body = prediction.png() if kind == PNG else msgspec.json.encode(prediction.results)
    return Response(body, media_type=kind, headers={"Vary": "Accept"})
