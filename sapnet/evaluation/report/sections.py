"""The parts of the report that are figures: data, proposals, ladder, training, quality, cost."""

import json
import shlex
from collections import Counter
from collections.abc import Mapping
from typing import Any

import numpy as np

from sapnet.evaluation.report import charts
from sapnet.evaluation.report.html import Markup, duration, el, join, number, table
from sapnet.evaluation.report.inputs import ReportInputs

CLASSES, SET_ASIDE = 10, 20
MOST_CLASSES = 200
DOUBT = 0.5


def tiles(story: ReportInputs) -> Markup:
    """The figures to see first."""
    quality = [row["quality"] for row in story.rows]
    shown = {
        "images": f"{story.report['images']}",
        "masks": f"{len(story.rows)}",
        f"masks with quality below {DOUBT}": f"{sum(q < DOUBT for q in quality)}",
    }
    if (figures := story.metrics["pseudo_masks"]) is not None:
        shown["mIoU of the masks"] = number(figures["miou_mask"])
    if (model := story.metrics["model"]) is not None:
        shown["AP50 of the model, on these images"] = number(model["segm"]["AP50"])
    shown["time"] = duration(sum(story.report["seconds"].values()))
    pairs = (el("div", el("dt", name), el("dd", value)) for name, value in shown.items())
    return el("dl", *pairs, class_="tiles")


def data(story: ReportInputs) -> Markup:
    """Images, classes, what was set aside."""
    points = story.points
    counts = Counter(annotation.category_id for annotation in points.annotations)
    quality: dict[int, list[float]] = {}
    for row in story.rows:
        quality.setdefault(row["category_id"], []).append(row["quality"])
    figures = story.metrics["pseudo_masks"] or {}
    miou = {of["category_id"]: of["miou_mask"] for of in figures.get("per_class", [])}
    listed = sorted(points.categories, key=lambda c: (-counts[c.id], c.id))
    rows = [
        (
            category.name,
            counts[category.id],
            number(float(np.median(quality.get(category.id, [0.0]))), 2),
            *([number(miou.get(category.id))] if figures else []),
        )
        for category in listed[:MOST_CLASSES]
    ]
    head = ("class", "points", "median quality", *(["mIoU"] if figures else []))
    sides = [max(image.size) for image in points.images]
    text = f"{len(points.images)} images, {min(sides, default=0)} to {max(sides, default=0)} pixels"
    parts = [
        el(
            "p",
            f"{text} on their long side; {len(points.annotations)} annotations, one point each.",
        ),
        table(head, *rows[:CLASSES], caption="Classes, the most frequent first"),
    ]
    if len(rows) > CLASSES:
        words = f"{len(listed) - CLASSES} more classes"
        rest = table(head, *rows[CLASSES:], caption=words)
        parts.append(el("details", el("summary", words), rest))
    aside = story.report["set_aside"]
    if aside:
        named = [el("li", f"{a['file_name']} ({a['stage']}): {a['error']}") for a in aside]
        more = el("li", f"… and {len(aside) - SET_ASIDE} more") if len(aside) > SET_ASIDE else None
        words = f"Set aside, since they could not be used ({len(aside)}):"
        parts += [el("p", words, class_="note"), el("ul", *named[:SET_ASIDE], more)]
    return join(*parts)


def proposals(story: ReportInputs) -> Markup:
    """What there was to choose from."""
    sizes = list(story.bag_sizes)
    most = max(sizes, default=1)
    counts = [sizes.count(size) for size in range(1, most + 1)]
    figures = story.metrics["proposals"]
    best = figures.get("best_of_bag_miou_mask")
    words = f"Made by {story.report['proposals']['generator']}: {np.mean(sizes or [0]):.1f} a point"
    truth = "" if best is None else f"; the best of each bag has a mean IoU of {number(best)}"
    undecided = story.report["undecided_bags"]
    return join(
        el("p", f"{words}{truth}."),
        el("p", f"{undecided} times a bag had no best proposal.", class_="note")
        if undecided
        else None,
        el(
            "div",
            el("h3", "How many proposals a point has"),
            charts.columns(counts, (1, most), "points by proposals", "proposals a point"),
            class_="card alone",
        ),
    )


def ladder(story: ReportInputs) -> Markup | None:
    """How far each step brings the masks; where truth is."""
    figures = story.metrics["pseudo_masks"]
    if figures is None or figures["miou_mask"] is None:
        return None
    bag = story.metrics["proposals"]
    steps = [
        ("the generator's favourite", bag["sam_top1_miou_mask"]),
        ("consensus of the bag", bag["consensus_miou_mask"]),
        ("picked by the training", figures["selected_miou_mask"]),
        ("refined and delivered", figures["miou_mask"]),
        ("best of each bag (the ceiling of picking)", bag["best_of_bag_miou_mask"]),
    ]
    rows = [(name, value or 0.0, number(value)) for name, value in steps]
    return el(
        "div",
        el("p", "Mean IoU with the truth, which the training never saw.", class_="soft"),
        charts.bars(rows, "mean IoU", top=1.0, best=3),
        class_="card alone",
    )


def training(story: ReportInputs) -> Markup:
    """One chart a loss."""
    points = story.report["losses"]
    if not points:
        return el("p", "No losses were kept.")
    names = dict.fromkeys(name for point in points for name in point["losses"])
    end = points[-1]["step"]
    panels = [
        charts.curve(
            name,
            [(p["step"], p["losses"][name]) for p in points if name in p["losses"]],
            end,
        )
        for name in names
    ]
    cards = (el("div", panel, class_="card") for panel in panels)
    return join(
        el("p", f"{end} steps. A point is a mean over {-(-end // len(points))} of them."),
        el("div", *cards, class_="grid", style="--min:17rem"),
    )


def quality(story: ReportInputs) -> Markup:
    """How sure the masks are, and whether that is to be believed."""
    said = [row["quality"] for row in story.rows]
    place = [min(int(value * 10), 9) for value in said]
    counts = [place.count(b) for b in range(10)]
    judged = (story.metrics["pseudo_masks"] or {}).get("quality")
    wrong = None
    words = (
        "Quality is the estimated probability that a mask's IoU with its object is at least 0.5."
    )
    parts = [el("p", words)]
    if judged:
        bad = {row["id"] for row in story.rows if story.ious.get(row["id"], 1.0) < 0.5}
        ids = [row["id"] for row in story.rows]
        pairs = list(zip(ids, place, strict=True))
        wrong = [sum(id_ in bad for id_, b in pairs if b == bin_) for bin_ in range(10)]
        text = (
            f"{judged['wrong']} of {judged['count']} masks with truth are wrong by that measure; "
        )
        text += f"low quality finds them with an AUROC of {number(judged['auroc'])} "
        text += f"(0.5 is chance, 1 is perfect); the Brier score is {number(judged['brier'])}."
        parts.append(el("p", text))
    key = (
        join(
            el("span", class_="key", style="background:var(--bar)"),
            "all ",
            el("span", class_="key", style="background:var(--bad)"),
            "IoU below 0.5",
        )
        if wrong
        else None
    )
    histogram = charts.columns(counts, (0, 1), "masks by quality", "quality", wrong)
    cards = [
        el(
            "div",
            el("h3", "Masks by quality"),
            histogram,
            el("p", key, class_="soft") if key else None,
            class_="card",
        )
    ]
    if judged:
        bins = [(b["quality"], b["right"], b["count"]) for b in judged["bins"]]
        rows = [(number(said, 2), number(found, 2), count) for said, found, count in bins]
        cards += [
            el("div", el("h3", "Promised and found"), charts.reliability(bins), class_="card"),
            el(
                "div",
                table(
                    ("mean quality", "share right", "masks"),
                    *rows,
                    caption="Reliability, in ten steps of quality",
                ),
                class_="card",
            ),
        ]
    return join(*parts, el("div", *cards, class_="grid", style="--min:20rem"))


def cost(story: ReportInputs) -> Markup:
    """Seconds by stage, memory."""
    seconds: Mapping[str, float] = story.report["seconds"]
    rows = [(name, spent, duration(spent)) for name, spent in seconds.items()]
    memory = f"The most memory that was held: {story.report['peak_memory_mb']} MB."
    return el("div", charts.bars(rows, "time by stage"), el("p", memory), class_="card alone")


def recipe(story: ReportInputs) -> Markup:
    """Everything that makes the same run again."""
    report, config = story.report, story.config
    settings = report["proposals"]["settings"]
    command = ["sapnet", "train", "--points", "points.json", "--images", "images"]
    command += ["--method", config["method"], "--preset", config["preset"]]
    command += ["--seed", f"{report['seed']}", "--proposals", json.dumps(settings)]
    for name, value in story.overrides.items():
        command += ["--set", f"{name}={json.dumps(value)}"]
    weights = report["weights"]
    if weights["kind"] == "file":
        command += ["--weights", weights["detail"]]
    command += [*(["--truth", "instances.json"] if story.metrics["model"] else []), "--out", "run"]
    body = {
        "dataset_id": "…",
        **{name: config[name] for name in ("method", "preset")},
        "seed": report["seed"],
        "overrides": dict(story.overrides),
        "proposals": settings,
    }
    earlier = weights.get("model")
    if earlier:
        body["from_model"] = "…"
    digest = f", sha256 {weights['sha256'][:16]}…" if weights["sha256"] else ""
    facts = [
        ("seed", report["seed"]),
        *([("goes on from the model", f"sha256 {earlier[:16]}…")] if earlier else []),
        ("first weights", f"{weights['kind']}: {weights['detail']}{digest}"),
        ("proposals' fingerprint", report["proposals"]["fingerprint"][:16]),
        *report["versions"].items(),
    ]
    all_settings = [(name, _said(value)) for name, value in _flat(config)]
    return join(
        *([] if earlier else [el("p", "From the shell:"), el("pre", shlex.join(command))]),
        el("p", "Over HTTP, ", el("code", "POST /jobs/train"), ":"),
        el("pre", json.dumps(body, ensure_ascii=False)),
        table(("what", "which"), *facts, caption="Seed, weights, versions", words=True),
        el(
            "details",
            el("summary", "All settings"),
            table(("setting", "value"), *all_settings, caption="Settings of the run", words=True),
        ),
    )


def _flat(values: Mapping[str, Any], prefix: str = "") -> list[tuple[str, Any]]:
    rows: list[tuple[str, Any]] = []
    for name, value in values.items():
        inner = _flat(value, f"{prefix}{name}.") if isinstance(value, Mapping) else None
        rows += inner if inner is not None else [(f"{prefix}{name}", value)]
    return rows


def _said(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)
