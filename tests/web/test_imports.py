"""Data sets that a worker imports: progress moves on the page, and what is wrong is listed."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import expect

from .conftest import Service, make_image
from .editing import drop


@pytest.fixture(scope="module")
def shared_service(start_service: Callable[..., Service]) -> Service:
    """Whatever its size, a worker imports it."""
    return start_service(sync_import_bytes="0")


def send(ui: Any, folder: Path, images: int, image_id: int = 1) -> None:
    document = {
        "images": [{"id": i, "file_name": f"{i}.png"} for i in range(1, images + 1)],
        "categories": [{"id": 1, "name": "cell"}],
        "annotations": [{"id": 1, "image_id": image_id, "category_id": 1, "point": [5, 5]}],
    }
    path = folder / "mine.json"
    path.write_text(json.dumps(document))
    paths = [make_image(folder / f"{i}.png", seed=i) for i in range(1, images + 1)]
    page = ui.open("/datasets/new")
    drop(page, path, *paths)
    page.get_by_role("button", name="Create the data set").click()


def test_an_import_is_followed_to_its_end(ui: Any, tmp_path: Path) -> None:
    send(ui, tmp_path, images=4)
    page = ui.page
    expect(page.locator("h1")).to_have_text("mine")
    expect(page.locator(".badge").first).to_have_text("ready")
    expect(page.locator(".tile")).to_have_count(4)
    ui.open("/jobs")
    expect(page.locator("article").first).to_contain_text("import")
    page.locator("article a").first.click()
    expect(page.locator(".stepper li[data-state=done]")).to_have_count(4)  # it has no truth
    page.get_by_role("link", name="To the data set").click()
    expect(page.locator(".tile")).to_have_count(4)


def test_progress_of_an_import_is_shown(ui: Any) -> None:
    """One that has come to the half: as the list and the data set's own view tell it."""
    importing = {
        "id": "0" * 32,
        "name": "large",
        "status": "importing",
        "parent_id": None,
        "created_at": "2026-01-01T00:00:00Z",
        "images": 0,
        "annotations": 0,
    }
    progress = {
        "job_id": "1" * 32,
        "state": "running",
        "stage": "images",
        "step": 500,
        "of": 1000,
        "progress": 0.45,
        "error": None,
    }
    whole = {**importing, "categories": [], "report": {"progress": progress}}
    page = ui.page
    page.route("**/datasets?*", lambda r: r.fulfill(json={"datasets": [importing], "next": None}))
    page.route("**/datasets/000*", lambda r: r.fulfill(json=whole))
    ui.open("/datasets")
    expect(page.locator("article progress")).to_have_js_property("value", 0.45)
    expect(page.locator("article")).to_contain_text("images, 45 %")
    ui.looks("importing-list")
    ui.page.get_by_role("link", name="large").click()
    expect(page.locator("main")).to_contain_text("images, 500 of 1000")
    ui.looks("importing")


def test_what_was_wrong_with_an_import_is_listed(ui: Any, tmp_path: Path) -> None:
    send(ui, tmp_path, images=1, image_id=9)
    page = ui.page
    expect(page.locator(".badge").first).to_have_text("invalid")
    expect(page.locator(".problem")).to_contain_text("there is no image with id 9")
    expect(page.get_by_role("button", name="Train")).to_have_count(0)
    ui.looks("invalid")
    ui.open("/datasets")
    expect(page.locator("article").first).to_contain_text("1 fault")
