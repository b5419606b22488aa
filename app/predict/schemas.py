"""What goes over the wire about predictions: COCO results, of one image or of many."""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from app.http.schemas import Segmentation
from app.webhooks.schemas import WebhookIn
from sapnet.errors import InvalidConfig

SMALLEST_TILE = 64  # sapnet.data.tiles, which loads numpy, has the same


def _tiles(value: Any) -> Any:
    """One error for the field, where a union would have one for each of its kinds."""
    from sapnet.data.tiles import parse_tiles

    try:
        return parse_tiles(str(value))
    except InvalidConfig as error:
        raise ValueError(str(error)) from error


TilesIn = Annotated[
    Literal["auto", "off"] | Annotated[int, Field(ge=SMALLEST_TILE)], BeforeValidator(_tiles)
]
TILES = (
    "whether an image is cut into overlapping tiles whose instances are joined: auto cuts images "
    "that are much larger than those of the training, off none; or a tile's side in pixels"
)
MIRROR = "predict the mirror image too, and join both: objects in both count more; twice the time"

RESULT: dict[str, Any] = {
    "image_id": 1,
    "category_id": 1,
    "segmentation": {"size": [224, 224], "counts": "Q_;4j64M3O00O2N1N3N1NkaS1"},
    "bbox": [52.0, 94.0, 9.0, 12.0],
    "score": 0.83,
}
MODEL = "01a1fc2766b68885ca3292807f96eddc"
INT64 = 2**63


class Result(BaseModel):
    """One predicted instance, as COCO results have it."""

    model_config = ConfigDict(json_schema_extra={"examples": [RESULT]})
    image_id: int | None = Field(None, description="your own, where the image is of a data set")
    category_id: int = Field(description="your own")
    segmentation: Segmentation
    bbox: list[float] = Field(description="x, y, width, height in pixels")
    score: float = Field(description="0 to 1")


class ImageIn(BaseModel):
    """One of a list: by its id in a data set, by its address, or itself in base64."""

    model_config = ConfigDict(
        extra="forbid",
        json_schema_extra={
            "minProperties": 1,
            "maxProperties": 1,
            "examples": [{"id": 12}, {"url": "https://example.org/cells.jpg"}],
        },
    )
    id: int | None = Field(None, ge=-INT64, lt=INT64, description="your own, in the data set")
    url: str | None = Field(None, description="https://…, or s3://bucket/key")
    image: str | None = Field(None, description="an image file in base64")

    @model_validator(mode="after")
    def _is_one(self) -> "ImageIn":
        if len([v for v in (self.id, self.url, self.image) if v is not None]) != 1:
            raise ValueError("should have just one of id, url and image")
        return self


def _short(value: Any) -> Any:
    if isinstance(value, bool):
        return value
    if isinstance(value, int):
        return {"id": value}
    return {"url": value} if isinstance(value, str) else value


AnyImageIn = Annotated[ImageIn, BeforeValidator(_short, json_schema_input_type=ImageIn | str | int)]


class PredictRequest(BaseModel):
    """One image (`url` or `image`), a list (`images`), or a whole data set (`dataset` alone)."""

    model_config = ConfigDict(
        extra="forbid",
        json_schema_extra={
            "examples": [
                {"model": MODEL, "url": "https://example.org/cells.jpg"},
                {"model": "production", "images": [12, "https://example.org/cells.jpg"]},
                {"model": "production", "dataset": "01a1fc2766b68885ca3292807f96eddd"},
            ]
        },
    )
    model: str = Field(min_length=1, description="its id, or an alias")
    url: str | None = Field(None, description="https://…, or s3://bucket/key")
    image: str | None = Field(None, description="an image file in base64")
    images: list[AnyImageIn] | None = Field(
        None, min_length=1, description="a number alone is an id, a text alone a url"
    )
    dataset: str | None = Field(
        None, description="whose ids are meant, by default the model's own; alone: all its images"
    )
    score: float | None = Field(None, ge=0, le=1, description="confidence threshold of the results")
    tiles: TilesIn = Field("auto", description=TILES)
    mirror: bool = Field(False, description=MIRROR)

    @model_validator(mode="after")
    def _is_one(self) -> "PredictRequest":
        given = [v for v in (self.url, self.image, self.images) if v is not None]
        if len(given) > 1 or not (given or self.dataset is not None):
            raise ValueError("should have just one of url, image and images, or a dataset")
        return self


class LabelRequest(BaseModel):
    """What is to be labelled, and by which model."""

    model_config = ConfigDict(
        extra="forbid",
        json_schema_extra={
            "examples": [{"model": MODEL}, {"model": "production", "images": [12, 14]}]
        },
    )
    model: str = Field(min_length=1, description="its id, or an alias")
    dataset_id: str | None = Field(None, description="default: the model's own")
    images: list[Annotated[int, Field(ge=-INT64, lt=INT64, strict=True)]] | None = Field(
        None,
        min_length=1,
        description="ids of images in the data set; default: all that have no annotations",
    )
    score: float | None = Field(
        None,
        ge=0,
        le=1,
        description="confidence threshold of the masks; default: the model's own, else 0.1",
    )
    webhook: WebhookIn | None = Field(None, description="where the job's events are posted")


class Prediction(BaseModel):
    """What a model predicts in one image of many, or why it could not be read."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "number": 0,
                    "image_id": 1,
                    "url": None,
                    "size": [224, 224],
                    "error": None,
                    "results": [RESULT],
                }
            ]
        }
    )
    number: int = Field(description="its place in the request, from 0")
    image_id: int | None = Field(description="your own, where it is of a data set")
    url: str | None = Field(description="as it was requested")
    size: list[int] | None = Field(description="height, width")
    error: str | None = Field(description="why it could not be read")
    results: list[Result] = Field(description="by falling score")


class PredictionPage(BaseModel):
    """Predictions of some images, and the cursor of the next page; null on the last."""

    predictions: list[Prediction]
    next: str | None
