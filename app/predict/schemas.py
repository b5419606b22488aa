"""What goes over the wire about predictions: COCO results."""

from pydantic import BaseModel, Field

from app.masks.schemas import Segmentation


class Result(BaseModel):
    image_id: int | None = Field(None, description="your own, where the image is of a data set")
    category_id: int = Field(description="your own")
    segmentation: Segmentation
    bbox: list[float] = Field(description="x, y, width, height in pixels")
    score: float = Field(description="0 to 1")
