"""Trained models, each the result of one job."""

from sqlalchemy import select
from sqlalchemy.orm import Session

from app.columns import is_id
from app.errors import NotFound
from app.models import Model


def get(session: Session, model_id: str) -> Model:
    model = session.get(Model, model_id) if is_id(model_id) else None
    if model is None:
        raise NotFound("model", model_id)
    return model


def page(session: Session, limit: int, after: str | None = None) -> list[Model]:
    """At most `limit` models, the newest first, older than the model `after`."""
    query = select(Model).order_by(Model.id.desc()).limit(limit)
    if after is not None:
        query = query.where(Model.id < after)
    return list(session.scalars(query))
