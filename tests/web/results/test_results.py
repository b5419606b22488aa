"""The grid of what a training left, one picture large, exports."""

from typing import Any


def test_the_grid_shows_the_worst_first(ui: Any, trained: Any) -> None:
    ui.open(f"/jobs/{trained.job}/results")
    ui.page.wait_for_selector(".photo .badge, .photo .hint:not(:text('…'))")
    ui.page.wait_for_timeout(800)
    ui.looks("results")
