"""What goes over the wire about pseudo-masks: COCO annotations, and how good they are thought."""

from datetime import datetime
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from app.db.models import MaskStatus
from app.http.schemas import Segmentation

Side = Annotated[int, Field(ge=1, lt=2**31, strict=True)]


class SegmentationIn(BaseModel):
    """A compressed COCO RLE of the image's size."""

    size: Annotated[list[Side], Field(min_length=2, max_length=2)] = Field(
        description="height, width"
    )
    counts: str


class Candidate(BaseModel):
    """Another mask of the bag that this one was picked from."""

    index: int
    segmentation: Segmentation
    probability: float = Field(description="posterior probability that it is the object")


EXAMPLE: dict[str, Any] = {
    "mask_id": "01a1fc2766b68885ca3292807f96eddc.100",
    "id": 100,
    "image_id": 1,
    "category_id": 1,
    "segmentation": {"size": [224, 224], "counts": "Q_;4j64M3O00O2N1N3N1NkaS1"},
    "bbox": [52.0, 94.0, 9.0, 12.0],
    "area": 64.0,
    "quality": 0.81,
    "source": "refined",
    "status": "open",
    "revision": 0,
}


class PseudoMaskOut(BaseModel):
    """A mask as it stands: the delivered one, or the one that was put in its place.

    All ids but `mask_id` are your own.
    """

    model_config = ConfigDict(json_schema_extra={"examples": [EXAMPLE]})
    mask_id: str = Field(description="names this mask of this job; opaque")
    id: int = Field(
        description="of the annotation; of a predicted mask, that of the one that it may become"
    )
    image_id: int
    category_id: int
    segmentation: Segmentation
    bbox: list[float] = Field(description="x, y, width, height in pixels")
    area: float
    quality: float = Field(
        description="estimated probability that the delivered mask has an IoU of at least 0.5 with "
        "its object"
    )
    source: Literal["refined", "selected", "predicted", "confirmed"] = Field(
        description="predicted: a model found it in an image without annotations; confirmed: you "
        "have said what it is"
    )
    status: MaskStatus
    revision: int = Field(description="of the decision: raised by each; 0 before the first")
    delivered_category_id: int | None = Field(
        None, description="the class that it was delivered with, where it has another one now"
    )
    rule_id: str | None = Field(
        None, description="the rule that accepted it, where nobody has decided about it since"
    )
    selected: Segmentation | None = Field(None, description="with detail=true")
    refined: Segmentation | None = Field(None, description="with detail=true")
    proposal_source: str | None = Field(None, description="with detail=true")
    doubts: dict[str, float | None] | None = Field(
        None, description="with detail=true: what the quality is made of; null where not known"
    )
    candidates: list[Candidate] | None = Field(None, description="with detail=true")
    score: float | None = Field(None, description="with detail=true: of a predicted mask")
    delivered: Segmentation | None = Field(
        None, description="with detail=true: what a corrected one was before"
    )


class PseudoMaskPage(BaseModel):
    """Some masks, and the cursor of the next page; null on the last."""

    annotations: list[PseudoMaskOut]
    next: str | None


class ReviewMask(PseudoMaskOut):
    """With all the detail there is."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [EXAMPLE | {"point": [56.5, 100.5], "refined": None, "candidates": []}]
        }
    )
    point: list[float] = Field(
        description="x, y in pixels; of a predicted mask, a point inside of the delivered one"
    )


class Counts(BaseModel):
    """Of all masks of the job."""

    open: int
    accepted: int
    corrected: int
    rejected: int


class ReviewPage(BaseModel):
    """Some masks for review, how many there are by status, and the cursor of the next page."""

    masks: list[ReviewMask]
    counts: Counts
    next: str | None


INT64 = 2**63
CategoryId = Annotated[int | None, Field(ge=-INT64, lt=INT64, strict=True)]
_CLASS = "the object's class, where it is another than the mask has"


class PlainDecision(BaseModel):
    """A decision that brings no mask.

    reject: there is no such object. reopen: as if nothing had been decided.
    """

    model_config = ConfigDict(extra="forbid")
    decision: Literal["reject", "reopen"]


class Acceptance(BaseModel):
    """The mask as it stands is right."""

    model_config = ConfigDict(extra="forbid")
    decision: Literal["accept"]
    category_id: CategoryId = Field(None, description=_CLASS)


class Choice(BaseModel):
    """One of the candidates is the mask."""

    model_config = ConfigDict(extra="forbid")
    decision: Literal["choose"]
    candidate: int = Field(ge=0, strict=True, description="its index")
    category_id: CategoryId = Field(None, description=_CLASS)


class Correction(BaseModel):
    """This is the mask."""

    model_config = ConfigDict(extra="forbid")
    decision: Literal["correct"]
    segmentation: SegmentationIn
    category_id: CategoryId = Field(None, description=_CLASS)


Decision = PlainDecision | Acceptance | Choice | Correction
DecisionIn = Annotated[Decision, Field(discriminator="decision")]


class AcceptRequest(BaseModel):
    """A rule: open masks of at least this quality are accepted as they are."""

    model_config = ConfigDict(
        extra="forbid", json_schema_extra={"examples": [{"min_quality": 0.9}]}
    )
    min_quality: float = Field(ge=0, le=1)
    category_id: CategoryId = Field(None, description="of one class alone")
    image_id: CategoryId = Field(None, description="of one image alone")


class RuleOut(BaseModel):
    """A rule that has accepted masks, and who made it."""

    model_config = ConfigDict(from_attributes=True)
    id: str
    min_quality: float
    category_id: int | None
    image_id: int | None
    made_by: str | None = Field(description="owner of the key; null without keys")
    made_at: datetime
    accepted: int = Field(description="how many masks it has accepted")


class RulesOut(BaseModel):
    """The rules of a review, the newest first."""

    rules: list[RuleOut]


class ClickIn(BaseModel):
    """A click on an image, on the object or beside it."""

    x: float = Field(ge=0, description="pixels", allow_inf_nan=False)
    y: float = Field(ge=0, description="pixels", allow_inf_nan=False)
    positive: bool = Field(True, description="this is of the object; false: it is not", strict=True)


class SuggestIn(BaseModel):
    """Clicks, in their order, and the mask that they are to change."""

    model_config = ConfigDict(
        extra="forbid",
        json_schema_extra={
            "examples": [{"points": [{"x": 60.5, "y": 97.5, "positive": False}]}],
        },
    )
    points: list[ClickIn] = Field(min_length=1, max_length=200)
    segmentation: SegmentationIn | None = Field(
        None, description="default: the mask as it stands; an empty one starts anew"
    )


class Suggestion(BaseModel):
    """A suggested mask, with its bounding box, and its area in pixels."""

    segmentation: Segmentation
    bbox: list[float] = Field(description="x, y, width, height in pixels")
    area: float


_VERSION_NAME = Field(
    None,
    min_length=1,
    max_length=200,
    pattern=r"^[^\x00-\x1f\x7f]*$",
    description="default: the data set's, with the number of the version",
)


class CorrectionsIn(BaseModel):
    """The new version of the data set."""

    model_config = ConfigDict(extra="forbid")
    name: str | None = _VERSION_NAME
    also: list[str] = Field(
        [],
        max_length=20,
        description="ids of other jobs on the same data set, whose reviews count too: at most one "
        "training among all of them, and any number that labelled images",
    )
    accepted_as: Literal["masks", "points"] = Field(
        "masks",
        description="points: of accepted masks the points alone, so that training chooses their "
        "masks anew; corrected ones are confirmed in any case",
    )


Id64 = Annotated[int, Field(ge=-INT64, lt=INT64, strict=True)]
ClassName = Annotated[str, Field(min_length=1, max_length=200, pattern=r"^[^\x00-\x1f\x7f]*$")]


class RenamedClass(BaseModel):
    """A class with another name."""

    model_config = ConfigDict(extra="forbid")
    id: Id64
    name: ClassName


class MergedClass(BaseModel):
    """A class whose annotations are of another one from now on."""

    model_config = ConfigDict(extra="forbid")
    id: Id64
    into: Id64 = Field(description="id of the class that stays")


class NewClass(BaseModel):
    """A class without annotations so far."""

    model_config = ConfigDict(extra="forbid")
    name: ClassName
    id: Id64 | None = Field(None, description="default: the next that is free")


class VersionIn(BaseModel):
    """How a version of a data set differs from it; at least one thing must be asked for."""

    model_config = ConfigDict(
        extra="forbid",
        json_schema_extra={
            "examples": [
                {"remove_images": [12], "rename_classes": [{"id": 7, "name": "nucleus"}]},
                {"add_datasets": ["01a1fc2766b68885ca3292807f96eddd"]},
            ]
        },
    )
    name: str | None = _VERSION_NAME
    remove_images: list[Id64] = Field([], description="ids of images; their annotations go too")
    add_datasets: list[str] = Field(
        [],
        max_length=100,
        description="ids of data sets whose images are taken in, with their annotations; classes "
        "are told by their names, and ids that are taken are given anew",
    )
    rename_classes: list[RenamedClass] = []
    merge_classes: list[MergedClass] = []
    remove_classes: list[Id64] = Field([], description="ids of classes; their annotations go too")
    add_classes: list[NewClass] = []
    reviews: list[str] = Field(
        [],
        max_length=21,
        description="ids of jobs on the data set whose reviews count, as in "
        "POST /jobs/{id}/corrections",
    )
    accepted_as: Literal["masks", "points"] = Field(
        "masks", description="what accepted masks become: see POST /jobs/{id}/corrections"
    )


class Pair(BaseModel):
    """What both jobs delivered for one annotation."""

    id: int
    image_id: int
    iou: float | None = Field(description="null where the image has another size now")
    quality_before: float
    quality_after: float


class Figures(BaseModel):
    """Metrics of two jobs."""

    before: dict[str, Any]
    after: dict[str, Any]


class Quality(BaseModel):
    """Of all masks of a job."""

    masks: int
    mean: float | None


class Qualities(BaseModel):
    """Quality of the masks of two jobs."""

    before: Quality
    after: Quality


class Comparison(BaseModel):
    """Two jobs, and the masks of the annotations that both have."""

    metrics: Figures
    quality: Qualities
    masks: list[Pair] = Field(description="of the annotations that both have")
    next: str | None
