"""In the views of what came of a training: what is shown is what was asked for last, and a double
press asks once."""

from typing import Any

import httpx2
from playwright.sync_api import expect

from ..holding import Held
from .test_models import card, model_of


def test_the_large_image_has_its_own_objects(ui: Any, trained: Any) -> None:
    page = ui.open(f"/jobs/{trained.job}/results")
    page.locator(".photo").first.click()
    dialog = page.locator("dialog")
    expect(dialog.locator(".object").first).to_be_visible()
    page.keyboard.press("ArrowDown")
    expect(dialog.get_by_role("link", name="Review this one")).to_be_visible()
    held = Held(page, "GET", r"/review\?.*image_id=")
    page.keyboard.press("ArrowRight")
    held.came()
    expect(dialog.locator(".title")).to_contain_text("(2 of")
    expect(dialog.locator(".object")).to_have_count(0)
    expect(dialog.get_by_role("link", name="Review this one")).to_have_count(0)
    held.let_go()
    expect(dialog.locator(".object").first).to_be_visible()


def test_a_form_that_is_sent_twice_is_sent_once(ui: Any, trained: Any) -> None:
    page = ui.open("/models")
    mine = card(page, model_of(trained))
    named = Held(page, "PUT", "/models/aliases/")
    field = mine.get_by_placeholder("production")
    field.fill("twice")
    for _ in range(2):
        field.press("Enter")
    named.came()
    named.let_go()
    expect(mine.locator(".names")).to_contain_text("twice")
    expect(page.locator(".toast", has_text="Somebody else")).to_have_count(0)
    assert len(named.bodies) == 1
    page.get_by_role("button", name="Remove the name twice").click()
    expect(page.locator(".names", has_text="twice")).to_have_count(0)
    page.goto(f"{ui.service.url}/#/jobs/{trained.job}/results")
    ui.settled()
    made = Held(page, "POST", "/exports$")
    for _ in range(2):
        page.get_by_role("button", name="Make the export").click()
    made.came()
    made.let_go()
    expect(page.get_by_role("button", name="Download COCO, RLE")).to_have_count(1)
    assert len(made.bodies) == 1


def test_a_name_that_could_not_be_removed_is_not_said_to_be(ui: Any, trained: Any) -> None:
    ui.expected.append("503")
    given = httpx2.put(
        f"{trained.service.url}/models/aliases/stays",
        json={"model": model_of(trained)},
        headers={"If-None-Match": "*"},
    )
    assert given.is_success, given.text
    page = ui.open("/models")
    removed = Held(page, "DELETE", "/models/aliases/")
    page.evaluate(
        """() => { window.said = []; new MutationObserver(() =>
          window.said.push(document.getElementById('live').textContent))
          .observe(document.getElementById('live'), { childList: true, characterData: true }); }"""
    )
    page.get_by_role("button", name="Remove the name stays").click()
    removed.came()
    removed.refuse()
    expect(page.locator(".toast")).to_contain_text("Come again later")
    remove = page.get_by_role("button", name="Remove the name stays")
    expect(remove).not_to_have_attribute("aria-busy", "true")
    page.wait_for_timeout(150)  # what is announced is so a little later
    assert not any("is removed" in text for text in page.evaluate("window.said"))
    page.get_by_role("button", name="Remove the name stays").click()
    expect(page.locator(".names", has_text="stays")).to_have_count(0)
