"""What GET /datasets/{id}/statistics answers."""

from typing import Literal

from pydantic import BaseModel, Field

FindingKind = Literal[
    "images_without_points",
    "rare_classes",
    "near_duplicates",
    "duplicates_across_subsets",
    "duplicate_points",
    "close_points",
    "border_points",
    "outside_proposals",
    "background_points",
    "low_quality_masks",
]


class Spread(BaseModel):
    """How numbers are spread."""

    count: int
    min: float
    lower_quartile: float
    median: float
    upper_quartile: float
    max: float
    mean: float


class ClassStatistics(BaseModel):
    """A class: its objects, and in how many images they are."""

    id: int
    name: str
    annotations: int
    share: float = Field(description="of all annotations, 0 to 1")
    images: int


class ImageSize(BaseModel):
    """How many images have a size, in pixels."""

    width: int
    height: int
    images: int


class ObjectsInImages(BaseModel):
    """How many images have so many objects."""

    objects: int = Field(description="the least of this group")
    most: int = Field(description="the greatest of this group")
    images: int


class Example(BaseModel):
    """A place to look at; all ids are your own."""

    image_id: int
    file_name: str
    annotation_id: int | None = None
    point: list[float] | None = Field(default=None, description="x, y in pixels")
    other_image_ids: list[int] = Field(default=[], description="images that look like this one")
    other_annotation_id: int | None = Field(
        default=None, description="of the point that is too near"
    )
    value: float | None = Field(
        default=None,
        description="distance in pixels, or quality of the mask, by the kind of the finding",
    )


class Finding(BaseModel):
    """Something that is worth a look."""

    kind: FindingKind
    count: int = Field(description="how many there are; `examples` may be fewer")
    detail: str
    examples: list[Example] = []


class DatasetStatistics(BaseModel):
    """What is in a data set, and what in it looks wrong."""

    dataset_id: str
    job_id: str | None = Field(description="the training whose masks were looked at")
    images: int
    images_without_annotations: int
    annotations: int
    described: int = Field(
        description="images that were compared with each other. While it is less than `images` "
        "less `unreadable`, a worker is still looking at the others: ask again"
    )
    unreadable: int = Field(description="images that cannot be compared")
    complete: bool = Field(description="whether all images were compared")
    classes: list[ClassStatistics] = Field(description="by falling number of annotations")
    objects_per_image: Spread | None
    images_by_objects: list[ObjectsInImages]
    image_sizes: list[ImageSize] = Field(description="the 20 most frequent")
    different_sizes: int
    mask_areas: Spread | None = Field(
        description="of confirmed masks, in pixels; of the first 100,000"
    )
    findings: list[Finding]
