"""What the data set endpoints answer."""

from datetime import datetime
from typing import Any

from pydantic import BaseModel

from app.models import DatasetStatus


class CategoryOut(BaseModel):
    id: int
    name: str
    annotations: int


class Ignored(BaseModel):
    """Files that the annotations do not name; they are not kept."""

    count: int = 0
    examples: list[str] = []


class Warned(BaseModel):
    """Odd, but legal."""

    part: str
    pointer: str
    detail: str
    hint: str


class Report(BaseModel):
    warnings: list[Warned] = []
    images_without_annotations: int = 0
    crowd: int = 0
    """`iscrowd` annotations: left out of training."""
    ignored_files: Ignored = Ignored()
    truth: str | None = None
    """Where ground truth for metrics comes from: "truth", "annotations" (their segmentations)."""


class DatasetSummary(BaseModel):
    id: str
    name: str
    status: DatasetStatus
    parent_id: str | None
    created_at: datetime
    images: int
    annotations: int


class DatasetOut(DatasetSummary):
    categories: list[CategoryOut]
    report: Report


class DatasetPage(BaseModel):
    datasets: list[DatasetSummary]
    next: str | None


class ImageOut(BaseModel):
    id: int
    file_name: str
    width: int
    height: int
    annotations: int
    sha256: str


class ImagePage(BaseModel):
    images: list[ImageOut]
    next: str | None


UPLOAD_FORM: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "content": {
            "multipart/form-data": {
                "schema": {
                    "type": "object",
                    "required": ["annotations", "images"],
                    "properties": {
                        "name": {"type": "string", "maxLength": 200},
                        "annotations": {
                            "type": "string",
                            "format": "binary",
                            "description": "COCO-style JSON with one point an annotation",
                        },
                        "images": {
                            "type": "array",
                            "items": {"type": "string", "format": "binary"},
                            "description": "zip, tar or tar.gz archives, or the images themselves",
                        },
                        "truth": {
                            "type": "string",
                            "format": "binary",
                            "description": "COCO instances, for metrics alone",
                        },
                        "parent": {
                            "type": "string",
                            "description": "id of the data set that this one corrects",
                        },
                    },
                }
            }
        },
    }
}
