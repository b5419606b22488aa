"""Make the images of docs/tutorial.md: the page in Chromium, on generated scenes.

    python tools/tutorial_images.py [--epochs 6]

Starts a service of its own in a temporary folder and trains in earnest: some minutes on two cores,
twice. Needs Chromium (`tests/servers.sh chromium`) and the extra `dev`.
"""

import argparse
import io
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from PIL import Image
from playwright.sync_api import Page, expect, sync_playwright

from sapnet.data.synthetic import CLASSES, make_scenes

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tests" / "web"))

from editing import click, drop  # noqa: E402

FOLDER = ROOT / "docs" / "images" / "tutorial"
SIZE = (224, 224)
SCENES = 6
PATIENCE = 180_000  # milliseconds: trainings take the processor


@contextmanager
def service(folder: Path) -> Iterator[str]:
    """Start `sapnet-service serve` with its data in `folder`; gives the URL."""
    env = {k: v for k, v in os.environ.items() if not k.startswith("SAPNET_")}
    env |= {"SAPNET_DATA_DIR": str(folder / "var"), "PYTHONPATH": str(ROOT)}
    output = folder / "output.txt"
    with output.open("wb") as file:
        command = [sys.executable, "-u", "-m", "app.cli", "serve", "--port", "0"]
        process = subprocess.Popen(command, env=env, cwd=folder, stdout=file, stderr=file)
    try:
        while "is at http://" not in output.read_text():
            assert process.poll() is None, output.read_text()
            time.sleep(0.2)
        yield "http://" + output.read_text().split("is at http://", 1)[1].split()[0]
    finally:
        process.terminate()
        process.wait()


def shot(page: Page, name: str, height: int = 800) -> None:
    """Write the top of the page as FOLDER/name.jpg."""
    page.evaluate("scrollTo(0, 0)")
    page.wait_for_timeout(600)
    png = page.screenshot(clip={"x": 0, "y": 0, "width": 1280, "height": height}, full_page=True)
    FOLDER.mkdir(parents=True, exist_ok=True)
    image = Image.open(io.BytesIO(png)).convert("RGB")
    image.save(FOLDER / f"{name}.jpg", quality=82, optimize=True)
    print(name, flush=True)


def click_points(page: Page, document: dict[str, Any]) -> None:
    """Click once on each object: the key of its class, then the place."""
    for name in CLASSES[1:]:
        page.get_by_label("Name of a new class").fill(name)
        page.get_by_label("Name of a new class").press("Enter")
    first = page.get_by_label("Name of class 1")
    first.fill(CLASSES[0])
    first.press("Enter")
    for number, image in enumerate(document["images"], start=1):
        expect(page.locator(".toolbar .name")).to_contain_text(f"{number} / {SCENES}")
        page.wait_for_timeout(300)
        for annotation in document["annotations"]:
            if annotation["image_id"] == image["id"]:
                page.locator(".editor canvas").press(str(annotation["category_id"]))
                click(page, *annotation["point"], size=SIZE)
        if number == 2:
            shot(page, "2-points")
        page.keyboard.press("n")


def train(page: Page, name: str, epochs: int | None) -> str:
    """Train with the preset `demo` from the open dialog; returns the job."""
    form = page.locator("dialog")
    form.get_by_label("Preset").select_option("demo")
    page.wait_for_timeout(1500)  # until the estimate is there
    if name == "train":
        shot(page, "3-train")
    if epochs:
        form.get_by_text("More settings").click()
        form.get_by_label("Epochs").fill(str(epochs))
    form.get_by_role("button", name="Train", exact=True).click()
    page.wait_for_url("**/jobs/*")
    job = page.url.rsplit("/", 1)[1]
    badge, bar = page.locator("main .badge").first, page.locator("main progress").first
    taken = False
    while badge.inner_text() in ("queued", "running"):
        if not taken and float(bar.evaluate("bar => bar.value")) > 0.5 and name == "train":
            shot(page, "4-training")
            taken = True
        page.wait_for_timeout(1000)
    expect(badge).to_contain_text("succeeded")
    return job


def tour(page: Page, url: str, work: Path, epochs: int | None) -> None:
    """Go the way of the tutorial, and take an image at each stop."""
    scenes = make_scenes(work / "scenes", SCENES, size=SIZE, seed=1)
    page.goto(f"{url}/#/datasets")
    page.wait_for_selector(".drop")
    shot(page, "1-start", 520)
    drop(page, *sorted(scenes.images.glob("*.png")))
    page.wait_for_url("**/datasets/new")
    expect(page.locator(".strip li")).to_have_count(SCENES)
    click_points(page, json.loads(scenes.points.read_text()))
    page.get_by_label("Name", exact=True).fill("scenes")
    page.get_by_role("button", name="Create the data set").click()
    expect(page.locator("h1")).to_have_text("scenes")
    page.get_by_role("button", name="Train").click()
    job = train(page, "train", epochs)
    page.get_by_role("link", name="See the results").click()
    expect(page.locator(".photo")).to_have_count(SCENES)
    page.wait_for_timeout(2000)
    shot(page, "5-results", 1000)

    page.goto(f"{url}/#/jobs/{job}/review")
    page.wait_for_selector(".reviewing .viewer canvas")
    page.wait_for_timeout(1500)
    shot(page, "6-review", 820)
    page.keyboard.press("1")  # the first of the other proposals
    page.wait_for_timeout(500)
    page.keyboard.press("Enter")
    expect(page.locator(".counts")).to_contain_text("1 corrected")
    page.keyboard.press("a")
    expect(page.locator(".counts")).to_contain_text("1 accepted")
    page.get_by_role("button", name="Make a new version and train again").click()
    page.get_by_role("button", name="Make the version").click()
    again = train(page, "again", epochs)

    page.goto(f"{url}/#/jobs/{again}/results")
    page.get_by_role("button", name="Make the export").click()
    expect(page.get_by_role("button", name="Download COCO, RLE")).to_be_visible()
    page.get_by_role("button", name="Download COCO, RLE").scroll_into_view_if_needed()
    page.wait_for_timeout(500)
    png = page.screenshot()
    Image.open(io.BytesIO(png)).convert("RGB").save(FOLDER / "7-export.jpg", quality=82)


def main() -> None:
    """Run the tour."""
    parser = argparse.ArgumentParser(description="Make the images of docs/tutorial.md.")
    parser.add_argument("--epochs", type=int, help="fewer than the preset's, for a quick look")
    epochs = parser.parse_args().epochs
    program = next(filter(None, map(shutil.which, ("chromium", "chromium-browser"))), None)
    assert program, "no chromium is installed: tests/servers.sh chromium"
    expect.set_options(timeout=PATIENCE)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # so that the service ends with it
    with (
        tempfile.TemporaryDirectory() as folder,
        service(Path(folder)) as url,
        sync_playwright() as playwright,
    ):
        browser = playwright.chromium.launch(executable_path=program, args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": 1280, "height": 800}, color_scheme="light")
        page.set_default_timeout(PATIENCE)
        tour(page, url, Path(folder), epochs)
        browser.close()


if __name__ == "__main__":
    main()
