"""Data sets: the list, a new one from dropped images, the point editor, errors, new versions."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Page, expect

from .conftest import make_image
from .editing import at, click, drop, points

KEPT = (
    "import('/web/core/store.js').then((s) => s.load('new')).then((d) => d?.state.name === 'kept')"
)
CREATED = re.compile(r"#/datasets/[0-9a-f]{32}$")


def started(ui: Any, tmp_path: Path, images: int = 3) -> Page:
    """A draft with images, in the editor."""
    page = ui.open("/datasets/new")
    drop(page, *(make_image(tmp_path / f"{i}.png", seed=i) for i in range(images)))
    expect(page.locator(".strip li")).to_have_count(images)
    expect(page.locator(".editor .level")).not_to_be_empty()
    page.wait_for_timeout(150)
    return page


def test_images_are_dropped_points_clicked_and_a_data_set_is_there(ui, tmp_path: Path) -> None:
    page = started(ui, tmp_path)
    click(page, 23.2, 26.5)
    click(page, 53.2, 26.5)
    assert [p.split(",")[0] for p in points(page)] == ["object at 23", "object at 53"]
    page.get_by_label("Name of a new class").fill("dust")
    page.get_by_label("Name of a new class").press("Enter")
    page.get_by_label("Next image").click()
    page.wait_for_timeout(200)
    click(page, 100, 70)
    assert points(page) == ["dust at 100, 70"]
    ui.looks("editor")
    page.get_by_label("Name", exact=True).fill("twelve cells")
    page.get_by_role("button", name="Create the data set").click()
    page.wait_for_url(CREATED)
    ui.settled()
    assert page.locator("h1").inner_text() == "twelve cells"
    dataset = ui.service.ask(f"/datasets/{page.url.rsplit('/', 1)[1]}")
    assert [c["name"] for c in dataset["categories"]] == ["object", "dust"]
    assert [c["annotations"] for c in dataset["categories"]] == [2, 1]
    assert dataset["images"] == 3
    page.goto(f"{ui.service.url}/#/datasets/new")
    ui.settled()
    expect(page.locator(".strip li")).to_have_count(0)  # the draft is spent


def test_points_by_keys_alone(ui, tmp_path: Path) -> None:
    """No mouse from the image on: crosshair, place, classes, take up, remove, undo, images."""
    page = started(ui, tmp_path)
    page.locator(".editor canvas").focus()
    keys = page.keyboard
    keys.press("ArrowRight")  # the crosshair comes up in the middle
    keys.press("Enter")
    assert points(page) == ["object at 60, 40"]
    keys.press("Shift+ArrowLeft")
    keys.press("Enter")  # within reach of the first: takes it up
    for _ in range(20):
        keys.press("Shift+ArrowUp")
    keys.press("Enter")  # and sets it down
    assert points(page) == ["object at 59, 20"]
    keys.press("Control+z")
    assert points(page) == ["object at 60, 40"]
    keys.press("Control+y")
    assert points(page) == ["object at 59, 20"]
    for _ in range(15):
        keys.press("ArrowDown")
    keys.press("Enter")
    assert len(points(page)) == 2
    keys.press("[")
    keys.press("Delete")
    assert len(points(page)) == 1
    keys.press("n")
    page.wait_for_timeout(150)
    assert points(page) == []
    keys.press("Control+z")  # back on the first image, where the change was
    assert len(points(page)) == 2
    assert page.locator(".thumb[aria-current]").get_attribute("aria-label") == "0.png, 2 points"
    keys.press("Tab")
    focused = "!document.activeElement.matches('.editor canvas')"
    assert page.evaluate(focused), "the image must not hold the focus"


def test_classes_by_number_drag_and_right_click(ui, tmp_path: Path) -> None:
    page = started(ui, tmp_path, images=1)
    for name in ("dust", "debris"):
        page.get_by_label("Name of a new class").fill(name)
        page.get_by_label("Add the class").click()
    click(page, 20, 20)
    page.keyboard.press("2")
    click(page, 60, 20)
    page.keyboard.press("1")
    click(page, 90, 60)
    assert [p.split(" at ")[0] for p in points(page)] == ["debris", "dust", "object"]
    page.mouse.move(*at(page, 60, 20))
    page.mouse.down()
    page.mouse.move(*at(page, 70, 50), steps=4)
    page.mouse.up()
    assert points(page)[1] == "dust at 70, 50"
    click(page, 20, 20, button="right")
    assert len(points(page)) == 2
    before = page.locator(".level").inner_text()
    page.mouse.wheel(0, -400)
    expect(page.locator(".level")).not_to_have_text(before)
    page.keyboard.press("0")
    expect(page.locator(".level")).to_have_text(before)
    page.mouse.move(*at(page, 100, 10))
    page.mouse.down()
    page.mouse.move(*at(page, 80, 40), steps=4)  # a drag beside the points moves the image
    page.mouse.up()
    assert len(points(page)) == 2
    assert page.get_by_label("Remove class dust").is_disabled()
    page.get_by_label("Remove class debris").click()
    expect(page.locator(".classes li")).to_have_count(2)


def test_fingers_tap_points_and_pinch(ui, tmp_path: Path) -> None:
    """A tap is a point; two fingers that spread zoom in, and leave no point behind."""
    page = started(ui, tmp_path, images=1)
    touch = page.context.new_cdp_session(page)

    def fingers(kind: str, *where: tuple[float, float]) -> None:
        spots = [{"x": x, "y": y, "id": n} for n, (x, y) in enumerate(where)]
        touch.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": spots})

    x, y = at(page, 60, 40)
    fingers("touchStart", (x, y))
    fingers("touchEnd")
    expect(page.locator(".points li")).to_have_count(1)
    level = float(page.locator(".level").inner_text().removesuffix(" %"))
    fingers("touchStart", (x - 20, y + 90))
    fingers("touchStart", (x - 20, y + 90), (x + 20, y + 90))
    for step in range(1, 5):
        fingers("touchMove", (x - 20 - 10 * step, y + 90), (x + 20 + 10 * step, y + 90))
    fingers("touchEnd")
    expect(page.locator(".points li")).to_have_count(1)
    assert float(page.locator(".level").inner_text().removesuffix(" %")) > 1.5 * level


def test_a_draft_survives_a_reload(ui, tmp_path: Path) -> None:
    page = started(ui, tmp_path)
    click(page, 23.5, 26.5)
    page.get_by_label("Name", exact=True).fill("kept")
    while not page.evaluate(KEPT):  # it is written beside what a person does
        page.wait_for_timeout(50)
    page.reload()
    ui.settled()
    expect(page.locator(".strip li")).to_have_count(3)
    assert len(points(page)) == 1
    assert page.get_by_label("Name", exact=True).input_value() == "kept"
    expect(page.locator(".thumb img").first).to_have_js_property("naturalWidth", 120)
    ui.open("/datasets")
    expect(page.locator(".note")).to_contain_text("A draft waits: 3 images, 1 point.")
    ui.open("/datasets/new")
    page.get_by_role("button", name="Start over").click()
    page.get_by_role("button", name="Throw it away").click()
    expect(page.locator(".strip li")).to_have_count(0)
    ui.open("/datasets")
    expect(page.locator(".note")).to_have_count(0)


def test_every_error_stands_beside_what_it_concerns(ui, tmp_path: Path) -> None:
    """The service refuses; each fault names its image, point or class, and leads there."""
    ui.expected.append("422")
    page = started(ui, tmp_path)
    click(page, 20, 20)
    click(page, 60, 20)
    faults = [
        {
            "part": "annotations",
            "pointer": "/annotations/1/point",
            "detail": "far out",
            "hint": "in",
        },
        {"part": "annotations", "pointer": "/images/2", "detail": "an odd size", "hint": ""},
        {"part": "annotations", "pointer": "/categories/0/name", "detail": "no text", "hint": "x"},
        {"part": "images", "pointer": "", "detail": "the file '1.png' is no image", "hint": ""},
        {"part": "name", "pointer": "", "detail": "too long", "hint": "shorten it"},
    ]
    told = {"title": "The input is not usable", "status": 422, "detail": "…", "errors": faults}
    kind = "application/problem+json"
    page.route(
        "**/datasets", lambda r: r.fulfill(status=422, body=json.dumps(told), content_type=kind)
    )
    page.get_by_role("button", name="Create the data set").click()
    items = page.locator(".faults li")
    expect(items).to_have_count(5)
    said = [text.split("\n")[0] for text in items.all_inner_texts()]
    assert said == [
        "a point on 0.png: far out",
        "2.png: an odd size",
        "class object: no text",
        "1.png: the file '1.png' is no image",
        "too long",
    ]
    ui.looks("editor-errors")
    items.nth(1).get_by_role("button").click()
    expect(page.locator(".thumb[aria-current]")).to_have_attribute("aria-label", "2.png, 0 points")
    items.nth(0).get_by_role("button").click()
    expect(page.locator(".points [aria-pressed=true]")).to_contain_text("at fault")
    expect(page.locator(".strip .wrong")).to_have_count(3)
    assert page.locator(".classes input[aria-invalid=true]").count() == 1


def test_a_real_refusal_is_listed(ui, tmp_path: Path) -> None:
    """Two classes of one name and a wrong file: what the service itself says."""
    ui.expected.append("422")
    document = {
        "images": [{"id": 1, "file_name": "0.png"}, {"id": 2, "file_name": "none.png"}],
        "categories": [{"id": 1, "name": "a"}],
        "annotations": [{"id": 1, "image_id": 9, "category_id": 1, "point": [5, 5]}],
    }
    path = tmp_path / "points.json"
    path.write_text(json.dumps(document))
    page = ui.open("/datasets/new")
    drop(page, path, make_image(tmp_path / "0.png"))
    page.get_by_role("button", name="Create the data set").click()
    box = page.locator(".problem")
    expect(box).to_contain_text("there is no image with id 9")
    expect(box).to_contain_text("none.png")
    ui.looks("import-errors")


def test_a_coco_file_is_sent_as_it_is(ui, tmp_path: Path) -> None:
    document = {
        "images": [{"id": 1, "file_name": "0.png"}],
        "categories": [{"id": 1, "name": "a"}],
        "annotations": [{"id": 1, "image_id": 1, "category_id": 1, "point": [5, 5]}],
    }
    path = tmp_path / "mine.json"
    path.write_text(json.dumps(document))
    page = ui.open("/datasets")
    drop(page, path, make_image(tmp_path / "0.png"))
    page.wait_for_url("**/datasets/new")
    page.get_by_role("button", name="Create the data set").click()
    expect(page.locator("h1")).to_have_text("mine")
    expect(page.locator(".tile")).to_have_count(1)


def test_what_is_no_image_is_said(ui, tmp_path: Path) -> None:
    page = ui.open("/datasets/new")
    (tmp_path / "broken.png").write_bytes(b"no image at all")
    (tmp_path / "notes.txt").write_text("notes")
    good = make_image(tmp_path / "good.png")
    drop(page, tmp_path / "broken.png", tmp_path / "notes.txt", good, good)
    expect(page.locator(".strip li")).to_have_count(1)
    expect(page.locator(".toast")).to_contain_text("broken.png")
    expect(page.locator(".toast")).to_contain_text("notes.txt")


def test_images_are_shown_as_stored_whatever_exif_says(ui, tmp_path: Path) -> None:
    from PIL import Image

    image = Image.new("RGB", (120, 80), (90, 20, 20))
    exif = Image.Exif()
    exif[0x0112] = 6  # turned by a quarter
    image.save(tmp_path / "turned.jpg", exif=exif)
    page = ui.open("/datasets/new")
    drop(page, tmp_path / "turned.jpg")
    expect(page.locator(".strip li")).to_have_count(1)
    expect(page.locator(".editor .level")).not_to_be_empty()
    page.wait_for_timeout(200)
    click(page, 110, 70)
    assert points(page) == ["object at 110, 70"]
    page.get_by_role("button", name="Create the data set").click()
    expect(page.locator("h1")).to_have_text("points")
    size = "e => [e.naturalWidth, e.naturalHeight]"
    expect(page.locator(".tile img")).to_have_js_property("complete", True)
    assert page.locator(".tile img").evaluate(size)


def test_the_list_and_a_data_set(ui) -> None:
    dataset = ui.service.dataset("under glass", images=5)
    page = ui.open("/datasets")
    expect(page.locator(".datasets .card").first).to_contain_text("under glass")
    ui.looks("datasets")
    page.get_by_role("link", name="under glass").first.click()
    expect(page.locator(".tile")).to_have_count(5)
    expect(page.locator(".dots circle")).to_have_count(10)
    ui.looks("dataset")
    page.locator(".tile").first.click()
    expect(page.locator("dialog canvas")).to_be_visible()
    ui.looks("dataset-large")
    page.keyboard.press("Escape")
    assert dataset in page.url


def test_edited_points_are_a_new_version(ui) -> None:
    dataset = ui.service.dataset("first", images=2)
    page = ui.open(f"/datasets/{dataset}/edit")
    expect(page.locator(".editor .level")).not_to_be_empty()
    page.wait_for_timeout(300)
    before = len(points(page))
    click(page, 100, 70)
    assert len(points(page)) == before + 1
    ui.looks("edit")
    page.get_by_role("button", name="Save as a new version").click()
    expect(page.locator("h1")).to_have_text("first, corrected")
    version = ui.service.ask(f"/datasets/{page.url.rsplit('/', 1)[1]}")
    assert version["parent_id"] == dataset
    assert version["annotations"] == 5
    assert ui.service.ask(f"/datasets/{dataset}")["annotations"] == 4


@pytest.mark.parametrize("answer", ["Back", "Delete"])
def test_deleting_asks_first(ui, answer: str) -> None:
    dataset = ui.service.dataset("to go")
    page = ui.open(f"/datasets/{dataset}")
    page.get_by_role("button", name="Delete").click()
    page.locator("dialog").get_by_role("button", name=answer, exact=True).click()
    if answer == "Delete":
        page.wait_for_url("**/#/datasets")
    there = [d["id"] for d in ui.service.ask("/datasets")["datasets"]]
    assert (dataset in there) == (answer == "Back")
