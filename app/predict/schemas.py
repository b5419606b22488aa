"""What goes over the wire about predictions: COCO results."""

from pydantic import BaseModel, ConfigDict, Field

from app.masks.schemas import Segmentation


class Result(BaseModel):
    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "image_id": 1,
                    "category_id": 1,
                    "segmentation": {"size": [224, 224], "counts": "Q_;4j64M3O00O2N1N3N1NkaS1"},
                    "bbox": [52.0, 94.0, 9.0, 12.0],
                    "score": 0.83,
                }
            ]
        }
    )
    image_id: int | None = Field(None, description="your own, where the image is of a data set")
    category_id: int = Field(description="your own")
    segmentation: Segmentation
    bbox: list[float] = Field(description="x, y, width, height in pixels")
    score: float = Field(description="0 to 1")
