"""`report.html`: a finished run for people, in one file with its pictures inside. No torch."""

from pathlib import Path

from sapnet.evaluation.report import sections
from sapnet.evaluation.report.html import Markup, el
from sapnet.evaluation.report.inputs import ReportInputs
from sapnet.evaluation.report.loss_curve import LossHistory
from sapnet.evaluation.report.mask_cards import masks
from sapnet.evaluation.report.style import STYLE
from sapnet.utils.files import atomic_write

__all__ = ["LossHistory", "ReportInputs", "write_report"]

POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"


def write_report(path: Path, story: ReportInputs) -> None:
    """Write the page, whole or not at all; needs no script and nothing from the net, and stays
    below three megabytes."""
    with atomic_write(path) as file:
        file.write(f"<!doctype html>\n{page(story)}\n".encode("utf-8", "replace"))


def page(story: ReportInputs) -> Markup:
    """The whole document; parts without content are left out."""
    parts = {
        "Data": sections.data(story),
        "Proposals": sections.proposals(story),
        "Ladder of methods": sections.ladder(story),
        "Training": sections.training(story),
        "Masks": masks(story),
        "Quality": sections.quality(story),
        "Time and memory": sections.cost(story),
        "The same again": sections.recipe(story),
    }
    shown = [(f"part-{n}", *part) for n, part in enumerate(parts.items()) if part[1] is not None]
    config = story.config
    title = f"Training report: {config['method']}, preset {config['preset']}"
    links = (el("a", name, href=f"#{id_}") for id_, name, _ in shown)
    return el(
        "html",
        el(
            "head",
            el("meta", charset="utf-8"),
            el("meta", name="viewport", content="width=device-width, initial-scale=1"),
            el("meta", http_equiv="Content-Security-Policy", content=POLICY),
            el("title", title),
            el("style", Markup(STYLE)),
        ),
        el(
            "body",
            el("header", el("h1", title), el("nav", *links, aria_label="Parts of the report")),
            el(
                "main",
                sections.tiles(story),
                *(
                    el("section", el("h2", name, id=id_), body, aria_labelledby=id_)
                    for id_, name, body in shown
                ),
            ),
        ),
        lang="en",
    )
