"""Prediction over HTTP. The model is a stand-in here; a trained one answers in test_real.py."""

import io
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fastapi.testclient import TestClient
from PIL import Image as PILImage
from pycocotools import mask as coco_mask

from app.predict.model_cache import PredictOptions, Runtime
from sapnet.types import ByteArray, Category

pytestmark = pytest.mark.both_stacks

PROBLEM = "application/problem+json"


class Square:
    """Finds one square, at the upper left, in every image."""

    categories = (Category(0, "cell"), Category(7, "dust"))
    seen: tuple[int, ...] = ()

    def predict(self, image: ByteArray, score_threshold: float = 0.1) -> list[dict[str, Any]]:
        self.seen = image.shape
        mask = np.zeros(image.shape[:2], np.uint8, order="F")
        mask[:4, :4] = 1
        rle = coco_mask.encode(mask)
        rle["counts"] = rle["counts"].decode()
        results = [
            {"category_id": 7, "segmentation": rle, "bbox": [0.0, 0.0, 4.0, 4.0], "score": score}
            for score in (0.9, 0.3)
        ]
        return [r for r in results if r["score"] >= score_threshold]


def png(height: int = 30, width: int = 40) -> bytes:
    buffer = io.BytesIO()
    PILImage.fromarray(np.full((height, width, 3), 90, np.uint8)).save(buffer, format="PNG")
    return buffer.getvalue()


@pytest.mark.slow
def test_an_image_of_the_dataset(client: TestClient, model_id: str) -> None:
    for image in (12, "12.png"):
        answer = client.get("/predict", params={"model": model_id, "image": image})
        assert answer.status_code == 200, answer.text
        (first, second) = answer.json()
        assert (first["category_id"], first["score"], second["score"]) == (7, 0.9, 0.3)
        assert first["bbox"] == [0, 0, 4, 4]
        assert first["image_id"] == 12
        assert first["segmentation"]["size"] == [30, 40]
        assert coco_mask.area(first["segmentation"]) == 16
    sure = client.get("/predict", params={"model": model_id, "image": 12, "score": 0.5})
    assert len(sure.json()) == 1


@pytest.mark.slow
@pytest.mark.parametrize(
    "query",
    [
        {"model": "none", "image": 12},
        {"image": 13},
        {"image": "no.png"},
        {"image": "-"},
        {"image": 10**30},
        {"image": "\0"},
        {"image": 12, "dataset": "\0"},
    ],
)
def test_what_is_not_there(client: TestClient, model_id: str, query: dict[str, Any]) -> None:
    answer = client.get("/predict", params={"model": model_id, **query})
    assert (answer.status_code, answer.headers["content-type"]) == (404, PROBLEM)
    elsewhere = client.get("/predict", params={"model": model_id, "image": 12, "dataset": "none"})
    assert elsewhere.status_code == 404


@pytest.mark.slow
def test_a_sent_image(client: TestClient, model_id: str) -> None:
    form = {"model": model_id}
    answer = client.post("/predict", data=form, files={"file": ("a.png", png(8, 9))})
    assert answer.status_code == 200, answer.text
    assert answer.json()[0]["segmentation"]["size"] == [8, 9]
    sure = client.post("/predict", data={**form, "score": "0.5"}, files={"file": png(8, 9)})
    assert len(sure.json()) == 1


@pytest.mark.slow
def test_an_image_by_accept(client: TestClient, model_id: str) -> None:
    headers = {"Accept": "image/png"}
    for answer in (
        client.get("/predict", params={"model": model_id, "image": 12}, headers=headers),
        client.post("/predict", data={"model": model_id}, files={"file": png()}, headers=headers),
    ):
        assert answer.headers["content-type"] == "image/png"
        drawn = np.asarray(PILImage.open(io.BytesIO(answer.content)))
        assert drawn.shape == (30, 40, 3)
        assert (drawn[10:, 10:] == 90).any()
        assert not (drawn[:4, :4] == 90).all()
    answer = client.get(
        "/predict", params={"model": model_id, "image": 12}, headers={"Accept": "text/html"}
    )
    assert answer.status_code == 406


@pytest.mark.slow
def test_images_leave_doubtful_results_out(client: TestClient, model_id: str) -> None:
    least: list[float] = []

    class RecordingPredictor(Square):
        def predict(self, image: ByteArray, score_threshold: float = 0.1) -> list[dict[str, Any]]:
            least.append(score_threshold)
            return super().predict(image, score_threshold)

    client.app.state.runtime = Runtime(1, loader=lambda path: RecordingPredictor())  # type: ignore[attr-defined]
    for accept in ("application/json", "image/png"):
        for score in ({}, {"score": "0.7"}):
            headers = {"accept": accept}
            query = {"model": model_id, "image": "12", **score}
            answer = client.get("/predict", params=query, headers=headers)
            assert (answer.status_code, answer.headers["vary"]) == (200, "Accept")
            form = {"model": model_id, **score}
            client.post("/predict", data=form, files={"file": png()}, headers=headers)
    assert least == [0.1, 0.1, 0.7, 0.7, 0.3, 0.3, 0.7, 0.7]


@pytest.mark.slow
def test_tiles_and_mirror_images_are_asked_for(client: TestClient, model_id: str) -> None:
    asked: list[dict[str, Any]] = []

    class RecordingPredictor(Square):
        def predict(
            self, image: ByteArray, score_threshold: float = 0.1, **settings: Any
        ) -> list[dict[str, Any]]:
            asked.append(settings)
            return super().predict(image, score_threshold)

    client.app.state.runtime = Runtime(1, loader=lambda path: RecordingPredictor())  # type: ignore[attr-defined]
    query = {"model": model_id, "image": "12"}
    how = {"tiles": "64", "mirror": "true"}
    assert client.get("/predict", params=query).status_code == 200
    assert client.get("/predict", params={**query, **how}).status_code == 200
    form = {"model": model_id, **how}
    assert client.post("/predict", data=form, files={"file": png()}).status_code == 200
    body = {"model": model_id, "images": [12], "tiles": "off", "mirror": True}
    assert client.post("/predict", json=body).status_code == 200
    both = {"tiles": 64, "mirror": True}
    assert asked == [{}, both, both, {"tiles": "off", "mirror": True}]
    for wrong in ("63", "small", "-1", "1" + "0" * 12, "64.5", "9" * 5000):
        answer = client.get("/predict", params={**query, "tiles": wrong})
        assert answer.status_code == 422, wrong
        assert {e["pointer"] for e in answer.json()["errors"]} == {"/tiles"}
    many = client.get("/predict", params={**query, "tiles": "64"})
    assert many.status_code == 200


@pytest.mark.slow
def test_small_tiles_of_a_large_image_are_work_for_a_worker(
    client: TestClient, model_id: str
) -> None:
    form = {"model": model_id, "tiles": "64"}
    answer = client.post("/predict", data=form, files={"file": png(400, 400)})
    assert answer.status_code == 422
    (fault,) = answer.json()["errors"]
    assert "64 tiles; at most 32" in fault["detail"]
    assert "respond-async" in fault["hint"]


@pytest.mark.slow
def test_bodies_that_are_no_form(client: TestClient, model_id: str) -> None:
    answer = client.post("/predict", content=model_id, headers={"content-type": "text/plain"})
    assert (answer.status_code, answer.headers["content-type"]) == (415, PROBLEM)
    assert "multipart/form-data" in answer.json()["detail"]
    text = client.post("/predict", files={"model": (None, model_id), "file": (None, "abc")})
    (fault,) = text.json()["errors"]
    assert (fault["pointer"], fault["detail"]) == ("/file", "it should be a file")


@pytest.mark.slow
@pytest.mark.parametrize("content", [b"", b"a text called .jpg", png()[:60]])
def test_what_is_no_image(client: TestClient, model_id: str, content: bytes) -> None:
    answer = client.post("/predict", data={"model": model_id}, files={"file": ("a.jpg", content)})
    assert (answer.status_code, answer.headers["content-type"]) == (422, PROBLEM)
    assert answer.json()["errors"][0]["part"] == "file"


@pytest.mark.slow
def test_a_form_that_lacks_something(client: TestClient, model_id: str) -> None:
    lacking = client.post("/predict", data={"model": model_id})
    assert [e["pointer"] for e in lacking.json()["errors"]] == ["/file"]
    wrong = client.post("/predict", data={"model": model_id, "score": "2"}, files={"file": png()})
    assert [e["pointer"] for e in wrong.json()["errors"]] == ["/score"]


@pytest.mark.slow
def test_grey_and_one_pixel_images(client: TestClient, model_id: str) -> None:
    buffer = io.BytesIO()
    PILImage.fromarray(np.array([[7]], np.uint8)).save(buffer, format="PNG")
    answer = client.post("/predict", data={"model": model_id}, files={"file": buffer.getvalue()})
    assert answer.json()[0]["segmentation"]["size"] == [1, 1]


def test_models_stay_warm_and_the_oldest_makes_room() -> None:
    loaded: list[Path] = []

    def loader(path: Path) -> Square:
        loaded.append(path)
        return Square()

    runtime, image = Runtime(2, loader), np.zeros((5, 6, 3), np.uint8)
    for name in ("a", "b", "a", "c", "a", "b"):
        assert runtime.predict(name, lambda n=name: Path(n), image, PredictOptions(0.5))  # type: ignore[misc]
    assert [p.name for p in loaded] == ["a", "b", "c", "b"]
    with pytest.raises(ValueError, match="0"):
        Runtime(0)


def test_two_requests_load_a_model_once() -> None:
    loaded: list[Path] = []

    def slow(path: Path) -> Square:
        time.sleep(0.1)
        loaded.append(path)
        return Square()

    runtime, image = Runtime(1, slow), np.zeros((5, 6, 3), np.uint8)
    threads = [
        threading.Thread(
            target=runtime.predict, args=("a", lambda: Path("a"), image, PredictOptions(0.1))
        )
        for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert loaded == [Path("a")]


def test_a_model_that_does_not_load_is_not_kept() -> None:
    def broken(path: Path) -> Square:
        raise OSError(path)

    runtime, image = Runtime(1, broken), np.zeros((5, 6, 3), np.uint8)
    for _ in range(2):
        with pytest.raises(OSError, match="a"):
            runtime.predict("a", lambda: Path("a"), image, PredictOptions(0.1))


@pytest.mark.slow
@pytest.mark.slow
@pytest.mark.parametrize(
    "refusal", [MemoryError(), RuntimeError("CUDA out of memory. Tried to allocate 2.00 GiB.")]
)
def test_no_memory_at_the_moment(client: TestClient, model_id: str, refusal: Exception) -> None:
    """503 and when to ask again; the models that were in memory make room."""
    refusals = [refusal]

    class Large(Square):
        def predict(self, *arguments: Any, **options: Any) -> list[dict[str, Any]]:
            if refusals:
                raise refusals.pop()
            return super().predict(*arguments, **options)

    loaded: list[Path] = []

    def load(path: Path) -> Large:
        loaded.append(path)
        return Large()

    client.app.state.runtime = Runtime(2, load)  # type: ignore[attr-defined]
    wanted = {"model": model_id, "image": 12}
    answer = client.get("/predict", params=wanted)
    assert answer.status_code == 503, answer.text
    assert int(answer.headers["Retry-After"]) > 0
    assert answer.json()["type"] == "/problems/unavailable"
    assert client.get("/predict", params=wanted).status_code == 200
    assert len(loaded) == 2


@pytest.mark.slow
def test_any_other_error_of_a_model_is_a_bug(client: TestClient, model_id: str) -> None:
    class Broken(Square):
        def predict(self, *arguments: Any, **options: Any) -> list[dict[str, Any]]:
            raise RuntimeError("shapes do not fit")

    client.app.state.runtime = Runtime(1, lambda path: Broken())  # type: ignore[attr-defined]
    answer = client.get("/predict", params={"model": model_id, "image": 12})
    assert answer.status_code == 500


def test_a_model_that_this_release_cannot_load(client: TestClient, model_id: str) -> None:
    client.app.state.runtime = Runtime(1)  # type: ignore[attr-defined]
    answer = client.get("/predict", params={"model": model_id, "image": 12})
    assert (answer.status_code, answer.headers["content-type"]) == (503, PROBLEM)
    assert answer.json()["detail"].startswith("The model cannot be loaded: ")
