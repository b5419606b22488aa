"""Predictions: what is sent, and what comes back. The model is a stand-in that sees one square."""

import io
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fastapi.testclient import TestClient
from PIL import Image as PILImage
from pycocotools import mask as coco_mask

from app.main import create_app
from app.predict.model_cache import Runtime
from app.settings import Settings
from sapnet.types import ByteArray, Category
from sapnet_client import Client, Invalid, NotFound
from sapnet_client.types import Job


class Square:
    categories = (Category(7, "cell"),)

    def predict(
        self, image: ByteArray, score_threshold: float = 0.1, **settings: Any
    ) -> list[dict[str, Any]]:
        mask = np.zeros(image.shape[:2], np.uint8, order="F")
        mask[:4, :4] = 1
        rle = coco_mask.encode(mask)
        rle["counts"] = rle["counts"].decode()
        found = {"category_id": 7, "segmentation": rle, "bbox": [0.0, 0.0, 4.0, 4.0]}
        return [{**found, "score": score} for score in (0.9, 0.3) if score >= score_threshold]


@pytest.fixture
def job(client: Client, photos: tuple[Path, Path]) -> Job:
    return client.wait(client.train(client.create_dataset(*photos)))


@pytest.fixture
def seeing(settings: Settings, job: Job) -> Iterator[Client]:
    """Of the same service in this process, where a model is a `Square` once it is loaded."""
    app = create_app(settings)
    app.state.runtime = Runtime(2, loader=lambda path: Square())  # type: ignore[arg-type,return-value]
    with (
        TestClient(app, raise_server_exceptions=False) as http,
        Client(http=http, progress=False) as client,
    ):
        yield client


def png(height: int, width: int) -> bytes:
    buffer = io.BytesIO()
    PILImage.fromarray(np.full((height, width, 3), 90, np.uint8)).save(buffer, "PNG")
    return buffer.getvalue()


def path_of(folder: Path) -> Path:
    path = folder / "new.png"
    path.write_bytes(png(8, 9))
    return path


@pytest.mark.slow
@pytest.mark.parametrize(
    "given",
    [
        lambda folder: png(8, 9),
        path_of,
        lambda folder: str(path_of(folder)),
        lambda folder: np.full((8, 9, 3), 90, np.uint8),
        lambda folder: PILImage.open(path_of(folder)),
    ],
    ids=["bytes", "path", "text", "array", "image"],
)
def test_an_image_of_yours(
    seeing: Client, job: Job, tmp_path: Path, given: Callable[[Path], Any]
) -> None:
    assert job.model_id is not None
    found = seeing.predict(job.model_id, given(tmp_path))
    assert [one.score for one in found] == [0.9, 0.3]
    assert found[0].segmentation.array().shape == (8, 9)
    assert found[0].segmentation.array().sum() == 16
    assert found[0].image_id is None
    assert len(seeing.predict(job.model_id, given(tmp_path), score=0.5)) == 1
    with pytest.raises(Invalid, match="tiles"):
        seeing.predict(job.model_id, given(tmp_path), tiles=3)


@pytest.mark.slow
def test_tiles_and_mirror_images(seeing: Client, client: Client, job: Job) -> None:
    assert job.model_id is not None
    plain = seeing.predict(job.model_id, 3)
    assert seeing.predict(job.model_id, 3, tiles="off", mirror=False) == plain
    with pytest.raises(Invalid, match="tiles"):
        seeing.overlay(job.model_id, 3, tiles="small")
    asked = {"tiles": 64, "mirror": True}
    (one,) = client.predict_many(job.model_id, [3], **asked)
    assert one.error is None


@pytest.mark.slow
def test_an_image_of_a_data_set(seeing: Client, job: Job) -> None:
    assert job.model_id is not None
    assert job.dataset_id is not None
    by_id = seeing.predict(job.model_id, 3)
    assert {one.image_id for one in by_id} == {3}
    assert seeing.predict(job.model_id, "deep/c.png", dataset=job.dataset_id) == by_id
    drawn = PILImage.open(io.BytesIO(seeing.overlay(job.model_id, 3)))
    assert drawn.size == (40, 30)


@pytest.mark.slow
def test_many_images(client: Client, job: Job, tmp_path: Path) -> None:
    """By a job, whose program is a stand-in as well."""
    assert job.model_id is not None
    away = "http://nowhere.invalid/a.png"
    found = list(client.predict_many(job.model_id, [3, path_of(tmp_path), png(8, 9), away]))
    assert [one.number for one in found] == [0, 1, 2, 3]
    assert [one.image_id for one in found] == [3, None, None, None]
    assert {result.image_id for result in found[0].results} == {3}
    assert found[1].results
    assert found[3].url == away
    assert "does not resolve" in str(found[3].error)
    whole = list(client.predict_many(job.model_id, dataset=job.dataset_id, score=0.2))
    assert [one.image_id for one in whole] == [1, 2, 3]


@pytest.mark.slow
def test_what_cannot_be(seeing: Client, job: Job, tmp_path: Path) -> None:
    assert job.model_id is not None
    with pytest.raises(NotFound, match="no-model"):
        seeing.predict("no-model", png(8, 9))
    with pytest.raises(Invalid):
        seeing.predict(job.model_id, b"no image")
    with pytest.raises(Invalid, match="does not resolve"):
        seeing.predict(job.model_id, "http://nowhere.invalid/a.png")
    with pytest.raises(FileNotFoundError):
        seeing.predict(job.model_id, tmp_path / "none.png")
