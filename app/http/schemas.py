"""What several parts of the API say over the wire in the same way."""

from pydantic import BaseModel, Field


class Segmentation(BaseModel):
    """A compressed COCO RLE."""

    size: list[int] = Field(description="height, width")
    counts: str
