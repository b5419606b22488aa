"""Trained models, each the result of one job."""

from sqlalchemy import select
from sqlalchemy.orm import Session

from app.db.columns import is_id
from app.db.models import Model
from app.errors import NotFound
from app.registry import aliases


def get(session: Session, name: str) -> Model:
    """By its id, or by an alias. Raises NotFound."""
    model = session.get(Model, name) if is_id(name) else None
    if model is None and (alias := aliases.find(session, name)) is not None:
        model = session.get(Model, alias.model_id)
    if model is None:
        raise NotFound("model", name)
    return model


def page(session: Session, limit: int, after: str | None = None) -> list[Model]:
    """At most `limit` models, the newest first, older than the model `after`."""
    query = select(Model).order_by(Model.id.desc()).limit(limit)
    if after is not None:
        query = query.where(Model.id < after)
    return list(session.scalars(query))
