"""The grid of what a training left, one image large, exports and downloads."""

import json
import zipfile
from pathlib import Path
from typing import Any

from playwright.sync_api import Page, expect
from pycocotools.coco import COCO

DRAWN = """(node) => {
  const { data } = node.getContext('2d').getImageData(0, 0, node.width, node.height);
  return new Set(new Uint32Array(data.buffer)).size;
}"""


def shown(page: Page) -> list[str]:
    """The images of the grid, once they are drawn."""
    cards = page.locator(".photo")
    expect(cards.first).to_be_visible()
    for card in cards.all():
        expect(card.locator(".caption .hint")).to_contain_text("mask")
        assert card.locator("canvas").evaluate(DRAWN) > 100
    return [text.split()[0] for text in cards.all_inner_texts()]


def by_worst(masks: list[dict[str, Any]]) -> list[str]:
    return list(dict.fromkeys(f"scene-{m['image_id']:05d}.png" for m in masks))


def test_the_grid_shows_the_worst_first_and_filters(ui: Any, trained: Any) -> None:
    page = ui.open(f"/jobs/{trained.job}/results")
    assert shown(page) == by_worst(trained.queue())
    expect(page.get_by_text(f"{trained.masks} masks, the worst quality first")).to_be_visible()
    expect(page.locator(".figure").first).to_contain_text("0.500")
    ui.looks("results")

    kind = trained.queue()[0]["category_id"]
    page.get_by_label("Class").select_option(str(kind))
    few = by_worst(trained.queue(category_id=kind))
    expect(page.locator(".photo")).to_have_count(len(few))
    assert shown(page) == few
    page.get_by_label("Class").select_option("")
    page.get_by_label("Quality at most").fill("0.4")
    few = by_worst(trained.queue(max_quality=0.4))
    expect(page.locator(".photo")).to_have_count(len(few))
    assert shown(page) == few
    page.reload()
    ui.settled()
    assert shown(page) == few, "the filter is in the address"
    page.get_by_label("Status").select_option("rejected")
    expect(page.locator(".empty").first).to_contain_text("No mask is like that")


def test_one_image_large_by_keys(ui: Any, trained: Any) -> None:
    page = ui.open(f"/jobs/{trained.job}/results")
    names = shown(page)
    page.locator(".photo").first.focus()
    page.keyboard.press("Enter")
    dialog = page.locator("dialog")
    title = dialog.locator(".title")
    expect(title).to_have_text(f"{names[0]} (1 of {len(names)})")
    expect(dialog.locator(".object").first).to_be_visible()
    plain = dialog.locator("canvas").screenshot()
    page.keyboard.press("ArrowDown")
    expect(dialog.locator(".object").first).to_have_attribute("aria-pressed", "true")
    for key, name in (("3", "Proposals"), ("4", "Picked"), ("5", "Refined")):
        page.keyboard.press(key)
        expect(dialog.get_by_label(name)).to_be_checked()
    page.keyboard.press("1")
    expect(dialog.get_by_label("Delivered")).not_to_be_checked()
    page.keyboard.press("1")
    page.wait_for_timeout(100)
    assert dialog.locator("canvas").screenshot() != plain
    ui.looks("large")
    page.keyboard.press("ArrowRight")
    expect(title).to_have_text(f"{names[1]} (2 of {len(names)})")
    page.keyboard.press("ArrowLeft")
    page.keyboard.press("ArrowLeft")
    expect(title).to_have_text(f"{names[0]} (1 of {len(names)})")
    page.keyboard.press("Escape")
    expect(dialog).to_have_count(0)
    expect(page.locator(".photo").first).to_be_focused()


def test_an_export_is_made_watched_and_taken_away(ui: Any, trained: Any, tmp_path: Path) -> None:
    page = ui.open(f"/jobs/{trained.job}/results")
    page.get_by_role("button", name="Export", exact=True).click()
    expect(page.get_by_label("Format")).to_be_focused()
    page.get_by_role("button", name="Make the export").click()
    made = page.get_by_role("button", name="Download COCO, RLE")
    with page.expect_download() as download:
        made.click()
    path = tmp_path / download.value.suggested_filename
    download.value.save_as(path)
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            name = next(n for n in archive.namelist() if n.endswith(".json"))
            archive.extract(name, tmp_path)
            path = tmp_path / name
    assert len(COCO(path).getAnnIds()) == trained.masks
    expect(page.get_by_text("Read back, every mask is the same")).to_be_visible()

    rejected = trained.queue()[-1]
    trained.reject(rejected)
    page.get_by_label("Format").select_option("yolo-seg")
    page.get_by_label("Simplify polygons by").fill("2")
    page.get_by_label("Quality threshold").fill("0.5")
    page.get_by_role("button", name="Make the export").click()
    expect(page.get_by_role("button", name="Download YOLO")).to_be_visible(timeout=30_000)
    expect(page.get_by_text("Read back, a mask keeps")).to_be_visible()
    kept = [m for m in trained.queue() if m["quality"] >= 0.5 and m["id"] != rejected["id"]]
    expect(page.locator("li.card").first).to_contain_text(f"{len(kept)} masks")
    expect(page.get_by_text("1 rejected mask stayed behind")).to_be_visible()
    ui.looks("exports")
    page.reload()
    ui.settled()
    expect(page.get_by_role("button", name="Download")).to_have_count(2)


def test_all_masks_as_lines(ui: Any, trained: Any) -> None:
    page = ui.open(f"/jobs/{trained.job}/results")
    with page.expect_download() as download:
        page.get_by_role("button", name="NDJSON").click()
    lines = Path(download.value.path()).read_text().splitlines()
    assert {json.loads(line)["id"] for line in lines} == {m["id"] for m in trained.queue()}


def test_a_job_without_results_says_so(ui: Any, service: Any, trained: Any) -> None:
    ui.expected.append("There are no results")
    ui.expected.append("ApiError")
    job = service.job(trained.dataset, overrides={"train.epochs": 1}, wait=False)
    service.ask(f"/jobs/{job}/cancel", {}, "POST")
    page = ui.open(f"/jobs/{job}/results")
    expect(page.locator("main")).to_contain_text("There are no results")
