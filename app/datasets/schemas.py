"""What the data set endpoints answer."""

from datetime import datetime
from typing import Any

from pydantic import BaseModel, Field

from app.db.models import DatasetStatus, JobState
from app.http.schemas import Segmentation


class CategoryOut(BaseModel):
    """A class of a data set, by the user's own id, with its number of objects."""

    id: int
    name: str
    annotations: int


class Ignored(BaseModel):
    """Files that the annotations do not name; they are not kept."""

    count: int = 0
    examples: list[str] = []


class Warned(BaseModel):
    """Something wrong, or odd but legal."""

    part: str
    pointer: str
    detail: str
    hint: str


class ImportProgress(BaseModel):
    """Of a data set that is `importing`. The job has the events, and may be cancelled."""

    job_id: str
    state: JobState
    stage: str | None = Field(description="files, annotations, images, truth or rows")
    step: int | None
    of: int | None
    progress: float = Field(description="of the whole import, 0 to 1")
    error: str | None = Field(description="what the last attempt ended with; another follows")


class Rule(BaseModel):
    """A rule that accepted masks which nobody looked at."""

    job_id: str
    min_quality: float
    category_id: int | None = None
    image_id: int | None = None
    made_by: str | None = None
    made_at: datetime
    accepted: int


class Corrections(BaseModel):
    """What was decided about the masks of the job, or jobs, that this version was made from."""

    job_id: str
    open: int
    accepted: int
    corrected: int
    rejected: int


class ReviewReport(BaseModel):
    """What else there is to know about the reviews that this version was made from."""

    jobs: list[str] = Field(description="whose masks were reviewed")
    reclassified: int = Field(description="masks with another class than they were delivered with")
    added: int = Field(description="annotations that a model has predicted")
    rules: list[Rule] = Field(description="by which masks were accepted that nobody looked at")
    images_with_open_masks: int = Field(
        description="images of which predicted masks were taken in while others are open: objects "
        "without annotation count as background in training"
    )


class Report(BaseModel):
    """What the import of a data set met with, and how far it is."""

    progress: ImportProgress | None = None
    errors: list[Warned] = Field(
        default=[], description="everything that is wrong with a data set that is `invalid`"
    )
    warnings: list[Warned] = []
    images_without_annotations: int = 0
    crowd: int = 0
    """`iscrowd` annotations: left out of training."""
    points: int | None = Field(
        default=None, description="annotations with a point; null where it was not counted"
    )
    boxes: int | None = Field(default=None, description="annotations with a box")
    masks: int | None = Field(default=None, description="annotations with a confirmed mask")
    subsets: dict[str, int] = Field(
        default={}, description="how many images are of train, val and test"
    )
    ignored_files: Ignored = Ignored()
    truth: str | None = None
    """Where ground truth for metrics comes from: "truth", "annotations" (their segmentations)."""
    corrections: Corrections | None = None
    review: ReviewReport | None = None


class DatasetSummary(BaseModel):
    """A data set as lists have it: `images` and `annotations` are how many."""

    id: str
    name: str
    status: DatasetStatus
    parent_id: str | None
    created_at: datetime
    images: int
    annotations: int


class DatasetOut(DatasetSummary):
    """A data set with its classes and the report of its import."""

    categories: list[CategoryOut]
    report: Report


class DatasetPage(BaseModel):
    """Some data sets, and the cursor of the next page; null on the last."""

    datasets: list[DatasetSummary]
    next: str | None


class ImageOut(BaseModel):
    """An image by the user's own id: its size in pixels, and its number of objects."""

    id: int
    file_name: str
    width: int
    height: int
    annotations: int
    sha256: str
    subset: str | None = Field(default=None, description="train, val or test, as you split them")
    group: str | None = Field(
        default=None, description="images of one group are held out of training together"
    )


class ImagePage(BaseModel):
    """Some images, and the cursor of the next page; null on the last."""

    images: list[ImageOut]
    next: str | None


class AnnotationOut(BaseModel):
    """One object; all ids are your own."""

    id: int
    image_id: int
    category_id: int
    point: tuple[float, float] = Field(description="x, y in pixels")
    mask: Segmentation | None = Field(description="where you have said what its mask is")
    bbox: list[float] | None = Field(
        default=None, description="x, y, width, height of its box in pixels, where there is one"
    )
    pointed: bool = Field(
        default=True, description="false: only the box is given, and `point` is its middle"
    )


class AnnotationPage(BaseModel):
    """Some annotations, and the cursor of the next page; null on the last."""

    annotations: list[AnnotationOut]
    next: str | None


FORM_FILES = ("annotations", "images", "truth")
UPLOADS = {f"{part}_upload": part for part in FORM_FILES}
FORM_TEXTS = ("name", "parent", "images_url", "boxes", *UPLOADS)
UPLOAD_FORM: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "content": {
            "multipart/form-data": {
                "schema": {
                    "type": "object",
                    "properties": {
                        "name": {"type": "string", "maxLength": 200},
                        "annotations": {
                            "type": "string",
                            "format": "binary",
                            "description": "COCO-style JSON with a point or a box (bbox) an "
                            "annotation, or both; or such from CVAT (XML for images 1.1), "
                            "Label Studio (JSON), Labelme (its JSON files in a zip) or "
                            "GeoJSON; or an archive of a data set as COCO, YOLO, PASCAL VOC or "
                            "Datumaro have it, with its subsets. Left out, it is looked for in "
                            "the archive of `images`",
                        },
                        "images": {
                            "type": "array",
                            "items": {"type": "string", "format": "binary"},
                            "description": "zip, tar or tar.gz archives, or the images "
                            "themselves; left out, they are those in the archive of `annotations`",
                        },
                        "truth": {
                            "type": "string",
                            "format": "binary",
                            "description": "COCO instances, for metrics alone",
                        },
                        "boxes": {
                            "type": "string",
                            "enum": ["use", "ignore"],
                            "default": "use",
                            "description": "ignore: go by the points alone; an annotation that "
                            "has no more than a box is left out",
                        },
                        "annotations_upload": {
                            "type": "string",
                            "description": "id of a finished upload, in place of `annotations`",
                        },
                        "images_upload": {
                            "type": "array",
                            "items": {"type": "string"},
                            "description": "ids of finished uploads, in place of `images`",
                        },
                        "truth_upload": {
                            "type": "string",
                            "description": "id of a finished upload, in place of `truth`",
                        },
                        "images_url": {
                            "type": "string",
                            "description": "where the images are, in place of `images`: "
                            "https://host/folder/ or s3://bucket/folder/, below which their "
                            "file names are; or `document`, for the coco_url or url of each",
                        },
                        "parent": {
                            "type": "string",
                            "description": "id of the data set that this one corrects; where no "
                            "images are sent, its own are used, by file name",
                        },
                    },
                }
            }
        },
    }
}
