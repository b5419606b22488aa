"""The review: one mask at a time, by keys."""

from typing import Any


def test_shots(ui: Any, trained: Any) -> None:
    ui.expected.append("404")
    ui.open(f"/jobs/{trained.job}/review")
    ui.page.wait_for_timeout(800)
    ui.looks("review")
    ui.open(f"/jobs/{trained.job}/results")
    ui.page.locator(".photo").first.click()
    ui.page.wait_for_selector(".object")
    ui.page.keyboard.press("ArrowDown")
    ui.page.keyboard.press("3")
    ui.page.wait_for_timeout(300)
    ui.looks("large")
