"""From a review to a new version, a training that goes on from there, and both side by side."""

import re
import time
from typing import Any

from playwright.sync_api import Page, expect

from ..holding import Held
from .reviewing import shown


def decide(page: Page) -> None:
    """The worst is corrected by its first proposal, the second rejected, the third accepted."""
    page.wait_for_selector(".proposal[data-drawn]")
    counts = page.locator(".counts")
    page.keyboard.press("1")
    page.keyboard.press("Enter")
    expect(counts).to_contain_text("1 corrected")
    page.keyboard.press("r")
    expect(counts).to_contain_text("1 rejected")
    page.keyboard.press("a")
    expect(counts).to_contain_text("1 accepted")


def test_train_again_from_here_and_compare(ui: Any, trained: Any) -> None:
    before = trained.queue()
    page = ui.open(f"/jobs/{trained.job}/review")
    decide(page)
    page.get_by_role("button", name="Make a new version").click()
    dialog = page.locator("dialog")
    expect(dialog).to_contain_text("the 2 masks that you confirmed")
    expect(dialog).to_contain_text("1 object that you rejected")
    ui.looks("version")
    dialog.get_by_label("Name of the version").fill("scenes, corrected")
    dialog.get_by_role("button", name="Make the version").click()
    begin = page.locator("dialog").get_by_label("Begin with")
    model = trained.service.ask(f"/jobs/{trained.job}")["model_id"]
    expect(begin).to_have_value(model)
    expect(page.locator("dialog").get_by_label("Preset")).to_have_value("demo")
    page.locator("dialog").get_by_role("button", name="Train", exact=True).click()
    page.wait_for_url(re.compile(r"#/jobs/[0-9a-f]{32}$"))
    again = page.url.rsplit("/", 1)[1]
    assert again != trained.job
    job = trained.service.ask(f"/jobs/{again}")
    version = trained.service.ask(f"/datasets/{job['dataset_id']}")
    assert (version["name"], version["parent_id"]) == ("scenes, corrected", trained.dataset)
    assert version["annotations"] == trained.masks - 1
    deadline = time.monotonic() + 60
    while not trained.service.ask(f"/jobs/{again}")["state"].startswith("succeeded"):
        assert time.monotonic() < deadline, "the job does not end"
        time.sleep(0.1)

    ui.open(f"/jobs/{again}/results")
    page.get_by_role("link", name="Compare with before").click()
    page.wait_for_url(f"**/#/jobs/{trained.job}/compare/{again}")
    ui.settled()
    pairs = page.locator(".pairs > li")
    expect(pairs).to_have_count(trained.masks - 1)
    expect(pairs.first).to_contain_text(f"{before[0]['id']}")
    expect(pairs.first).to_contain_text("→ 1.00")
    expect(page.get_by_role("row", name=re.compile("quality: mean"))).to_contain_text("+")
    expect(pairs.first.locator(".ellipsis")).to_contain_text("scene-")
    left, right = (c.evaluate("(c) => c.toDataURL()") for c in pairs.first.locator("canvas").all())
    assert left != right, "before is what was delivered, not what it was corrected to"
    ui.looks("compare")


def test_a_version_without_a_training_is_shown(ui: Any, trained: Any) -> None:
    page = ui.open(f"/jobs/{trained.job}/review")
    decide(page)
    page.get_by_role("button", name="Make a new version").click()
    page.locator("dialog").get_by_role("button", name="Make the version").click()
    page.locator("dialog").get_by_role("button", name="Back").click()
    page.wait_for_url(re.compile(r"#/datasets/[0-9a-f]{32}$"))
    ui.settled()
    expect(page.locator("h1")).to_contain_text("scenes, corrected")


def test_where_nothing_is_decided_there_is_no_version(ui: Any, trained: Any) -> None:
    ui.expected.append("409")
    page = ui.open(f"/jobs/{trained.job}/review")
    page.get_by_role("button", name="Make a new version").click()
    page.locator("dialog").get_by_role("button", name="Make the version").click()
    expect(page.locator("dialog .problem")).to_contain_text("Nothing has been decided")
    page.keyboard.press("Escape")
    expect(page.locator("dialog")).to_have_count(0)


def test_a_version_has_what_is_being_saved(review: Any, trained: Any) -> None:
    page, masks = review(), trained.queue()
    sent = Held(page, "PATCH", "/masks/[^/]+$")
    page.keyboard.press("a")
    sent.came()
    page.get_by_role("button", name="Make a new version").click()
    sent.let_go()
    expect(page.locator("dialog")).to_contain_text("the 1 mask that you confirmed")
    page.keyboard.press("Escape")
    shown(page, masks[1])
    page.keyboard.press("1")
    page.get_by_role("button", name="Make a new version").click()
    expect(page.locator("dialog")).to_contain_text("The new version will not have them")
    page.locator("dialog").get_by_role("button", name="Back", exact=True).click()
    expect(page.get_by_role("button", name="Save and next")).to_be_enabled()
