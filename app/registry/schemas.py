"""What goes over the wire about trained models."""

from datetime import datetime
from typing import Any

from pydantic import BaseModel, ConfigDict, Field


class CategoryOut(BaseModel):
    id: int
    name: str


class ModelOut(BaseModel):
    model_config = ConfigDict(from_attributes=True)

    id: str
    job_id: str
    name: str
    created_at: datetime
    categories: list[CategoryOut]
    sha256: str = Field(description="of the checkpoint file")
    size: int = Field(description="bytes of the checkpoint file")
    metrics: dict[str, Any] | None


class ModelDetail(ModelOut):
    meta: dict[str, Any] = Field(description="settings, origin of the weights, seed, versions")


class ModelPage(BaseModel):
    models: list[ModelOut]
    next: str | None
