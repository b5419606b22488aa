"""Trained models, each the result of one job."""

from sqlalchemy import select
from sqlalchemy.orm import Session

from app.db.columns import is_id
from app.db.models import Model
from app.errors import NotFound
from app.http.pagination import Page, Paging, paginate
from app.registry import aliases


def get(session: Session, name: str) -> Model:
    """By its id, or by an alias. Raises NotFound."""
    model = session.get(Model, name) if is_id(name) else None
    if model is None and (alias := aliases.find(session, name)) is not None:
        model = session.get(Model, alias.model_id)
    if model is None:
        raise NotFound("model", name)
    return model


def page(session: Session, paging: Paging) -> Page[Model]:
    """Models, the newest first."""
    return paginate(session, select(Model), Model.id, paging, descending=True)
