"""What goes over the wire about exports."""

from datetime import datetime
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from app.db.models import JobState

Format = Literal["coco", "coco-polygons", "yolo-seg", "voc", "png", "label-studio", "cvat"]


class ExportRequest(BaseModel):
    """Which masks, in which format."""

    model_config = ConfigDict(
        extra="forbid",
        strict=True,
        json_schema_extra={"examples": [{"format": "coco", "min_quality": 0.5, "images": False}]},
    )
    format: Format
    min_quality: float = Field(0.0, ge=0, le=1, description="masks below it stay behind")
    images: bool = Field(False, description="put the images into the archive")
    simplify: float = Field(
        0.0,
        ge=0,
        le=100,
        description="pixels that a polygon may leave the mask's outline by; 0 keeps it exact. For "
        "coco-polygons and yolo-seg",
    )


class LeftOut(BaseModel):
    """A mask or an image that is not in the export, and why."""

    id: int | None = Field(description="of the annotation; null where it is the image")
    image_id: int
    why: str


class RoundTripped(BaseModel):
    """IoU of one mask, read back from the export, with the mask itself."""

    id: int
    image_id: int
    iou: float


class RoundTrip(BaseModel):
    """What was written, made pixels again as the format's readers do, against the masks."""

    mean_iou: float | None = Field(description="over all masks that were written")
    worst: list[RoundTripped] = Field(description="at most 20, the worst first, none that is exact")


class ExportReport(BaseModel):
    """What an export holds, what was left out, and what the format lost."""

    masks: int = Field(description="that were written")
    rejected: int = Field(description="that were left out because they were rejected in review")
    left_out: list[LeftOut] = Field(description="at most 1,000 of them")
    left_out_count: int
    round_trip: RoundTrip
    notes: list[str] = Field(description="what the format cannot hold")


class ExportOut(BaseModel):
    """`id` is that of a job of the kind `export` as well: its events, and how to cancel it."""

    id: str
    job_id: str = Field(description="whose masks they are")
    format: Format
    min_quality: float
    images: bool
    simplify: float
    state: JobState
    progress: float = Field(description="0 to 1")
    error: str | None = Field(description="what went wrong, for people")
    created_at: datetime
    filename: str | None = Field(description="of the file, once it is there")
    size: int | None = Field(description="bytes of the file, once it is there")
    report: ExportReport | None = Field(description="once the file is there")


class ExportPage(BaseModel):
    """Some exports, and the cursor of the next page; null on the last."""

    exports: list[ExportOut]
    next: str | None


def described(export: Any, job: Any) -> ExportOut:
    """Return an export as the API shows it, from a row of each of the tables Export and Job."""
    return ExportOut(
        id=export.id,
        job_id=export.job_id,
        **job.request,
        state=job.state,
        progress=job.progress,
        error=job.error,
        created_at=job.created_at,
        filename=export.filename,
        size=export.size,
        report=export.report,
    )
