"""GET /models: what was trained here, and the files. Every `{model}` is an id or an alias."""

from typing import Annotated, Any

from fastapi import APIRouter, Request, Response

from app.db.models import Model
from app.db.session import SessionDep
from app.errors import NotFound
from app.http.dependencies import StorageDep
from app.http.file_response import blob_response
from app.http.pagination import Paging, paging
from app.registry import service
from app.registry.alias_endpoints import router as aliases
from app.registry.schemas import ModelDetail, ModelName, ModelPage

router = APIRouter(prefix="/models", tags=["models"])
router.include_router(aliases)  # before /models/{model_id}

BINARY = "application/octet-stream"


def _file(kind: str) -> dict[int | str, dict[str, Any]]:
    content = {kind: {"schema": {"type": "string", "format": "binary"}}}
    return {200: {"content": content}, 206: {"content": content, "description": "by Range"}}


@router.get("", response_model=ModelPage)
def list_models(session: SessionDep, paging: Annotated[Paging, paging(50)]) -> dict[str, object]:
    """Models, the newest first."""
    page = service.page(session, paging)
    return {"models": page.items, "next": page.next}


@router.get("/{model_id}", response_model=ModelDetail)
def get_model(model_id: ModelName, session: SessionDep) -> Model:
    """Its classes, settings, figures, and where its weights came from."""
    return service.get(session, model_id)


@router.get("/{model_id}/checkpoint", response_class=Response, responses=_file(BINARY))
def checkpoint(
    model_id: ModelName, request: Request, session: SessionDep, storage: StorageDep
) -> Response:
    """The file, `model.pt`; whole, or by Range."""
    model = service.get(session, model_id)
    return _sent(request, storage, model, model_id, model.sha256, BINARY, "pt")


@router.get("/{model_id}/weights", response_class=Response, responses=_file(BINARY))
def weights(
    model_id: ModelName, request: Request, session: SessionDep, storage: StorageDep
) -> Response:
    """The same as safetensors.

    Weights by their names, and, under `sapnet` in the header's metadata, classes and settings as
    JSON.
    """
    model = service.get(session, model_id)
    if model.weights_sha is None:
        raise NotFound("safetensors file (an older release trained it) of model", model.id)
    return _sent(request, storage, model, model_id, model.weights_sha, BINARY, "safetensors")


@router.get("/{model_id}/curves.png", response_class=Response, responses=_file("image/png"))
def curves(
    model_id: ModelName, request: Request, session: SessionDep, storage: StorageDep
) -> Response:
    """Precision against recall, overall and by class, where truth was given.

    As numbers they are in `metrics`, under `curves`.
    """
    model = service.get(session, model_id)
    if model.curves_sha is None:
        raise NotFound("plot of curves (no truth was given in training) of model", model.id)
    return _sent(request, storage, model, model_id, model.curves_sha, "image/png")


@router.get("/{model_id}/onnx", response_class=Response, responses=_file(BINARY))
def get_onnx(
    model_id: ModelName, request: Request, session: SessionDep, storage: StorageDep
) -> Response:
    """The model in ONNX, decoding included.

    `image` (1, 3, H, W) and `content` (h, w) in, `labels`, `scores` and `masks` out. POST to this
    address has it made, once.
    """
    model = service.get(session, model_id)
    if model.onnx_sha is None:
        raise NotFound(f"ONNX file yet (POST /models/{model.id}/onnx makes it) of model", model.id)
    return _sent(request, storage, model, model_id, model.onnx_sha, BINARY, "onnx")


def _sent(
    request: Request,
    storage: StorageDep,
    model: Model,
    asked: str,
    sha: str,
    kind: str,
    suffix: str | None = None,
) -> Response:
    """By its id a model's file never changes; by an alias it does."""
    filename = f"model-{model.id}.{suffix}" if suffix else None
    by_id = asked == model.id
    return blob_response(request, storage, sha, media_type=kind, filename=filename, immutable=by_id)
