"""What `?` lists in the editor and in the review, and what the tab says of a job."""

import re
from typing import Any

import pytest
from playwright.sync_api import expect


@pytest.mark.parametrize("view", ["editor", "review"])
def test_a_question_mark_lists_the_keys(ui: Any, view: str) -> None:
    dataset = ui.service.dataset()
    if view == "editor":
        page = ui.open(f"/datasets/{dataset}/edit")
        page.locator(".editor canvas").focus()
    else:
        page = ui.open(f"/jobs/{ui.service.job(dataset)}/review")
        page.locator(".reviewing .viewer canvas").focus()
    page.keyboard.press("?")
    dialog = page.get_by_role("dialog")
    expect(
        dialog.get_by_role("heading", name=f"Keys of the {'point ' * (view == 'editor')}")
    ).to_be_visible()
    expect(dialog.locator("kbd", has_text="?")).to_be_visible()
    page.keyboard.press("?")
    expect(dialog).to_have_count(1)
    ui.looks(f"keys-{view}", shots=False)
    page.keyboard.press("Escape")
    expect(dialog).to_have_count(0)


def test_a_question_mark_in_a_name_is_a_letter(ui: Any) -> None:
    page = ui.open(f"/datasets/{ui.service.dataset()}/edit")
    name = page.get_by_label("Name of the new version")
    name.press("End")
    name.press("?")
    expect(name).to_have_value(re.compile(r"\?$"))
    expect(page.get_by_role("dialog")).to_have_count(0)


def test_the_tab_says_how_far_a_job_is(ui: Any) -> None:
    ui.service.trainer("--steps", "400", "--sleep", "0.05")
    dataset = ui.service.dataset(name="titles")
    page = ui.open(f"/jobs/{ui.service.job(dataset, wait=False)}")
    expect(page).to_have_title(re.compile(r"^\d+\s?% Training titles"))
    expect(page).to_have_title(re.compile(r"^succeeded.*: Training titles$"))
    ui.open("/jobs")
    expect(page).to_have_title("Jobs · SAPNet++")


def test_points_are_made_small_and_hidden(ui: Any) -> None:
    page = ui.open(f"/datasets/{ui.service.dataset()}/edit")
    canvas = page.locator(".editor canvas")
    page.wait_for_timeout(100)  # until it is drawn
    shots = {}
    for size in ("large", "small", "hidden"):
        expect(page.get_by_role("button", name=f"Points: {size}")).to_be_visible()
        shots[size] = canvas.screenshot()
        canvas.press("h")
        page.wait_for_timeout(100)
    assert len(set(shots.values())) == 3
    canvas.press("h")
    page.reload()
    ui.settled()
    expect(page.get_by_role("button", name="Points: small")).to_be_visible()


def test_a_digit_chooses_a_class_that_was_just_added(ui: Any) -> None:
    page = ui.open(f"/datasets/{ui.service.dataset()}/edit")
    name = page.get_by_label("Name of a new class")
    name.fill("fibre")
    name.press("Enter")
    expect(page.locator(".editor canvas")).to_be_focused()
    page.keyboard.press("1")
    expect(page.get_by_role("button", name="Use class cell")).to_have_attribute(
        "aria-pressed", "true"
    )
    page.keyboard.press("3")
    expect(page.get_by_role("button", name="Use class fibre")).to_have_attribute(
        "aria-pressed", "true"
    )
