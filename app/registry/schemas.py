"""What goes over the wire about trained models."""

from datetime import datetime
from typing import Annotated, Any

from fastapi import Path
from pydantic import BaseModel, ConfigDict, Field

ModelName = Annotated[str, Path(description="id of a model, or one of your aliases")]


class CategoryOut(BaseModel):
    """A class that a model knows, by the user's own id."""

    id: int
    name: str


class ModelOut(BaseModel):
    """A trained model. `metrics` is null where no truth was given."""

    model_config = ConfigDict(from_attributes=True)

    id: str
    job_id: str
    dataset_id: str | None = Field(
        validation_alias="trained_on", description="that it was trained on; null: it was imported"
    )
    name: str
    created_at: datetime
    categories: list[CategoryOut]
    sha256: str = Field(description="of the checkpoint file")
    size: int = Field(description="bytes of the checkpoint file")
    metrics: dict[str, Any] | None
    validation: dict[str, Any] | None = Field(
        description="AP, AP50 and the score threshold of the best F1 on images held out of training"
    )


class ModelDetail(ModelOut):
    """A trained model, with what its training says about it."""

    meta: dict[str, Any] = Field(description="settings, origin of the weights, seed, versions")


class AliasIn(BaseModel):
    """The model that an alias is to name."""

    model_config = ConfigDict(
        extra="forbid",
        json_schema_extra={"examples": [{"model": "01a1fc2766b68885ca3292807f96eddc"}]},
    )
    model: str = Field(description="the id of a model, or another alias of it", min_length=1)


class AliasOut(BaseModel):
    """A name for a model, which may be moved to another one."""

    model_config = ConfigDict(
        from_attributes=True,
        json_schema_extra={
            "examples": [
                {
                    "name": "production",
                    "model_id": "01a1fc2766b68885ca3292807f96eddc",
                    "revision": 1763722800000,
                    "updated_at": "2025-11-21T11:00:00Z",
                }
            ]
        },
    )

    name: str
    model_id: str
    revision: int = Field(description="its ETag; raised by one with each move")
    updated_at: datetime


class AliasPage(BaseModel):
    """Some aliases, and the cursor of the next page; null on the last."""

    aliases: list[AliasOut]
    next: str | None


class ModelPage(BaseModel):
    """Some models, and the cursor of the next page; null on the last."""

    models: list[ModelOut]
    next: str | None
