"""What comes late changes nothing that was asked for since, and nothing is lost by leaving."""

import re
from pathlib import Path
from typing import Any

from playwright.sync_api import Page, expect

from .conftest import make_image
from .editing import at, click, drop, points
from .holding import Held

CREATED = re.compile(r"#/datasets/[0-9a-f]{32}$")
BLANK_JS = """(selector) => new Promise((done) => requestAnimationFrame(() =>
  requestAnimationFrame(() => {
    const canvas = document.querySelector(selector);
    const { data } = canvas.getContext('2d').getImageData(0, 0, canvas.width, canvas.height);
    done(!data.some((value) => value > 0));
  })))"""
BROKEN_STORE = """IDBObjectStore.prototype.put = () => {
  throw new DOMException('no room', 'QuotaExceededError');
};"""


def edited(ui: Any, dataset: str) -> Page:
    page = ui.open(f"/datasets/{dataset}/edit")
    expect(page.locator(".editor .level")).not_to_be_empty()
    expect(page.locator(".points li")).to_have_count(2)
    return page


def begun(ui: Any, tmp_path: Path) -> Page:
    """A draft of one image with one point."""
    page = ui.open("/datasets/new")
    drop(page, make_image(tmp_path / "0.png"))
    expect(page.locator(".editor .level")).not_to_be_empty()
    while not points(page):
        click(page, 23.2, 26.5)
    return page


def test_no_point_is_placed_on_an_image_that_is_not_shown(ui) -> None:
    dataset = ui.service.dataset(images=2)
    page = edited(ui, dataset)
    held = Held(page, "GET", rf"/datasets/{dataset}/images/2$")
    page.reload()
    ui.settled()
    page.get_by_label("Next image").click()
    held.came()
    assert page.evaluate(BLANK_JS, ".editor .viewer > canvas")
    click(page, 100, 70)
    for key in ("ArrowRight", "Enter"):
        page.keyboard.press(key)
    assert len(points(page)) == 2
    held.let_go()
    expect(page.locator(".editor .level")).not_to_be_empty()
    while page.evaluate(BLANK_JS, ".editor .viewer > canvas"):
        page.wait_for_timeout(20)
    page.mouse.click(*at(page, 100, 70))
    expect(page.locator(".points li")).to_have_count(3)


def test_of_two_images_the_last_one_is_shown(ui) -> None:
    """The first takes longer to be decoded."""
    page = ui.open("/datasets")
    width = page.evaluate(
        """async () => {
          const { Viewer } = await import('/web/viewer/viewer.js');
          const blob = async (width) => {
            const canvas = Object.assign(document.createElement('canvas'), { width, height: 5 });
            canvas.getContext('2d');
            return new Promise((resolve) => canvas.toBlob(resolve));
          };
          const [slow, quick] = [await blob(30), await blob(40)];
          const decode = window.createImageBitmap;
          let go;
          const waiting = new Promise((resolve) => (go = resolve));
          let first = true;
          window.createImageBitmap = async (...args) => {
            if (first) { first = false; await waiting; }
            return decode(...args);
          };
          const viewer = new Viewer();
          const one = viewer.show(slow);
          await new Promise((resolve) => setTimeout(resolve));
          await viewer.show(quick);
          go();
          await one;
          return viewer.width;
        }"""
    )
    assert width == 40


def test_what_is_sent_cannot_be_changed_and_leaving_asks(ui, tmp_path: Path) -> None:
    page = begun(ui, tmp_path)
    sent = Held(page, "POST", "/datasets$")
    page.get_by_role("button", name="Create the data set").click()
    sent.came()
    click(page, 53.2, 26.5)
    page.keyboard.press("Enter")
    assert len(points(page)) == 1
    page.get_by_role("link", name="Models").click()
    expect(page.locator("dialog")).to_contain_text("still being sent")
    page.locator("dialog").get_by_role("button", name="Leave", exact=True).click()
    expect(page.locator("h1")).to_have_text("Models")
    page.get_by_role("link", name="Data sets").click()
    page.get_by_role("link", name="Go on with it").click()
    expect(page.locator(".points li")).to_have_count(1)
    sent.let_go()
    page.get_by_role("button", name="Create the data set").click()
    page.wait_for_url(CREATED)


def test_a_draft_that_the_browser_does_not_keep_is_not_left_unasked(ui, tmp_path: Path) -> None:
    page = ui.page
    page.add_init_script(BROKEN_STORE)
    begun(ui, tmp_path)
    page.get_by_role("link", name="Models").click()
    expect(page.locator("dialog")).to_contain_text("would be lost")
    page.locator("dialog").get_by_role("button", name="Back").click()
    page.wait_for_url("**/#/datasets/new")
    assert len(points(page)) == 1
    kinds: list[str] = []
    page.on("dialog", lambda dialog: (kinds.append(dialog.type), dialog.accept()))
    page.reload()
    ui.settled()
    assert kinds == ["beforeunload"]


def test_a_draft_that_is_kept_is_left_without_a_question(ui, tmp_path: Path) -> None:
    page = begun(ui, tmp_path)
    page.get_by_role("link", name="Models").click()
    expect(page.locator("h1")).to_have_text("Models")
    expect(page.locator("dialog")).to_have_count(0)
    page.go_back()
    expect(page.locator(".points li")).to_have_count(1)


def test_starting_over_takes_what_is_dropped_once(ui, tmp_path: Path) -> None:
    page = begun(ui, tmp_path)
    page.get_by_role("button", name="Start over").click()
    page.locator("dialog").get_by_role("button", name="Throw it away").click()
    expect(page.locator(".strip li")).to_have_count(0)
    ui.settled()
    broken = tmp_path / "broken.png"
    broken.write_bytes(b"no image")
    drop(page, broken)
    expect(page.locator(".toast")).to_contain_text("broken.png")
    drop(page, make_image(tmp_path / "1.png", seed=1))
    expect(page.locator(".strip li")).to_have_count(1)
    assert page.locator(".toast").count() == 1


def test_a_dialog_goes_with_its_view(ui) -> None:
    dataset = ui.service.dataset()
    ui.open("/jobs")
    page = ui.open(f"/datasets/{dataset}")
    page.get_by_role("button", name="Train").click()
    expect(page.locator("dialog")).to_be_visible()
    page.go_back()
    expect(page.locator("h1")).to_have_text("Jobs")
    expect(page.locator("dialog")).to_have_count(0)


def test_a_job_that_has_ended_is_not_said_to_be_ending(ui) -> None:
    ui.service.trainer("--steps", "3000", "--sleep", "0.1")  # it ends by being cancelled
    job = ui.service.job(ui.service.dataset(), wait=False)
    page = ui.open(f"/jobs/{job}")
    badge = page.locator("h1 + .badge")
    expect(badge).to_have_text("running")
    sent = Held(page, "POST", "/cancel$")
    page.get_by_role("button", name="Cancel").click()
    page.locator("dialog").get_by_role("button", name="Cancel the job").click()
    sent.came()
    answer = ui.service.ask(f"/jobs/{job}/cancel", {}, "POST")
    expect(badge).to_have_text("cancelled")
    with page.expect_response(re.compile("/cancel$")):
        sent.answer({**answer, "state": "cancelling"})
    page.wait_for_timeout(100)
    expect(badge).to_have_text("cancelled")
