"""What a trained model predicts in an image.

The image is one of a data set, one that was sent, or one that is fetched.
"""

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from sqlalchemy import select
from sqlalchemy.orm import Session

from app.datasets.image_sources import NotFetched
from app.datasets.service import get as get_dataset
from app.db.models import DatasetStatus, Image, Job
from app.errors import BlobMissing, Conflict, Invalid, NotFound, ValidationIssue
from app.http.capacity import Capacity
from app.predict.model_cache import PredictOptions, Results, Runtime, overlay_png
from app.predict.request import PredictArguments, Source
from app.registry.service import get as get_model
from app.settings import Settings
from app.storage.images import NotAnImage, decoded_image
from app.storage.store import Storage
from sapnet.data.exif import orientation_of
from sapnet.types import Category

if TYPE_CHECKING:
    from sapnet.data.pixels import Ranges
    from sapnet.data.tiles import TrainedSizes

_BATCH = 500  # below SQLite's limit on bound values


@dataclass(frozen=True, slots=True)
class Prediction:
    """What a model predicts in one image.

    Attributes:
        size: (h, w) of the image in pixels, as stored.
        orientation: its EXIF's, which is not applied.
        results: COCO's, by falling score.
        drawn: a PNG with the results drawn on it, where one was requested.
    """

    size: tuple[int, int]
    orientation: int
    results: Results
    drawn: bytes | None = None


_NO_DATASET = "the model was imported and has no data set of its own"


@dataclass(frozen=True, slots=True)
class ModelInfo:
    """What the rows say about a model, so that no session is open while it works.

    Attributes:
        trained: sizes of the images that it was trained on; None for models of before.
        score_threshold: that of the best F1 of its validation; None where it had none.
    """

    id: str
    sha256: str
    dataset_id: str | None
    categories: tuple[Category, ...]
    pixel_ranges: "Ranges"
    trained: "TrainedSizes | None" = None
    score_threshold: float | None = None


class TooManyTiles(NotAnImage):
    """An image so much larger than those of the training that it takes too long in a request."""

    hint = "send it by POST with Prefer: respond-async, and a worker does it"


def least_score(
    settings: Settings, model: ModelInfo, asked: float | None, *, drawn: bool = False
) -> float:
    """The confidence threshold of results: the one asked for, the model's own, or the service's.

    Args:
        drawn: for a drawn image, where doubtful results would hide the good ones.
    """
    if asked is not None:
        return asked
    if model.score_threshold is not None:
        return model.score_threshold
    return settings.overlay_score if drawn else settings.predict_score


def find_model(session: Session, name: str) -> ModelInfo:
    """Look a model up by its id, or by an alias.

    Raises:
        NotFound: there is none.
    """
    from sapnet.data.tiles import TrainedSizes  # loads numpy

    model = get_model(session, name)
    dataset_id = session.get_one(Job, model.job_id).dataset_id
    categories = tuple(Category(c["id"], c["name"]) for c in model.categories)
    ranges = model.meta.get("pixel_ranges") or {}
    score = (model.meta.get("validation") or {}).get("score_threshold")
    trained = TrainedSizes.from_meta(model.meta)
    return ModelInfo(model.id, model.sha256, dataset_id, categories, ranges, trained, score)


def find_image(session: Session, dataset_id: str | None, image: str) -> tuple[int, str]:
    """Return id and digest of a data set's image, by that id or its file name.

    Raises:
        Invalid: no data set was named.
        NotFound: there is no such data set, or no such image.
    """
    if dataset_id is None:
        raise Invalid([ValidationIssue("query", "/dataset", _NO_DATASET, "name a data set")])
    get_dataset(session, dataset_id)
    query = select(Image.image_id, Image.sha256).where(Image.dataset_id == dataset_id)
    is_id = image.removeprefix("-").isdecimal() and len(image) <= 18  # of 64 bits
    by_id = query.where(Image.image_id == int(image)) if is_id else None
    by_name = query.where(Image.file_name == image) if "\0" not in image else None
    for attempt in (by_id, by_name):
        if attempt is not None and (row := session.execute(attempt).first()):
            return row.image_id, row.sha256
    raise NotFound(f"image in data set {dataset_id!r} with id or file name", image)


def find_images(
    session: Session,
    dataset_id: str | None,
    arguments: PredictArguments,
    issues: list[ValidationIssue],
) -> dict[int, str]:
    """Return the digests by image id of the images requested; of all, where none is named.

    Args:
        issues: ids that are not there are appended to it.

    Raises:
        NotFound: there is no such data set.
        Conflict: it is not ready.
    """
    if dataset_id is None:
        if any(source.id is not None for source in arguments.sources):
            issues.append(ValidationIssue("body", "/dataset", _NO_DATASET, "name a data set"))
        return {}
    dataset = get_dataset(session, dataset_id)
    if dataset.status is not DatasetStatus.READY:
        raise Conflict(f"The data set is {dataset.status}.", dataset_status=dataset.status)
    query = select(Image.image_id, Image.sha256).where(Image.dataset_id == dataset_id)
    ids = [source.id for source in arguments.sources if source.id is not None]
    if arguments.sources:
        shas: dict[int, str] = {}
        for start in range(0, len(ids), _BATCH):
            some = query.where(Image.image_id.in_(ids[start : start + _BATCH]))
            shas |= {row.image_id: row.sha256 for row in session.execute(some)}
        for source in arguments.sources:
            if source.id is not None and source.id not in shas:
                detail = f"the data set {dataset_id!r} has no image {source.id}"
                issues.append(arguments.issue(source, detail, "see /datasets/{id}/images"))
        return shas
    return {row.image_id: row.sha256 for row in session.execute(query.order_by(Image.image_id))}


def predict_one(
    runtime: Runtime,
    storage: Storage,
    settings: Settings,
    model: ModelInfo,
    arguments: PredictArguments,
    options: PredictOptions,
    *,
    draw: bool,
) -> Prediction:
    """Predict in the one image requested.

    Raises:
        Invalid: says why the image cannot be had.
        Unavailable: other requests hold all that is free, or the model cannot be loaded.
    """
    (source,) = arguments.sources
    try:
        with _readable(storage, settings, runtime.fetches, source, {}) as file:
            return predict(runtime, storage, settings, model, file, options, draw=draw)
    except NotFetched as error:
        raise Invalid([arguments.issue(source, f"it could not be fetched: {error}")]) from error
    except NotAnImage as error:
        hint = error.hint or "send a JPEG, PNG, WebP, TIFF or BMP"
        raise Invalid([arguments.issue(source, str(error), hint)]) from error


def predict_each(
    runtime: Runtime,
    storage: Storage,
    settings: Settings,
    model: ModelInfo,
    arguments: PredictArguments,
    shas: dict[int, str],
    options: PredictOptions,
) -> Iterator[dict[str, object]]:
    """Predict in each image of a list; yield the results, or why the image could not be read.

    Args:
        shas: digests of those that are of a data set, by id.
    """
    for number, source in enumerate(arguments.sources):
        line: dict[str, object] = {"number": number, "image_id": source.id, "url": source.url}
        try:
            with _readable(storage, settings, runtime.fetches, source, shas) as file:
                prediction = predict(runtime, storage, settings, model, file, options)
        except NotFetched as error:
            why = f"it could not be fetched: {error}"
            yield {**line, "size": None, "error": why, "results": []}
        except (NotAnImage, BlobMissing) as error:
            hint = f": {error.hint}" if isinstance(error, TooManyTiles) else ""
            yield {**line, "size": None, "error": f"{error}{hint}", "results": []}
        else:
            own_id = {} if source.id is None else {"image_id": source.id}
            results = [{**own_id, **result} for result in prediction.results]
            yield {**line, "size": list(prediction.size), "error": None, "results": results}


def _tiles(model: ModelInfo, size: tuple[int, int], asked: str | int) -> int:
    """How many tiles an image of (h, w) is cut into."""
    from sapnet.data.tiles import tiles_of  # loads numpy

    if isinstance(asked, int):
        return len(tiles_of(size, (asked, asked)))
    return model.trained.tiles_for(size) if model.trained and asked == "auto" else 1


@contextmanager
def _readable(
    storage: Storage, settings: Settings, fetches: Capacity, source: Source, shas: dict[int, str]
) -> Iterator[Path | BinaryIO]:
    """Open an image as a file, for the time of this block. Raises NotFetched, BlobMissing."""
    if source.file is not None:
        yield source.file
    elif source.id is not None:
        yield storage.local_path(shas[source.id])
    else:
        from app.datasets.fetching import fetch_one  # loads a client that few need

        assert source.url is not None
        with tempfile.TemporaryDirectory(dir=settings.folder("uploads")) as name:
            path = Path(name) / "image"
            with fetches.slot():
                fetch_one(settings, source.url, path)
            yield path


def predict(
    runtime: Runtime,
    storage: Storage,
    settings: Settings,
    model: ModelInfo,
    source: Path | BinaryIO,
    options: PredictOptions,
    *,
    draw: bool = False,
) -> Prediction:
    """Predict in one image.

    Args:
        options: how.
        draw: whether to draw the results on the image too.

    Raises:
        NotAnImage: it cannot be decoded, or is too large to be done at once.
        Unavailable: other requests hold all that is free, or the model cannot be loaded.
    """

    def artifact() -> Path:
        return storage.local_path(model.sha256)

    with (
        runtime.predictions.slot(),
        decoded_image(source, settings.max_image_pixels, model.pixel_ranges) as image,
    ):
        height, width = image.shape[:2]
        tiles = _tiles(model, (height, width), options.tiles)
        if tiles > settings.predict_tiles_at_once:
            cut = f"an image of {width}×{height} pixels is predicted in {tiles:,} tiles"
            most = settings.predict_tiles_at_once
            raise TooManyTiles(f"{cut}; at most {most} are done at once")
        results = runtime.predict(model.sha256, artifact, image, options)
        drawn = overlay_png(image, results, model.categories) if draw else None
        return Prediction((height, width), orientation_of(source), results, drawn)
