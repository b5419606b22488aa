"""What goes over the wire about pseudo-masks: COCO annotations, and how good they are thought."""

from typing import Literal

from pydantic import BaseModel, Field


class Segmentation(BaseModel):
    """A compressed COCO RLE."""

    size: list[int] = Field(description="height, width")
    counts: str


class PseudoMaskOut(BaseModel):
    """All ids are your own."""

    id: int
    image_id: int
    category_id: int
    segmentation: Segmentation
    bbox: list[float] = Field(description="x, y, width, height in pixels")
    area: float
    quality: float = Field(description="0 to 1")
    source: Literal["refined", "selected"]
    selected: Segmentation | None = Field(None, description="with detail=true")
    refined: Segmentation | None = Field(None, description="with detail=true")
    proposal_source: str | None = Field(None, description="with detail=true")


class PseudoMaskPage(BaseModel):
    annotations: list[PseudoMaskOut]
    next: str | None
