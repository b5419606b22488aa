"""What was trained: names, figures, files; and what a model finds in an image that is dropped."""

import json
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from io import BytesIO
from pathlib import Path
from typing import Any

import httpx2
import numpy as np
import pytest
import uvicorn
from PIL import Image
from playwright.sync_api import Page, expect
from pycocotools import mask as coco_mask
from scipy import ndimage

from app.main import create_app
from app.predict.model_cache import Runtime
from app.settings import Settings
from sapnet.data.synthetic import CLASSES, draw_scene
from sapnet.types import ByteArray, Category

from ..editing import at
from ..holding import Held
from .reviewing import centre

FILES = {"safetensors": b"safe weights", "Checkpoint": b"weights of seed", "ONNX": b"onnx of"}
"""Buttons, and what the files begin with that the stand-in for a trainer leaves."""


class Finder:
    """A model that takes what is colourful for beetles, and the largest of it for a flower."""

    categories = tuple(Category(i, name) for i, name in enumerate(CLASSES, 1))

    def predict(self, image: ByteArray, score_threshold: float = 0.1) -> list[dict[str, Any]]:
        colour = image.max(2).astype(int) - image.min(2)
        places, count = ndimage.label(ndimage.binary_opening(colour > 60, iterations=2))
        order = sorted(range(1, count + 1), key=lambda i: -int((places == i).sum()))
        found = []
        for rank, label in enumerate(order):
            rle = coco_mask.encode(np.asfortranarray(places == label, dtype=np.uint8))
            box = [float(v) for v in coco_mask.toBbox(rle)]
            rle["counts"] = rle["counts"].decode()
            kind, score = 3 if rank == 0 else 1, 0.95 - 0.12 * rank
            if score >= score_threshold:
                found.append(
                    {"category_id": kind, "segmentation": rle, "bbox": box, "score": score}
                )
        return found


@pytest.fixture
def finding(service: Any) -> Iterator[Any]:
    """The same service, in a process where a model need not be a trained one to be loaded."""
    settings = Settings(_env_file=None, data_dir=service.folder / "var", log_level="error")  # type: ignore[call-arg]
    app = create_app(settings)
    app.state.runtime = Runtime(2, loader=lambda path: Finder())
    config = uvicorn.Config(app, port=0, log_config=None, timeout_graceful_shutdown=1)
    socket, server = config.bind_socket(), uvicorn.Server(config)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [socket]}, daemon=True)
    thread.start()
    while not server.started:
        assert thread.is_alive(), "the server did not start"
        time.sleep(0.02)
    yield replace(service, url=f"http://127.0.0.1:{socket.getsockname()[1]}")
    server.should_exit = True
    thread.join(20)


@dataclass(frozen=True)
class DroppedImage:
    path: Path
    pixels: ByteArray


@pytest.fixture
def image(tmp_path: Path) -> DroppedImage:
    pixels, _, _ = draw_scene((240, 320), np.random.default_rng(11))
    path = tmp_path / "new.png"
    Image.fromarray(pixels).save(path)
    return DroppedImage(path, pixels)


def card(page: Page, model: str) -> Any:
    return page.locator("li.card", has=page.locator("code", has_text=model))


def model_of(trained: Any) -> str:
    return str(trained.service.ask(f"/jobs/{trained.job}")["model_id"])


def test_figures_curves_and_files(ui: Any, trained: Any) -> None:
    page = ui.open("/models")
    mine = card(page, model_of(trained))
    expect(mine).to_contain_text("0.750")
    mine.get_by_text("Precision and recall").click()
    image = mine.locator("img.curves")
    expect(image).to_be_visible()
    image.scroll_into_view_if_needed()
    page.wait_for_selector("img.curves[src]")
    ui.looks("models")
    for name, content in FILES.items():
        with page.expect_download() as download:
            mine.get_by_role("button", name=name).click()
        assert Path(download.value.path()).read_bytes().startswith(content)


def test_a_name_is_given_moved_and_taken_away(ui: Any, trained: Any, scenes: Any) -> None:
    other = trained.service.job(scenes(1))
    first, second = model_of(trained), trained.service.ask(f"/jobs/{other}")["model_id"]
    page = ui.open("/models")
    for model in (first, second):
        mine = card(page, model)
        mine.get_by_placeholder("production").fill("best-yet")
        mine.get_by_placeholder("production").press("Enter")
        expect(mine.locator(".names")).to_contain_text("best-yet")
        assert trained.service.ask("/models/aliases/best-yet")["model_id"] == model
    expect(card(page, first).locator(".names")).to_be_empty()

    revision = trained.service.ask("/models/aliases/best-yet")["revision"]
    moved = httpx2.put(
        f"{trained.service.url}/models/aliases/best-yet",
        json={"model": first},
        headers={"If-Match": f'"{revision}"'},
    )
    assert moved.status_code == 200
    ui.expected.append("412")
    page.get_by_role("button", name="Remove the name best-yet").click()
    expect(page.locator(".toast", has_text="Somebody else has moved")).to_be_visible()
    expect(card(page, first).locator(".names")).to_contain_text("best-yet")
    page.get_by_role("button", name="Remove the name best-yet").click()
    expect(page.locator(".names", has_text="best-yet")).to_have_count(0)
    assert trained.service.ask("/models/aliases")["aliases"] == []


def test_a_dropped_image_is_shown_with_what_is_in_it(
    ui: Any, trained: Any, finding: Any, image: DroppedImage
) -> None:
    ui.service = finding
    page = ui.open(f"/predict?model={model_of(trained)}")
    assert page.get_by_label("Model").input_value() == model_of(trained)
    ui.looks("predict-empty")
    page.locator("input[type=file]").set_input_files(image.path)
    expected = Finder().predict(image.pixels)
    many = [r for r in expected if r["score"] >= 0.3]
    few = [r for r in expected if r["score"] >= 0.8]
    assert len(many) > len(few) > 0
    rows = page.locator(".object")
    expect(rows).to_have_count(len(many))
    ui.looks("predict")
    page.get_by_label("Confidence threshold").fill("0.8")
    expect(rows).to_have_count(len(few))
    expect(page.get_by_text(f"{len(few)} object")).to_be_visible()
    rows.first.click()
    expect(rows.first).to_have_attribute("aria-pressed", "true")
    with page.expect_download() as download:
        page.get_by_role("button", name="JSON").click()
    told = json.loads(Path(download.value.path()).read_text())
    assert [r["segmentation"] for r in told] == [r["segmentation"] for r in few]
    with page.expect_download() as download:
        page.get_by_role("button", name="PNG").click()
    drawn = np.asarray(Image.open(download.value.path()))
    assert drawn.shape == image.pixels.shape
    assert (drawn != image.pixels).any()

    # A photograph that EXIF has turned: image and masks lie where they do in its stored pixels.
    exif, photo = Image.Exif(), image.path.with_name("photo.jpg")
    exif[0x0112] = 6
    Image.fromarray(image.pixels).save(photo, quality=95, subsampling=0, exif=exif)
    stored = np.asarray(Image.open(photo))
    (best, *_) = Finder().predict(stored)
    page.locator("input[type=file]").set_input_files(photo)
    page.get_by_label("Confidence threshold").fill("1")
    expect(page.get_by_text("Nothing of so high a score")).to_be_visible()
    size = (stored.shape[1], stored.shape[0])
    sampled = stored[20::50, 20::50].astype(int)
    places = [
        at(page, x + 0.5, y + 0.5, size, ".predicting")
        for y in range(20, size[1], 50)
        for x in range(20, size[0], 50)
    ]
    screen = np.asarray(Image.open(BytesIO(page.screenshot())).convert("RGB"))
    seen = np.array([screen[int(y), int(x)] for x, y in places]).reshape(sampled.shape)
    assert np.abs(seen - sampled).mean() < 12
    page.get_by_label("Confidence threshold").fill("0.8")
    page.mouse.click(*at(page, *centre(best["segmentation"]), size, ".predicting"))
    expect(rows.first).to_have_attribute("aria-pressed", "true")


def test_predictions_are_saved_under_the_image_they_are_of(
    ui: Any, trained: Any, finding: Any, image: DroppedImage, tmp_path: Path
) -> None:
    ui.service = finding
    ui.expected.append("503")
    page = ui.open(f"/predict?model={model_of(trained)}")
    page.locator("input[type=file]").set_input_files(image.path)
    expect(page.locator(".object").first).to_be_visible()
    many = page.locator(".object").count()
    held = Held(page, "POST", "/predict$")
    second = tmp_path / "second.png"
    Image.new("RGB", (80, 60)).save(second)
    page.locator("input[type=file]").set_input_files(second)
    held.came()
    with page.expect_download() as download:
        page.get_by_role("button", name="JSON").click()
    assert download.value.suggested_filename == "new.png.json"
    assert len(json.loads(Path(download.value.path()).read_text())) == many
    held.refuse()
    expect(page.locator(".problem")).to_be_visible()
    expect(page.locator(".predicting")).to_be_hidden()


def test_what_is_no_image_is_refused_in_words(
    ui: Any, trained: Any, finding: Any, tmp_path: Path
) -> None:
    ui.service = finding
    page = ui.open(f"/predict?model={model_of(trained)}")
    ui.expected.append("422")
    path = tmp_path / "no.png"
    path.write_bytes(b"not an image")
    page.locator("input[type=file]").set_input_files(path)
    expect(page.locator(".problem")).to_contain_text("send a JPEG, PNG, WebP, TIFF or BMP")
