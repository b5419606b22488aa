"""GET /models: what was trained here, and the files."""

from fastapi import APIRouter, Request, Response

from app.db import SessionDep
from app.deps import StorageDep
from app.models import Model
from app.paging import Cursor, Limit, decode, encode, link_next
from app.registry import service
from app.registry.schemas import ModelDetail, ModelPage
from app.responses import blob_response

router = APIRouter(prefix="/models", tags=["models"])


@router.get("", response_model=ModelPage)
def list_models(
    request: Request,
    response: Response,
    session: SessionDep,
    limit: Limit = 50,
    cursor: Cursor = None,
) -> dict[str, object]:
    """Models, the newest first."""
    models = service.page(session, limit + 1, decode(cursor, str))
    following = encode(models[limit - 1].id) if len(models) > limit else None
    link_next(request, response, following)
    return {"models": models[:limit], "next": following}


@router.get("/{model_id}", response_model=ModelDetail)
def get_model(model_id: str, session: SessionDep) -> Model:
    """Its classes, settings, figures, and where its weights came from."""
    return service.get(session, model_id)


@router.get("/{model_id}/checkpoint", response_class=Response)
def checkpoint(
    model_id: str, request: Request, session: SessionDep, storage: StorageDep
) -> Response:
    """The file, `model.pt`; whole, or by Range."""
    sha = service.get(session, model_id).sha256
    kind, name = "application/octet-stream", f"model-{model_id}.pt"
    return blob_response(request, storage, sha, media_type=kind, filename=name)
