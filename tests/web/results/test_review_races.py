"""What is shown when a key is pressed is what is decided, however late the service answers; and
nothing that was changed is lost unasked."""

import re
from typing import Any

import pytest
from playwright.sync_api import Dialog, Page, expect
from pycocotools import mask as coco_mask

from ..holding import Held
from .reviewing import at, centre, counted, other_half, saved, shown

SUGGEST, DECIDE = ("POST", "/suggest$"), ("PATCH", "/masks/[^/]+$")


def edit(page: Page) -> None:
    """The first proposal is taken, not saved."""
    page.keyboard.press("1")
    expect(save(page)).to_be_enabled()


def save(page: Page) -> Any:
    return page.get_by_role("button", name="Save and next")


def answer(page: Page, verb: str) -> None:
    page.locator("dialog").get_by_role("button", name=verb, exact=True).click()
    expect(page.locator("dialog")).to_have_count(0)


def click_and_wait(page: Page, mask: dict[str, Any], asked: Held) -> None:
    """A point whose answer is held back."""
    page.keyboard.press("+")
    page.mouse.click(*at(page, other_half(mask), mask))
    asked.came()


@pytest.mark.parametrize("key", ["a", "Enter"])
def test_the_mask_of_the_key_press_is_decided(review: Any, trained: Any, key: str) -> None:
    page, masks = review(), trained.queue()
    asked = Held(page, *SUGGEST)
    click_and_wait(page, masks[0], asked)
    page.keyboard.press(key)
    page.get_by_role("button", name="Next mask").click()
    shown(page, masks[1])
    asked.let_go()
    counted(page, "1 corrected")
    now = saved(trained, masks[0], "corrected")
    x, y = map(int, other_half(masks[0]))
    assert coco_mask.decode(now["segmentation"])[y, x], "the click that was awaited is in it"
    assert trained.mask(masks[1]["mask_id"])["revision"] == 0
    shown(page, masks[1])


def test_a_mask_is_decided_once(review: Any, trained: Any) -> None:
    page, masks = review(), trained.queue()
    sent = Held(page, *DECIDE)
    for key in ("a", "r", "a", "Enter", "z"):
        page.keyboard.press(key)
    sent.came()
    sent.let_go()
    shown(page, masks[1])
    counted(page, f"{trained.masks - 1} open")
    assert [body["decision"] for body in sent.bodies] == ["accept"]
    assert trained.mask(masks[0]["mask_id"])["status"] == "accepted"
    page.keyboard.down("r")
    shown(page, masks[2])
    page.keyboard.down("r")  # held down: it repeats
    page.keyboard.up("r")
    page.keyboard.press("h")
    expect(page.get_by_role("button", name="Hide the mask")).to_have_attribute(
        "aria-pressed", "true"
    )
    assert [body["decision"] for body in sent.bodies] == ["accept", "reject"]


def test_who_has_moved_on_stays_there(review: Any, trained: Any) -> None:
    page, masks = review(), trained.queue()
    sent = Held(page, *DECIDE)
    page.keyboard.press("a")
    sent.came()
    page.keyboard.press("ArrowRight")
    shown(page, masks[1])
    page.keyboard.press("r")
    sent.came(2)
    assert [masks[i]["mask_id"] in sent.addresses[i] for i in (0, 1)] == [True, True]
    page.keyboard.press("ArrowRight")
    shown(page, masks[2])
    sent.let_go()
    for text in ("1 accepted", "1 rejected", f"{trained.masks - 2} open"):
        counted(page, text)
    shown(page, masks[2])
    assert saved(trained, masks[0], "accepted")["revision"] == 1
    assert saved(trained, masks[1], "rejected")["revision"] == 1


def test_an_undo_that_fails_changes_no_place(ui: Any, review: Any, trained: Any) -> None:
    page, masks = review(), trained.queue()
    page.keyboard.press("a")
    shown(page, masks[1])
    ui.expected.append("503")
    sent = Held(page, *DECIDE)
    page.keyboard.press("z")
    sent.came()
    sent.refuse()
    expect(page.locator(".toast")).to_contain_text(f"{masks[0]['id']} is not saved")
    shown(page, masks[1])
    page.keyboard.press("r")
    counted(page, "1 rejected")
    assert masks[1]["mask_id"] in sent.addresses[1]
    assert trained.mask(masks[0]["mask_id"])["status"] == "accepted"


def test_what_could_not_be_saved_is_kept(ui: Any, review: Any, trained: Any) -> None:
    page, masks = review(), trained.queue()
    ui.expected.append("503")
    sent = Held(page, *DECIDE)
    edit(page)
    page.keyboard.press("Enter")
    sent.came()
    page.keyboard.press("ArrowRight")
    shown(page, masks[1])
    sent.refuse()
    expect(page.locator(".toast")).to_contain_text(f"{masks[0]['id']} is not saved")
    counted(page, "0 corrected")
    page.get_by_role("link", name="Models").click()
    expect(page.locator("dialog")).to_contain_text(str(masks[0]["id"]))
    answer(page, "Back")
    page.keyboard.press("ArrowLeft")
    shown(page, masks[0])
    expect(page.locator(".proposal").first).to_have_attribute("aria-pressed", "true")
    save(page).click()
    shown(page, masks[1])
    assert saved(trained, masks[0], "corrected")["revision"] == 1


def test_a_click_without_an_answer_decides_nothing(ui: Any, review: Any, trained: Any) -> None:
    page, masks = review(), trained.queue()
    ui.expected.append("503")
    asked, sent = Held(page, *SUGGEST), Held(page, *DECIDE)
    click_and_wait(page, masks[0], asked)
    page.keyboard.press("a")
    asked.refuse()
    expect(page.locator(".toast", has_text="is not saved")).to_be_visible()
    expect(save(page)).to_be_disabled()
    shown(page, masks[0])
    assert sent.bodies == []


def test_a_newer_version_is_not_decided_unseen(ui: Any, review: Any, trained: Any) -> None:
    page, masks = review(), trained.queue()
    trained.reject(masks[0])
    ui.expected.append("412")
    sent = Held(page, *DECIDE)
    sent.let_go()
    edit(page)
    page.keyboard.press("Enter")
    expect(page.locator(".toast")).to_contain_text("Undo (Z) gives your changes back")
    expect(page.locator(".reviewing .badge").first).to_have_text("rejected")
    assert len(sent.bodies) == 1
    page.keyboard.press("ArrowRight")
    answer(page, "Back")
    page.keyboard.press("z")
    expect(save(page)).to_be_enabled()
    page.keyboard.press("Enter")
    counted(page, "1 corrected")
    now = saved(trained, masks[0], "corrected")
    assert now["segmentation"] == masks[0]["candidates"][0]["segmentation"]
    assert now["revision"] == 2


def test_a_stroke_keeps_the_click_before_it(review: Any, trained: Any) -> None:
    page, mask = review(), trained.queue()[0]
    asked = Held(page, *SUGGEST)
    click_and_wait(page, mask, asked)
    page.keyboard.press("e")
    page.mouse.click(*at(page, centre(mask["segmentation"]), mask))
    asked.let_go()
    expect(page.locator(".thinking")).to_be_hidden()
    page.keyboard.press("Enter")
    counted(page, "1 corrected")
    now = coco_mask.decode(saved(trained, mask, "corrected")["segmentation"])
    (px, py), (qx, qy) = (map(int, p) for p in (other_half(mask), centre(mask["segmentation"])))
    assert (now[py, px], now[qy, qx]) == (1, 0)


def test_a_stroke_outlives_a_click_without_an_answer(ui: Any, review: Any, trained: Any) -> None:
    page, mask = review(), trained.queue()[0]
    ui.expected.append("503")
    asked = Held(page, *SUGGEST)
    click_and_wait(page, mask, asked)
    page.keyboard.press("e")
    page.mouse.click(*at(page, centre(mask["segmentation"]), mask))
    asked.refuse()
    expect(page.locator(".toast")).to_contain_text("No mask for this point")
    page.keyboard.press("Enter")
    counted(page, "1 corrected")
    now = coco_mask.decode(saved(trained, mask, "corrected")["segmentation"])
    (px, py), (qx, qy) = (map(int, p) for p in (other_half(mask), centre(mask["segmentation"])))
    assert (now[py, px], now[qy, qx]) == (0, 0)


@pytest.mark.parametrize("key", ["ArrowRight", "ArrowLeft", "r"])
def test_keys_drop_no_changes_unasked(ui: Any, review: Any, trained: Any, key: str) -> None:
    page, masks = review(), trained.queue()
    page.keyboard.press("ArrowRight")
    shown(page, masks[1])
    edit(page)
    page.keyboard.press(key)
    expect(page.locator("dialog")).to_contain_text(f"{masks[1]['id']}?")
    if key == "r":
        ui.looks("review-drop")
    answer(page, "Back")
    shown(page, masks[1])
    expect(page.locator(".proposal").first).to_have_attribute("aria-pressed", "true")
    page.keyboard.press(key)
    answer(page, "Drop them")
    shown(page, masks[0] if key == "ArrowLeft" else masks[2])
    page.keyboard.press("ArrowRight" if key == "ArrowLeft" else "ArrowLeft")
    shown(page, masks[1])
    expect(save(page)).to_be_disabled()
    assert trained.mask(masks[1]["mask_id"])["status"] == ("rejected" if key == "r" else "open")


def test_a_page_is_not_left_unasked(ui: Any, review: Any, trained: Any) -> None:
    ui.open("/jobs")
    page, mask = review(), trained.queue()[0]
    here = page.url
    edit(page)
    for leave in (page.get_by_role("link", name="Models").click, page.go_back):
        leave()
        expect(page.locator("dialog")).to_contain_text(f"{mask['id']} are not saved")
        answer(page, "Back")
        page.wait_for_url(here)
        expect(save(page)).to_be_enabled()
    asked: list[str] = []

    def stay(dialog: Dialog) -> None:
        asked.append(dialog.type)
        dialog.dismiss()

    page.on("dialog", stay)
    page.close(run_before_unload=True)
    page.wait_for_timeout(50)
    expect(save(page)).to_be_enabled()
    assert asked == ["beforeunload"]
    page.go_back()
    answer(page, "Leave")
    page.wait_for_url(re.compile("#/jobs$"))
    expect(page.locator("h1")).to_have_text("Jobs")
    page.get_by_role("link", name="Models").click()
    expect(page.locator("h1")).to_have_text("Models")


def test_no_mask_is_shown_over_the_image_of_another(review: Any, trained: Any) -> None:
    masks = trained.queue()
    other = next(m for m in masks if m["image_id"] != masks[0]["image_id"])
    page = review(f"?mask={other['mask_id']}")
    held = Held(page, "GET", rf"/images/{masks[0]['image_id']}$")
    page.reload()
    page.wait_for_selector(f".proposal[data-drawn='{other['mask_id']}']")
    page.keyboard.press("ArrowRight")
    held.came()
    expect(page.locator(".reviewing h2").first).to_contain_text(str(masks[0]["id"]))
    drawn = """() => new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(() => {
      const canvas = document.querySelector('.reviewing .viewer > canvas');
      const { data } = canvas.getContext('2d').getImageData(0, 0, canvas.width, canvas.height);
      done(data.some((value) => value > 0));
    })))"""
    assert page.evaluate(drawn) is False
    held.let_go()
    shown(page, masks[0])
    assert page.evaluate(drawn) is True


def test_a_double_click_on_undo_reopens_nothing(review: Any, trained: Any) -> None:
    page, masks = review(), trained.queue()
    page.keyboard.press("a")
    shown(page, masks[1])
    edit(page)
    sent = Held(page, *DECIDE)
    page.get_by_role("button", name="Undo").dblclick()
    expect(save(page)).to_be_disabled()
    page.get_by_role("button", name="Undo").click()
    sent.came()
    sent.let_go()
    shown(page, masks[0])
    assert [body["decision"] for body in sent.bodies] == ["reopen"]
