"""What goes over the wire about jobs."""

from datetime import datetime
from typing import Annotated, Any, Literal, get_args

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    WithJsonSchema,
)

from app.db.models import JobKind, JobState, ShardState
from app.jobs.documents import DocumentText, ObjectText
from app.webhooks.schemas import WebhookIn
from sapnet.config import AUTO
from sapnet.types import Method


def _number(value: Any) -> bool | int | float:
    if not isinstance(value, bool | int | float):
        raise ValueError("should be a number, or true or false")
    return value


Setting = Annotated[Any, AfterValidator(_number), WithJsonSchema({"type": ["number", "boolean"]})]
"""Numbers alone: a text could name a file of the server."""


class Hierarchy(BaseModel):
    """Regions of a hierarchical segmentation round each point. Needs no weights."""

    model_config = ConfigDict(extra="allow")
    __pydantic_extra__: dict[str, Setting]
    kind: Literal["hierarchy"]


class Prompter(BaseModel):
    """The learned prompter that comes with the package."""

    model_config = ConfigDict(extra="forbid")
    kind: Literal["prompter"]


class HierarchyAndPrompter(BaseModel):
    """Both in one bag, ranked by one estimate of the IoU. Settings are the hierarchy's."""

    model_config = ConfigDict(extra="allow")
    __pydantic_extra__: dict[str, Setting]
    kind: Literal["hierarchy+prompter"]


class _Promptable(BaseModel):
    model_config = ConfigDict(extra="allow")
    __pydantic_extra__: dict[str, Setting]
    checkpoint: str | None = Field(
        None, max_length=200, description="one of the names that the service is set to"
    )


_MODEL_TYPE = Field(
    None, description="refused where the checkpoint is of another type; its own by default"
)


class Sam(_Promptable):
    """Segment Anything, or EfficientViT-SAM, prompted with each point and its neighbours."""

    kind: Literal["sam"]
    model_type: (
        Literal[
            "vit_b",
            "vit_l",
            "vit_h",
            "efficientvit_l0",
            "efficientvit_l1",
            "efficientvit_l2",
            "efficientvit_xl0",
            "efficientvit_xl1",
        ]
        | None
    ) = _MODEL_TYPE


class Sam2(_Promptable):
    """Segment Anything 2, prompted as Sam is. The service needs its extra `sam2`."""

    kind: Literal["sam2"]
    model_type: Literal["tiny", "small", "base-plus", "large"] | None = _MODEL_TYPE


class Given(BaseModel):
    """Your own masks.

    {"<annotation id>": [{"segmentation", "score"}]}, or a list of {"annotation_id",
    "segmentation", "score"}.
    """

    model_config = ConfigDict(extra="forbid")
    kind: Literal["given"]
    document: DocumentText


def _kind_alone(value: Any) -> Any:
    return {"kind": value} if isinstance(value, str) else value


Proposals = Annotated[
    Annotated[
        Hierarchy | Prompter | HierarchyAndPrompter | Sam | Sam2 | Given,
        Field(discriminator="kind"),
    ],
    BeforeValidator(_kind_alone),
]


def _name_presets(schema: dict[str, Any]) -> None:
    from sapnet.config.presets import PRESETS  # loads every setting's class

    schema["enum"] = [AUTO, *PRESETS]


class TrainRequest(BaseModel):
    """What to train on, and how."""

    model_config = ConfigDict(
        extra="forbid",
        json_schema_extra={
            "examples": [
                {
                    "dataset_id": "01a1fc2766b68885ca3292807f96eddc",
                    "method": "sapnet++",
                    "preset": "auto",
                    "seed": 0,
                    "overrides": {"train.epochs": 6},
                    "proposals": "hierarchy",
                }
            ]
        },
    )
    dataset_id: str
    method: str = Field("sapnet++", json_schema_extra={"enum": [*get_args(Method)]})
    preset: str = Field(
        AUTO,
        json_schema_extra=_name_presets,
        description="auto: by the machine, the images and the weights that there are",
    )
    overrides: dict[str, Any] = Field(
        {}, max_length=200, description='settings by name: {"train.epochs": 6}'
    )
    seed: int = Field(0, ge=0, lt=2**63)
    proposals: Proposals | None = Field(
        None, description='"hierarchy", "hierarchy+prompter", "sam", "sam2", or with settings'
    )
    truth: ObjectText | None = Field(
        None, description="COCO instances, for metrics alone; default: the data set's own"
    )
    from_model: str | None = Field(
        None, description="id or alias of a model whose weights the training begins with"
    )
    webhook: WebhookIn | None = Field(None, description="where the job's events are posted")


class JobCreated(BaseModel):
    """The id of a job, and its state."""

    model_config = ConfigDict(from_attributes=True)
    id: str
    state: JobState


class EstimateOut(BaseModel):
    """How long a training will take, in seconds."""

    model_config = ConfigDict(from_attributes=True)
    seconds: dict[str, float] = Field(description="by stage; `start` is before the first")
    total: float
    low: float = Field(description="bounds of the total")
    high: float
    basis: str = Field(description="what it comes from, for people")


class TrainPlan(BaseModel):
    """The answer to a dry run: what the training would do, by what the API's machine knows."""

    preset: str
    reasons: list[str] = Field(description="why this preset, where the request leaves it open")
    estimate: EstimateOut


class ShardCounts(BaseModel):
    """How many shards of a job are in each state."""

    queued: int
    running: int
    done: int
    failed: int


class ShardOut(BaseModel):
    """Some images of one stage of a job, made by whichever worker took them."""

    model_config = ConfigDict(from_attributes=True)
    number: int = Field(description="0, 1, 2, … within the stage")
    stage: str
    state: ShardState
    images: int
    step: int = Field(description="images that are done")
    seconds: float = Field(description="of work so far, all attempts together")
    attempt: int
    worker: str | None = Field(
        validation_alias="owner", description="who works on it, or has made it"
    )
    failed_images: list[dict[str, Any]] = Field(description="images that failed, with their errors")
    reason: str | None = Field(description="why it is in its state, for programs")
    error: str | None = Field(description="what went wrong, for people")


class ShardPage(BaseModel):
    """Some shards, and the cursor of the next page; null on the last."""

    shards: list[ShardOut]
    next: str | None


class JobOut(JobCreated):
    """How far a job is, and what came of it. Fields that its kind has no use for are null."""

    kind: JobKind
    dataset_id: str | None = Field(description="null: it works on an imported model alone")
    method: str
    preset: str = Field(description="auto until the training has chosen one")
    preset_reasons: list[str] | None = Field(None, description="why it has chosen its preset")
    seed: int
    stage: str | None
    progress: float = Field(description="of the whole job, 0 to 1")
    step: int | None
    of: int | None
    eta_seconds: float | None = Field(description="to the end of the stage")
    losses: dict[str, float | None] | None
    reason: str | None = Field(description="why it is in its state, for programs")
    error: str | None = Field(description="what went wrong, for people")
    warnings: list[str]
    proposal_generator: str | None
    weights_origin: str | None
    from_model: str | None = Field(None, description="the model that its training went on from")
    attempt: int
    model_id: str | None
    tracking: dict[str, str | None] | None = Field(
        None, description="addresses of its runs by tracker of experiments; null for one without"
    )
    metrics: dict[str, Any] | None
    shards: ShardCounts | None = Field(
        None, description="of a job that many workers share; null of others, and in lists"
    )
    created_at: datetime
    started_at: datetime | None
    finished_at: datetime | None


class JobPage(BaseModel):
    """Some jobs, and the cursor of the next page; null on the last."""

    jobs: list[JobOut]
    next: str | None


class StageOut(BaseModel):
    """One step of a kind of job."""

    model_config = ConfigDict(from_attributes=True)
    name: str = Field(description="as `stage` of a job and of its events has it")
    label: str = Field(description="for people")
    optional: bool = Field(description="whether some jobs of this kind leave it out")


class KindOut(BaseModel):
    """A kind of job, with its stages."""

    kind: JobKind
    label: str = Field(description="for people")
    queue: str
    stages: list[StageOut] = Field(description="in order")
    result: str = Field(description="where the result is: a path, with fields of the job in braces")


class KindsOut(BaseModel):
    """Every kind of job."""

    kinds: list[KindOut]


class MetricsOut(BaseModel):
    """Figures are there where truth was given; the rest always."""

    pseudo_masks: dict[str, Any] | None
    model: dict[str, Any] | None
    proposals: dict[str, Any] | None
    validation: dict[str, Any] | None = Field(None, description="on images held out of training")
    test: dict[str, Any] | None = Field(None, description="on images of the subset test")
    seconds: dict[str, float] = Field(description="a stage")
    peak_memory_mb: float | None
    proposal_generator: str | None
    weights_origin: str | None
