"""What Label Studio sends to a machine learning backend, and what it is answered.

Its requests have more members than these, which are not looked at.
"""

import json
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, StrictInt, model_validator

from app.jobs.schemas import TrainRequest


def _parsed(value: Any) -> Any:
    """The page of Label Studio sends what was typed: an object, text of JSON, or nothing."""
    if isinstance(value, str):
        try:
            value = json.loads(value) if value.strip() else {}
        except RecursionError:
            raise ValueError("it is nested too deeply") from None
    return {} if value is None else value


class Parameters(BaseModel):
    """What a project's owner may set for the service, as "extra params" of the connection."""

    model_config = ConfigDict(extra="forbid")
    model: Annotated[str | None, Field(max_length=100, description="that predicts")] = None
    score: Annotated[
        float | None, Field(ge=0, le=1, strict=True, description="confidence threshold")
    ] = None
    training: Annotated[
        dict[str, Any], Field(description='of POST /jobs/train, without the data set: {"seed": 1}')
    ] = {}

    @model_validator(mode="after")
    def _can_train(self) -> "Parameters":
        self.train_request("0" * 32)
        return self

    def train_request(self, dataset_id: str) -> TrainRequest:
        """What is asked for when the project is trained."""
        return TrainRequest.model_validate({**self.training, "dataset_id": dataset_id})


def _text(most: int) -> Any:
    """A column's text: PostgreSQL takes no NUL."""
    return Field(max_length=most, pattern=r"^[^\x00]*$")


class SetupIn(BaseModel):
    """Sent when the backend is connected, and before predictions."""

    project: Annotated[str, _text(100)]
    label_config: Annotated[str, _text(1_000_000), Field(alias="schema")] = ""
    hostname: Annotated[str, _text(2000)] = ""
    access_token: Annotated[str, _text(2000)] | None = ""
    extra_params: Annotated[
        Parameters,
        BeforeValidator(_parsed, json_schema_input_type=Parameters | str | None),
    ] = Parameters()


class SetupOut(BaseModel):
    """What predicts."""

    model_config = ConfigDict(protected_namespaces=())
    model_version: str


class HealthOut(BaseModel):
    """Always this: the service answers."""

    model_config = ConfigDict(protected_namespaces=())
    status: str = "UP"
    model_class: str = "SAPNet"


class Task(BaseModel):
    """An image to annotate."""

    id: StrictInt | None = None
    data: dict[str, Any]


class Context(BaseModel):
    """What was drawn with a smart tool."""

    result: list[dict[str, Any]] = []


class PredictParameters(BaseModel):
    """Of a prediction."""

    context: Context | None = None


class PredictIn(BaseModel):
    """Tasks to predict on; with a context, the one task that is being annotated."""

    tasks: list[Task]
    project: Annotated[str, _text(100)] = ""
    label_config: Annotated[str, _text(1_000_000)] = ""
    params: PredictParameters | None = None


class PredictionOut(BaseModel):
    """Of one task."""

    model_config = ConfigDict(protected_namespaces=())
    result: list[dict[str, Any]]
    score: float | None = None
    model_version: str


class PredictOut(BaseModel):
    """A prediction for each task, in order; an empty list for one that has none."""

    model_config = ConfigDict(protected_namespaces=())
    results: list[PredictionOut | list[PredictionOut]]
    model_version: str


class Project(BaseModel):
    """A project, as events have it."""

    id: StrictInt
    title: str | None = None
    created_at: str | None = None


class WebhookIn(BaseModel):
    """An event of a project; START_TRAINING is the one that does something."""

    action: str = Field(max_length=100)
    project: Project | None = None


class TrainIn(BaseModel):
    """A training as releases before 1.5 ask for it: with the annotated tasks themselves."""

    annotations: list[dict[str, Any]]
    project: Annotated[str, _text(100)] = ""


class TrainingOut(BaseModel):
    """The job of the import that a training follows; null where nothing was to be done."""

    job: str | None


class JobStatusIn(BaseModel):
    """Which training is asked about."""

    job: str = Field(max_length=100)


class JobStatusOut(BaseModel):
    """queued, started, finished or failed."""

    job_status: str


class VersionsOut(BaseModel):
    """Ids of models, the newest first."""

    versions: list[str]
