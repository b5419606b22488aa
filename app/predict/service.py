"""What a trained model sees in an image: one of a data set, or one that was sent."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from sqlalchemy import select
from sqlalchemy.orm import Session

from app.datasets.service import get as get_dataset
from app.errors import NotFound
from app.models import Image, Job
from app.predict.runtime import Results, Runtime, overlay_png, read_image
from app.registry.service import get as get_model
from app.settings import Settings
from app.storage import Storage
from sapnet.types import ByteArray, Category


@dataclass(frozen=True, slots=True)
class Prediction:
    """image: (H, W, 3) uint8. results: COCO's, by falling score."""

    image: ByteArray
    results: Results
    categories: Sequence[Category]

    def png(self) -> bytes:
        return overlay_png(self.image, self.results, self.categories)


@dataclass(frozen=True, slots=True)
class Known:
    """What the rows say about a model, so that no session is held while it works."""

    sha256: str
    dataset_id: str
    categories: tuple[Category, ...]


def find_model(session: Session, model_id: str) -> Known:
    """Raises NotFound."""
    model = get_model(session, model_id)
    dataset_id = session.get_one(Job, model.job_id).dataset_id
    categories = tuple(Category(c["id"], c["name"]) for c in model.categories)
    return Known(model.sha256, dataset_id, categories)


def find_image(session: Session, dataset_id: str, image: str) -> tuple[int, str]:
    """Id and digest of a data set's image, by that id or its file name. Raises NotFound."""
    get_dataset(session, dataset_id)
    query = select(Image.image_id, Image.sha256).where(Image.dataset_id == dataset_id)
    is_id = image.removeprefix("-").isdecimal() and len(image) <= 18  # of 64 bits
    by_id = query.where(Image.image_id == int(image)) if is_id else None
    by_name = query.where(Image.file_name == image) if "\0" not in image else None
    for attempt in (by_id, by_name):
        if attempt is not None and (row := session.execute(attempt).first()):
            return row.image_id, row.sha256
    raise NotFound(f"image in data set {dataset_id!r} with id or file name", image)


def predict(
    runtime: Runtime,
    storage: Storage,
    settings: Settings,
    model: Known,
    source: Path | BinaryIO,
    score: float,
) -> Prediction:
    """score: the least one of a result. Raises Invalid for what is no image."""
    image = read_image(source, settings.max_image_pixels)
    results = runtime.predict(model.sha256, lambda: storage.local_path(model.sha256), image, score)
    return Prediction(image, results, model.categories)
