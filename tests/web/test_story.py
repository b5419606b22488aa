"""The whole story, with the real trainer: drop, click, train, watch, correct, train again, predict,
export, and pycocotools loads what came of it."""

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from playwright.sync_api import Locator, Page, expect
from pycocotools import mask as coco_mask
from pycocotools.coco import COCO
from scipy.ndimage import distance_transform_edt

from sapnet.data.synthetic import CLASSES, make_scenes

from .conftest import Service
from .editing import at, click, drop

pytestmark = [pytest.mark.slow, pytest.mark.timeout(2400)]

SIZE = (128, 128)
MOST_SECONDS = 900
CREATED = re.compile(r"#/datasets/[0-9a-f]{32}$")
JOB = re.compile(r"#/jobs/[0-9a-f]{32}$")


@pytest.fixture(scope="module")
def shared_service(start_service: Callable[..., Service]) -> Service:
    """As a user starts it: no setting at all but where its data goes."""
    return start_service(real=True)


def click_points(page: Page, document: dict[str, Any]) -> None:
    """As a person would: on each image, for each object the key of its class, and a click."""
    for name in CLASSES[1:]:
        page.get_by_label("Name of a new class").fill(name)
        page.get_by_label("Name of a new class").press("Enter")
    first = page.get_by_label("Name of class 1")
    first.fill(CLASSES[0])
    first.press("Enter")
    for number, image in enumerate(document["images"], start=1):
        expect(page.locator(".toolbar .name")).to_contain_text(f"{number} / 12")
        page.wait_for_timeout(100)  # until it is drawn
        for annotation in document["annotations"]:
            if annotation["image_id"] == image["id"]:
                page.locator(".editor canvas").press(str(annotation["category_id"]))
                click(page, *annotation["point"], size=SIZE)
        page.keyboard.press("n")


def train(page: Page, epochs: int) -> str:
    """From the open dialog to the end of the training; its job. The progress must move."""
    form = page.locator("dialog")
    form.get_by_label("Preset").select_option("demo")
    form.get_by_text("More settings").click()
    form.get_by_label("Epochs").fill(str(epochs))
    form.get_by_role("button", name="Train", exact=True).click()
    page.wait_for_url(JOB)
    badge, bar = page.locator("main .badge").first, page.locator("main progress").first
    seen = set()
    for _ in range(2 * MOST_SECONDS):
        seen.add(float(bar.evaluate("bar => bar.value")))
        if badge.inner_text() not in ("queued", "running"):
            break
        page.wait_for_timeout(500)
    expect(badge).to_contain_text("succeeded")
    assert len(seen) > 3, f"the progress did not move: {seen}"
    expect(page.locator(".plot .curve").first).to_be_attached()
    return page.url.rsplit("/", 1)[1]


def middle(canvas: Locator) -> tuple[float, float]:
    box = canvas.bounding_box()
    assert box
    return box["x"] + box["width"] / 2, box["y"] + box["height"] / 2


def correct_two(page: Page, service: Service, job: str) -> None:
    """A stroke of the brush on the worst mask, a point on the one after it."""
    canvas = page.locator(".reviewing .viewer canvas")
    counts = page.locator(".counts")
    save = page.get_by_role("button", name="Save")
    x, y = middle(canvas)
    canvas.focus()
    page.keyboard.press("b")
    page.mouse.move(x - 80, y)
    page.mouse.down()
    page.mouse.move(x + 80, y + 30, steps=8)
    page.mouse.up()
    expect(save).to_be_enabled()
    page.keyboard.press("Enter")
    expect(counts).to_contain_text("1 corrected")
    page.keyboard.press("+")
    page.keyboard.press("0")
    worst = service.ask(f"/jobs/{job}/review?status=open&limit=1")["masks"][0]
    with page.expect_response(re.compile("/suggest$")) as told:
        page.mouse.click(*at(page, *beside(worst), size=SIZE, within=".reviewing"))
    assert told.value.status == 200
    expect(save).to_be_enabled()
    page.keyboard.press("Enter")
    expect(counts).to_contain_text("2 corrected")
    page.keyboard.press("a")  # and the one after is right as it is
    expect(counts).to_contain_text("1 accepted")


def beside(mask: dict[str, Any]) -> tuple[float, float]:
    """A pixel that lies outside of the mask, three pixels away."""
    inside = coco_mask.decode(mask["segmentation"])
    ys, xs = np.nonzero(distance_transform_edt(inside == 0).astype(int) == 3)
    return float(xs[len(xs) // 2]) + 0.5, float(ys[len(ys) // 2]) + 0.5


def saved(page: Page, press: Locator, path: Path) -> Path:
    with page.expect_download() as download:
        press.click()
    download.value.save_as(path)
    return path


def test_the_whole_story(ui: Any, tmp_path: Path) -> None:
    scenes = make_scenes(tmp_path / "scenes", 12, size=SIZE, seed=5)
    unseen = make_scenes(tmp_path / "unseen", 1, size=SIZE, seed=5, start_id=90)
    document = json.loads(scenes.points.read_text())
    objects = len(document["annotations"])

    page = ui.open("/datasets")
    drop(page, *sorted(scenes.images.glob("*.png")))
    page.wait_for_url("**/datasets/new")
    expect(page.locator(".strip li")).to_have_count(12)
    click_points(page, document)
    expect(page.locator("main")).to_contain_text(f"12 images, {objects} points")
    ui.shot("story-1-points")
    page.get_by_label("Name", exact=True).fill("scenes")
    page.get_by_role("button", name="Create the data set").click()
    page.wait_for_url(CREATED)
    expect(page.locator("h1")).to_have_text("scenes")
    clicked(ui.service, page.url.rsplit("/", 1)[1], document)

    page.get_by_role("button", name="Train").click()
    job = train(page, epochs=4)
    ui.shot("story-2-trained")
    page.get_by_role("link", name="See the results").click()
    expect(page.locator(".photo")).to_have_count(12)
    page.wait_for_timeout(1000)
    ui.shot("story-3-results")

    ui.open(f"/jobs/{job}/review")
    correct_two(page, ui.service, job)
    ui.shot("story-4-review")
    page.get_by_role("button", name="Make a new version and train again").click()
    page.get_by_role("button", name="Make the version").click()
    expect(page.locator("dialog").get_by_label("Begin with")).not_to_have_value("")
    again = train(page, epochs=1)
    assert again != job
    ui.shot("story-5-trained-again")
    told = ui.service.ask(f"/jobs/{again}")
    assert told["dataset_id"] != ui.service.ask(f"/jobs/{job}")["dataset_id"]

    ui.open(f"/predict?model={told['model_id']}")
    drop(page, next(unseen.images.glob("*.png")))
    expect(page.locator(".predicting")).to_be_visible(timeout=60_000)
    page.wait_for_timeout(500)
    ui.shot("story-6-predicted")
    found = saved(page, page.get_by_role("button", name="JSON"), tmp_path / "predicted.json")
    assert isinstance(json.loads(found.read_text()), list)

    ui.open(f"/jobs/{again}/results")
    page.get_by_role("button", name="Make the export").click()
    button = page.get_by_role("button", name="Download COCO, RLE")
    ui.shot("story-7-exported")
    coco = COCO(saved(page, button, tmp_path / "coco.json"))
    assert len(coco.getImgIds()) == 12
    assert {c["name"] for c in coco.loadCats(coco.getCatIds())} == set(CLASSES)
    masks = [coco.annToMask(a) for a in coco.loadAnns(coco.getAnnIds())]
    assert 0 < len(masks) <= objects
    assert all(mask.shape == SIZE and mask.any() for mask in masks)


def clicked(service: Service, dataset: str, document: dict[str, Any]) -> None:
    """The points that arrived are those that were clicked, to half a pixel of the screen."""
    there = service.ask(f"/datasets/{dataset}/annotations")["annotations"]
    meant = sorted((*a["point"], a["category_id"]) for a in document["annotations"])
    came = sorted((*a["point"], a["category_id"]) for a in there)
    assert len(came) == len(meant)
    for (x, y, category), (x0, y0, category0) in zip(came, meant, strict=True):
        assert abs(x - x0) < 0.5
        assert abs(y - y0) < 0.5
        assert category == category0
