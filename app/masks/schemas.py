"""What goes over the wire about pseudo-masks: COCO annotations, and how good they are thought."""

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field


class Segmentation(BaseModel):
    """A compressed COCO RLE."""

    size: list[int] = Field(description="height, width")
    counts: str


class PseudoMaskOut(BaseModel):
    """All ids are your own."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "id": 100,
                    "image_id": 1,
                    "category_id": 1,
                    "segmentation": {"size": [224, 224], "counts": "Q_;4j64M3O00O2N1N3N1NkaS1"},
                    "bbox": [52.0, 94.0, 9.0, 12.0],
                    "area": 64.0,
                    "quality": 0.81,
                    "source": "refined",
                }
            ]
        }
    )
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
