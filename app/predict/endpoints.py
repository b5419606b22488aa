"""GET and POST /predict: COCO results, or a picture with them drawn on it."""

from typing import Annotated, Any

import msgspec
from fastapi import APIRouter, Depends, Form, Query, Request, Response, UploadFile

from app.accept import preferred
from app.db import DatabaseDep
from app.deps import SettingsDep, StorageDep
from app.predict import service
from app.predict.runtime import Runtime
from app.predict.schemas import Result

router = APIRouter(tags=["predict"])

JSON, PNG = "application/json", "image/png"
MAX_BYTES = 512 << 20
ANSWERS: dict[int | str, dict[str, Any]] = {200: {"content": {PNG: {}}}}


def get_runtime(request: Request) -> Runtime:
    runtime: Runtime = request.app.state.runtime
    return runtime


RuntimeDep = Annotated[Runtime, Depends(get_runtime)]
Score = Annotated[float | None, Query(ge=0, le=1, description="least score of a result")]
FormScore = Annotated[float | None, Form(ge=0, le=1, description="least score of a result")]


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
    """Instances in an image of a data set. `Accept: image/png` gives the picture."""
    kind = preferred(request, JSON, PNG)
    with database.read() as session:
        known = service.find_model(session, model)
        sha = service.find_image(session, dataset or known.dataset_id, image)
    path = storage.local_path(sha)
    return _answer(kind, service.predict(runtime, storage, settings, known, path, score))


@router.post("/predict", response_model=list[Result], responses=ANSWERS, max_body_size=MAX_BYTES)
def predict_sent(
    request: Request,
    database: DatabaseDep,
    storage: StorageDep,
    settings: SettingsDep,
    runtime: RuntimeDep,
    file: UploadFile,
    model: Annotated[str, Form()],
    score: FormScore = None,
) -> Response:
    """Instances in the image that is sent. `Accept: image/png` gives the picture."""
    kind = preferred(request, JSON, PNG)
    with database.read() as session:
        known = service.find_model(session, model)
    return _answer(kind, service.predict(runtime, storage, settings, known, file.file, score))


def _answer(kind: str, prediction: service.Prediction) -> Response:
    body = prediction.png() if kind == PNG else msgspec.json.encode(prediction.results)
    return Response(body, media_type=kind)
