"""Alembic's entry. The connection, in its transaction, comes from `app.db.migrate`."""

from typing import Any, Literal

from alembic import context
from sqlalchemy import Enum

from app.db.columns import Utc
from app.db.models import Job


def render_item(kind: str, item: Any, _autogen: Any) -> str | Literal[False]:
    """Revisions stay as they are when the models move on, so they name no type of ours."""
    if kind == "type" and isinstance(item, Utc):
        return "sa.DateTime(timezone=True)"
    if kind == "type" and isinstance(item, Enum):
        return f"sa.String(length={item.length})"
    return False


context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=Job.metadata,
    render_as_batch=True,
    render_item=render_item,
    transactional_ddl=True,
    transaction_per_migration=False,
)
context.run_migrations()
