"""The review: one mask at a time, by keys, by points and by a brush."""

import re
import time
from collections.abc import Callable
from typing import Any

import pytest
from playwright.sync_api import Page, Request, expect
from pycocotools import mask as coco_mask


@pytest.fixture
def review(ui: Any, trained: Any) -> Callable[..., Page]:
    def open(query: str = "") -> Page:
        page = ui.open(f"/jobs/{trained.job}/review{query}")
        page.wait_for_selector(".proposal[data-drawn]")
        return page

    return open


def iou(one: dict[str, Any], other: dict[str, Any]) -> float:
    return float(coco_mask.iou([one], [other], [0])[0, 0])


def at(page: Page, point: list[float], mask: dict[str, Any]) -> tuple[float, float]:
    """Where this place of the picture is on screen, with the object in view."""
    place = page.evaluate(
        """async ([rle, point, at]) => {
          const { shapeOf } = await import('/web/overlay.js');
          const canvas = document.querySelector('.reviewing .viewer > canvas');
          const r = canvas.getBoundingClientRect();
          const [x, y, w, h] = shapeOf(rle).box;
          const left = Math.min(x, point[0]), top = Math.min(y, point[1]);
          const right = Math.max(x + w, point[0]), bottom = Math.max(y + h, point[1]);
          const air = 0.1 * Math.max(right - left, bottom - top, 16);
          const side = Math.max(right - left + 2 * air, bottom - top + 2 * air, 8) * 1.8;
          const scale = Math.min(64, r.width / side, r.height / side);
          const [height, width] = rle.size;
          const placed = (at, length, room) =>
            length <= room ? (room - length) / 2 : Math.min(0, Math.max(room - length, at));
          const dx = placed(r.width / 2 - ((left + right) / 2) * scale, width * scale, r.width);
          const dy = placed(r.height / 2 - ((top + bottom) / 2) * scale, height * scale, r.height);
          return [r.left + dx + at[0] * scale, r.top + dy + at[1] * scale];
        }""",
        [mask["segmentation"], mask["point"], point],
    )
    return place[0], place[1]


def centre(rle: dict[str, Any]) -> list[float]:
    """A pixel in the middle of what is inside."""
    mask = coco_mask.decode(rle)
    columns = mask.any(0).nonzero()[0]
    x = int(columns[len(columns) // 2])
    rows = mask[:, x].nonzero()[0]
    return [x + 0.5, int(rows[len(rows) // 2]) + 0.5]


def other_half(mask: dict[str, Any]) -> list[float]:
    """A place of the object that its mask, half of it, lacks."""
    whole, half = (
        coco_mask.decode(r) for r in (mask["candidates"][0]["segmentation"], mask["segmentation"])
    )
    return centre(coco_mask.encode((whole & (1 - half)).copy(order="F")))


def saved(trained: Any, mask: dict[str, Any], status: str) -> dict[str, Any]:
    """The mask, once the service has it in this status."""
    deadline = time.monotonic() + 15
    while (now := trained.mask(mask["mask_id"]))["status"] != status:
        assert time.monotonic() < deadline, now["status"]
        time.sleep(0.05)
    return now


def counted(page: Page, text: str) -> None:
    expect(page.locator(".counts")).to_contain_text(text)


def test_accept_reject_choose_and_undo_by_keys(ui: Any, review: Any, trained: Any) -> None:
    page, masks = review(), trained.queue()
    heading = page.locator(".reviewing h2").first
    expect(heading).to_contain_text(str(masks[0]["id"]))
    ui.looks("review")
    page.keyboard.press("a")
    expect(heading).to_contain_text(str(masks[1]["id"]))
    assert trained.mask(masks[0]["mask_id"])["status"] == "accepted"
    page.keyboard.press("r")
    expect(heading).to_contain_text(str(masks[2]["id"]))
    assert trained.mask(masks[1]["mask_id"])["status"] == "rejected"
    page.keyboard.press("1")
    expect(page.locator(".proposal").first).to_have_attribute("aria-pressed", "true")
    assert trained.mask(masks[2]["mask_id"])["status"] == "open", "nothing is saved before Enter"
    page.keyboard.press("Enter")
    expect(heading).to_contain_text(str(masks[3]["id"]))
    now = trained.mask(masks[2]["mask_id"])
    assert now["status"] == "corrected"
    assert now["segmentation"] == masks[2]["candidates"][0]["segmentation"]
    for text in (f"{trained.masks - 3} open", "1 accepted", "1 corrected", "1 rejected"):
        counted(page, text)
    page.keyboard.press("z")
    expect(heading).to_contain_text(str(masks[2]["id"]))
    saved(trained, masks[2], "open")
    counted(page, "0 corrected")
    page.keyboard.press("ArrowLeft")
    expect(heading).to_contain_text(str(masks[1]["id"]))
    expect(page.locator(".reviewing .badge").first).to_have_text("rejected")
    page.keyboard.press("ArrowRight")
    expect(heading).to_contain_text(str(masks[2]["id"]))


def test_enter_without_a_change_decides_nothing(review: Any, trained: Any) -> None:
    page, masks = review(), trained.queue()
    page.keyboard.press("Enter")
    expect(page.locator(".reviewing h2").first).to_contain_text(str(masks[1]["id"]))
    assert trained.mask(masks[0]["mask_id"])["revision"] == 0


def test_a_point_gives_another_mask_at_once(ui: Any, review: Any, trained: Any) -> None:
    page = review()
    mask = trained.queue()[0]
    truth = mask["candidates"][0]["segmentation"]
    asked: list[Request] = []
    page.on("request", lambda r: asked.append(r) if r.url.endswith("/suggest") else None)
    page.keyboard.press("+")
    expect(page.get_by_role("button", name="Add here")).to_have_attribute("aria-pressed", "true")
    with page.expect_response(re.compile("/suggest$")):
        page.mouse.click(*at(page, other_half(mask), mask))
    expect(page.get_by_role("button", name="Save and next")).to_be_enabled()
    expect(page.locator(".thinking")).to_be_hidden()
    ui.shot("review-point")
    assert asked[0].post_data_json["points"] == [
        {
            "x": pytest.approx(other_half(mask)[0], abs=0.6),
            "y": pytest.approx(other_half(mask)[1], abs=0.6),
            "positive": True,
        }
    ]
    page.keyboard.press("Enter")
    now = saved(trained, mask, "corrected")
    assert iou(now["segmentation"], truth) > iou(mask["segmentation"], truth) + 0.1


def test_of_quick_clicks_the_last_question_wins(review: Any, trained: Any) -> None:
    page = review()
    mask = trained.queue()[0]
    x, y = at(page, other_half(mask), mask)
    asked: list[Request] = []
    page.on("request", lambda r: asked.append(r) if r.url.endswith("/suggest") else None)
    page.get_by_role("button", name="Add here").click()
    page.mouse.click(x, y)
    page.mouse.click(x + 8, y)
    with page.expect_response(lambda r: r.url.endswith("/suggest") and r.ok):
        page.mouse.click(x, y + 8, button="right")  # of what is not the object
    expect(page.locator(".thinking")).to_be_hidden()
    points = asked[-1].post_data_json["points"]
    assert [p["positive"] for p in points] == [True, True, False]
    assert asked[-1].post_data_json["segmentation"] == mask["segmentation"]
    for _ in range(3):
        page.keyboard.press("z")
    expect(page.get_by_role("button", name="Save and next")).to_be_disabled()


def test_by_keyboard_alone(review: Any, trained: Any) -> None:
    """A point with the crosshair, then strokes of the brush, then undo."""
    page = review()
    mask = trained.queue()[0]
    page.keyboard.press("+")
    for key in ("ArrowRight", "ArrowDown", "ArrowRight"):
        page.keyboard.press(key)
    with page.expect_response(re.compile("/suggest$")):
        page.keyboard.press("Space")
    save = page.get_by_role("button", name="Save and next")
    expect(page.locator(".thinking")).to_be_hidden()
    page.keyboard.press("z")
    expect(save).to_be_disabled()
    page.keyboard.press("b")
    page.keyboard.press("]")
    for key in ("ArrowRight", "Space", "Shift+ArrowRight", "Space", "Escape"):
        page.keyboard.press(key)
    expect(page.get_by_role("button", name="Brush")).to_have_attribute("aria-pressed", "false")
    expect(save).to_be_enabled()
    page.keyboard.press("a")
    now = saved(trained, mask, "corrected")
    assert now["area"] > mask["area"]


def test_the_brush_paints_and_erases(ui: Any, review: Any, trained: Any) -> None:
    page = review()
    mask = trained.queue()[0]
    x, y = at(page, other_half(mask), mask)
    page.get_by_role("button", name="Brush").click()
    page.mouse.move(x, y)
    page.mouse.down()
    page.mouse.move(x + 30, y + 20, steps=6)
    ui.shot("review-brush")
    page.mouse.up()
    page.keyboard.press("e")
    page.mouse.click(*at(page, centre(mask["segmentation"]), mask))
    page.keyboard.press("Enter")
    now = saved(trained, mask, "corrected")
    before, after = (coco_mask.decode(m["segmentation"]) for m in (mask, now))
    (px, py), (qx, qy) = (map(int, p) for p in (other_half(mask), centre(mask["segmentation"])))
    assert (before[py, px], after[py, px]) == (0, 1)
    assert (before[qy, qx], after[qy, qx]) == (1, 0)


def test_who_was_faster_is_told(ui: Any, review: Any, trained: Any) -> None:
    page = review()
    mask = trained.queue()[0]
    trained.reject(mask)
    ui.expected.append("412")
    page.keyboard.press("2")
    page.keyboard.press("Enter")
    expect(page.locator(".toast")).to_contain_text("faster: this mask is rejected now")
    expect(page.locator(".reviewing .badge").first).to_have_text("rejected")
    counted(page, "1 rejected")
    now = trained.mask(mask["mask_id"])
    assert (now["status"], now["revision"]) == ("rejected", 1)
    page.keyboard.press("a")
    assert saved(trained, mask, "accepted")["revision"] == 2


def test_the_end_of_the_queue(ui: Any, review: Any, trained: Any) -> None:
    page = review("?quality=0.4")
    few = trained.queue(max_quality=0.4)
    for number, mask in enumerate(few, 1):
        page.keyboard.press("a")
        counted(page, f"{number} accepted")
        assert trained.mask(mask["mask_id"])["status"] == "accepted"
    expect(page.locator(".ended")).to_contain_text("The end of this queue")
    ui.looks("review-end")
    page.get_by_role("button", name="Back to the last one").click()
    expect(page.locator(".reviewing h2").first).to_contain_text(str(few[-1]["id"]))


def test_one_mask_is_named_in_the_address(review: Any, trained: Any) -> None:
    last = trained.queue()[-1]
    page = review(f"?mask={last['mask_id']}")
    expect(page.locator(".reviewing h2").first).to_contain_text(str(last["id"]))
