"""The part of the report that shows masks: whole images, the best, the worst, the doubtful."""

from collections.abc import Mapping, Sequence
from typing import Any

from sapnet.evaluation.calibration import RIGHT
from sapnet.evaluation.report.html import Markup, el, join, number
from sapnet.evaluation.report.inputs import ReportInputs
from sapnet.evaluation.report.thumbnails import Pictures
from sapnet.labelers.quality import objections

IMAGES, SHOWN, DOUBTFUL = 4, 6, 12
"""Whole images; best and worst masks; doubtful ones."""
SURE = 0.8
"""From this quality on nothing is said against a mask."""


def masks(story: ReportInputs) -> Markup:
    """Pictures, by quality where there is no truth."""
    if not story.rows:
        return el("p", "There are no masks.")
    pictures = Pictures(story.paths)
    words = "Each mask twice: the point in its picture, and the delivered mask over it in orange."
    key = " The blue outline is the truth." if story.ious else ""
    doubtful = sorted(story.rows, key=lambda row: row["quality"])
    parts = [
        el("p", words + key),
        *_strip("Whole images", _whole(story, pictures), "the first images, all masks", "15.5rem"),
    ]
    if story.ious:
        known = sorted(
            (row for row in story.rows if row["id"] in story.ious),
            key=lambda row: -story.ious[row["id"]],
        )
        worst = known[: -SHOWN - 1 : -1]
        parts += _some(story, pictures, "Best", known[:SHOWN], "highest IoU with the truth")
        parts += _some(story, pictures, "Worst", worst, "lowest IoU with the truth")
    else:
        best = doubtful[: -SHOWN - 1 : -1]
        parts += _some(story, pictures, "Best", best, "highest quality")
    words = "lowest quality: what a review should begin with"
    parts += _some(story, pictures, "Doubtful", doubtful[:DOUBTFUL], words)
    return join(*parts)


def _some(
    story: ReportInputs,
    pictures: Pictures,
    title: str,
    rows: Sequence[Mapping[str, Any]],
    words: str,
) -> list[Markup]:
    return _strip(title, [f for row in rows if (f := _mask(story, pictures, row))], words, "19rem")


def _strip(title: str, figures: Sequence[Markup], words: str, least: str) -> list[Markup]:
    if not figures:
        return []
    grid = el("div", *figures, class_="grid", style=f"--min:{least}")
    return [el("h3", title, " ", el("span", f"({words})", class_="soft")), grid]


def _mask(story: ReportInputs, pictures: Pictures, row: Mapping[str, Any]) -> Markup | None:
    uri = pictures.of_mask(row, story.annotation_of(row), story.true.get(row["id"]))
    if uri is None:
        return None
    kind, file = _names(story, row)
    iou = story.ious.get(row["id"])
    verdict = None if iou is None else ("right" if iou >= RIGHT else "wrong")
    told = objections(row["doubts"], story.usual) if row.get("doubts") else []
    caption = join(
        el("b", kind),
        f", annotation {row['id']}, {file}",
        el("br"),
        f"quality {number(row['quality'], 2)}",
        "" if iou is None else f", IoU {number(iou, 2)} ({verdict})",
        f", {row['source']}",
        join(el("br"), "; ".join(told)) if told and row["quality"] < SURE else None,
    )
    words = f"{kind}, annotation {row['id']}, in {file}: the point, and the mask round it"
    return el("figure", el("img", src=uri, alt=words), el("figcaption", caption))


def _names(story: ReportInputs, row: Mapping[str, Any]) -> tuple[str, str]:
    """Of its class and of its image's file."""
    kind = next(c.name for c in story.points.categories if c.id == row["category_id"])
    file = next(i.file_name for i in story.points.images if i.id == row["image_id"])
    return kind, file


def _whole(story: ReportInputs, pictures: Pictures) -> list[Markup]:
    figures: list[Markup] = []
    for info, annotations in story.points:
        if len(figures) == IMAGES:
            break
        own = [row for row in story.rows if row["image_id"] == info.id]
        uri = pictures.of_image(info, own, annotations) if own else None
        if uri:
            words = f"{info.file_name} with {len(own)} masks"
            figures.append(el("figure", el("img", src=uri, alt=words), el("figcaption", words)))
    return figures
