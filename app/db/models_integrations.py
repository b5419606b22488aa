"""Tables of what other tools have told about themselves.

A part of app/db/models.py, from where they are imported.
"""

from sqlalchemy import Index, String
from sqlalchemy.orm import Mapped, mapped_column

from app.db.columns import Base, Json, Moment, RowId


class LabelStudioProject(Base):
    """A project of a Label Studio that has connected the service: see `app.integrations`."""

    __tablename__ = "label_studio_project"
    __table_args__ = (Index(None, "owner", "project", unique=True),)

    pk: Mapped[RowId]
    owner: Mapped[str] = mapped_column(String(64))
    """Of the key that it sends; "" for none, which a unique index would take for different ones."""
    project: Mapped[str] = mapped_column(String(100))
    """What Label Studio calls it: its id, a dot, and when it was made, in seconds since 1970."""
    url: Mapped[str] = mapped_column(String(2000))
    """Where that Label Studio says that it is."""
    token: Mapped[str] = mapped_column(String(2000))
    """Of its API; "" where it sent none."""
    label_config: Mapped[str]
    parameters: Mapped[Json]
    """What its owner has set for the service."""
    datasets: Mapped[Json]
    """Ids of those that were made of it, the newest last. Of deleted ones too."""
    to_train: Mapped[str | None] = mapped_column(String(32), index=True)
    """Id of the data set that is to be trained on once it is ready."""
    updated_at: Mapped[Moment]
