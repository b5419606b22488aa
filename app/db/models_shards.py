"""The table of shards: parts of one stage of a job, each of which any worker may take."""

from enum import StrEnum

from sqlalchemy import JSON, ForeignKey, Index, String
from sqlalchemy.orm import Mapped, mapped_column

from app.db.columns import Base, BlobRef, Json, Moment, RowId, UserId, stored_as_value


class ShardState(StrEnum):
    """How far a shard is. The last two are final."""

    QUEUED = "queued"
    RUNNING = "running"
    DONE = "done"
    FAILED = "failed"


class Shard(Base):
    """Some images of one stage of a job, made by whoever takes them.

    Owner, attempt and setbacks are its lease, as those of a job are. It is taken while its job is
    queued or running, and nobody has asked for the job to be cancelled.
    """

    __tablename__ = "shard"
    __table_args__ = (
        Index(None, "job_id", "stage", "number", unique=True),
        Index(None, "state", "lease_until"),
    )

    pk: Mapped[RowId]
    job_id: Mapped[str] = mapped_column(ForeignKey("job.id", ondelete="CASCADE"))
    stage: Mapped[str] = mapped_column(String(32))
    number: Mapped[int]
    """0, 1, 2, … within the stage."""
    low: Mapped[UserId]
    """The least and the greatest id of its images, both of them in it."""
    high: Mapped[UserId]
    images: Mapped[int]
    plan: Mapped[Json]
    """What the stage needs to know of the whole data set."""
    state: Mapped[ShardState] = mapped_column(
        stored_as_value(ShardState), default=ShardState.QUEUED
    )

    owner: Mapped[str | None] = mapped_column(String(128))
    lease_until: Mapped[Moment | None]
    attempt: Mapped[int] = mapped_column(default=0)
    setbacks: Mapped[int] = mapped_column(default=0)
    """Attempts in a row that ended without getting any further."""

    step: Mapped[int] = mapped_column(default=0)
    """Images that are done."""
    seconds: Mapped[float] = mapped_column(default=0.0)
    """That its attempts took, all together."""
    failed_images: Mapped[Json] = mapped_column(JSON, default=list)
    """Images that failed: image_id, file_name, stage, error."""
    stuck_at: Mapped[UserId | None]
    """The image at which its process ended without a word, the last time that it did."""
    reason: Mapped[str | None] = mapped_column(String(64))
    error: Mapped[str | None]
    sha: Mapped[BlobRef | None]
    """Its result, while its job is not over."""
