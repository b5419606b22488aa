"""The review: one mask at a time, by keys, by points and by a brush."""

import re
from typing import Any

import pytest
from playwright.sync_api import Request, expect
from pycocotools import mask as coco_mask

from .reviewing import at, centre, counted, iou, other_half, saved


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
