"""Tables of trained models, of their names and predictions, and of trackers of experiments.

A part of app/db/models.py, from where they are imported.
"""

from typing import Any

from sqlalchemy import ForeignKey, Index, String, column, select, table
from sqlalchemy.orm import Mapped, column_property, mapped_column

from app.db.columns import Base, BlobRef, Created, Id, Json, Moment, RowId, UserId

_JOB = table("job", column("id"), column("dataset_id"))


class Model(Base):
    """A trained segmenter; its file is the blob `sha256`."""

    __tablename__ = "model"

    id: Mapped[Id]
    job_id: Mapped[str] = mapped_column(ForeignKey("job.id", ondelete="CASCADE"), unique=True)
    created_at: Mapped[Created]
    name: Mapped[str] = mapped_column(String(200))
    categories: Mapped[Json]
    sha256: Mapped[BlobRef]
    size: Mapped[UserId]
    """Bytes of the file."""
    weights_sha: Mapped[BlobRef | None]
    """The same as safetensors. None: trained by an older release."""
    onnx_sha: Mapped[BlobRef | None]
    """The same in ONNX, once somebody asked for it."""
    curves_sha: Mapped[BlobRef | None]
    """A plot of precision against recall, where truth was given."""
    meta: Mapped[Json]
    metrics: Mapped[Json | None]
    trained_on: Mapped[str | None] = column_property(
        select(_JOB.c.dataset_id).where(_JOB.c.id == job_id).scalar_subquery()
    )
    """A data set. None: it was imported. Not `dataset_id`, which would decide on its owner."""

    @property
    def validation(self) -> dict[str, Any] | None:
        """Figures on images that were held out of its training."""
        figures: dict[str, Any] | None = self.meta.get("validation")
        return figures


class ModelAlias(Base):
    """A name of an owner's for one of the models: `production`, `best`."""

    __tablename__ = "model_alias"
    __table_args__ = (Index(None, "owner", "name", unique=True),)

    pk: Mapped[RowId]
    owner: Mapped[str] = mapped_column(String(64))
    """Of the key that made it; "" for none, which a unique index would take for different ones."""
    name: Mapped[str] = mapped_column(String(64))
    model_id: Mapped[str] = mapped_column(ForeignKey("model.id", ondelete="CASCADE"), index=True)
    revision: Mapped[UserId]
    """Raised by one with each move, which is a compare-and-set. Begins with the milliseconds since
    1970, so that one that is removed and made again never has a revision that it had."""
    updated_at: Mapped[Moment]


class Prediction(Base):
    """One image of a job of the kind `predict`, and what the model predicts in it."""

    __tablename__ = "prediction"
    __table_args__ = (Index(None, "job_id", "number", unique=True),)

    pk: Mapped[RowId]
    job_id: Mapped[str] = mapped_column(ForeignKey("job.id", ondelete="CASCADE"))
    number: Mapped[int]
    """Its place in the request, from 0."""
    image_id: Mapped[UserId | None]
    """The user's own, where the image is of a data set."""
    url: Mapped[str | None]
    """Where it is to be fetched from."""
    sha256: Mapped[BlobRef | None]
    """The image, where it need not be fetched; None once the job is over."""
    size: Mapped[Json | None]
    """[height, width]"""
    results: Mapped[Json | None]
    """COCO results; None before the job is over, and where there is an error."""
    error: Mapped[str | None]


class JobTracker(Base):
    """A tracker of experiments that reads a training's events, and how far it has come."""

    __tablename__ = "job_tracker"
    __table_args__ = (Index(None, "job_id", "tracker", unique=True),)

    id: Mapped[Id]
    job_id: Mapped[str] = mapped_column(ForeignKey("job.id", ondelete="CASCADE"))
    tracker: Mapped[str] = mapped_column(String(32))
    """One of `sapnet.utils.tracking.base.TRACKERS`."""
    run_id: Mapped[str | None] = mapped_column(String(200))
    """The tracker's own id of the run."""
    reached: Mapped[Json] = mapped_column(default=dict)
    """The last step of each series that it has."""
    sent: Mapped[int] = mapped_column(default=0)
    """Number of the newest event that it was given."""
    tries: Mapped[int] = mapped_column(default=0)
    """Failed tries since then."""
    due_at: Mapped[Moment | None] = mapped_column(index=True)
    """When it may be taken up; in the future while it is in hand. None: done, or given up."""
    turn: Mapped[int] = mapped_column(default=0)
    """Raised by whoever takes it up; whoever writes names it."""
    error: Mapped[str | None]
    """Why the last try failed."""
    created_at: Mapped[Created]
