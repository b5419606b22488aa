"""Sections of the report: figures and charts, laid out by the template."""

import json
import shlex
from collections import Counter
from collections.abc import Mapping
from typing import Any

import numpy as np

from sapnet.evaluation.calibration import RIGHT
from sapnet.evaluation.report import charts
from sapnet.evaluation.report.html import duration, number
from sapnet.evaluation.report.inputs import ReportInputs

MOST_CLASSES = 200
LOW_QUALITY = 0.5
BINS = 10


def tiles(inputs: ReportInputs) -> dict[str, str]:
    """The figures to see first, by name."""
    shown = {
        "images": f"{inputs.report['images']}",
        "masks": f"{len(inputs.masks)}",
        f"masks with quality below {LOW_QUALITY}": (
            f"{sum(mask.quality < LOW_QUALITY for mask in inputs.masks)}"
        ),
    }
    if (figures := inputs.metrics["pseudo_masks"]) is not None:
        shown["mIoU of the masks"] = number(figures["miou_mask"])
        shown["objects missed (IoU below 0.5)"] = number(figures["missing_rate"])
        if figures["adjacent_pairs"]:
            what = f"of {figures['adjacent_pairs']} touching pairs of a class, both found"
            shown[what] = number(figures["adjacent_rate"])
    if (model := inputs.metrics["model"]) is not None:
        shown["AP50 of the model, on these images"] = number(model["segm"]["AP50"])
    if (held_out := inputs.metrics.get("validation")) is not None:
        what = f"AP50 of the model, on {held_out['on']}, against {held_out['against']}"
        shown[what] = number(held_out["AP50"])
    shown["time"] = duration(sum(inputs.report["seconds"].values()))
    return shown


def data(inputs: ReportInputs) -> dict[str, Any]:
    """The sizes of the images, and a table of the classes, the most frequent first."""
    points = inputs.points
    counts = Counter(annotation.category_id for annotation in points.annotations)
    quality: dict[int, list[float]] = {}
    for mask in inputs.masks:
        quality.setdefault(mask.category_id, []).append(mask.quality)
    medians = {id_: float(np.median(values)) for id_, values in quality.items()}
    figures = inputs.metrics["pseudo_masks"] or {}
    miou = {of["category_id"]: of["miou_mask"] for of in figures.get("per_class", [])}
    listed = sorted(points.categories, key=lambda c: (-counts[c.id], c.id))[:MOST_CLASSES]
    rows = [
        (c.name, counts[c.id], number(medians.get(c.id), 2), number(miou.get(c.id))) for c in listed
    ]
    head = ("class", "points", "median quality", "mIoU")
    columns = 4 if figures else 3
    sides = [max(image.size) for image in points.images]
    return {
        "sides": (min(sides, default=0), max(sides, default=0)),
        "head": head[:columns],
        "classes": [row[:columns] for row in rows],
    }


def proposals(inputs: ReportInputs) -> dict[str, Any]:
    """The sizes of the bags, and how good their best proposals are."""
    sizes = list(inputs.bag_sizes)
    most = max(sizes, default=1)
    counts = [sizes.count(size) for size in range(1, most + 1)]
    return {
        "mean": float(np.mean(sizes or [0])),
        "best": inputs.metrics["proposals"].get("best_of_bag_miou_mask"),
        "chart": charts.columns(counts, (1, most), "points by proposals", "proposals per point"),
    }


def steps(inputs: ReportInputs) -> charts.Html | None:
    """Mean IoU of what each step would deliver; None without ground truth."""
    figures = inputs.metrics["pseudo_masks"]
    if figures is None or figures["miou_mask"] is None:
        return None
    bag = inputs.metrics["proposals"]
    named = [
        ("most confident proposal", bag["sam_top1_miou_mask"]),
        ("consensus of the bag", bag["consensus_miou_mask"]),
        ("selected by the training", figures["selected_miou_mask"]),
        ("refined and delivered", figures["miou_mask"]),
        ("best of each bag (upper bound of selection)", bag["best_of_bag_miou_mask"]),
    ]
    rows = [(name, value or 0.0, number(value)) for name, value in named]
    return charts.bars(rows, "mean IoU", top=1.0, best=3)


def training(inputs: ReportInputs) -> dict[str, Any] | None:
    """A chart for each loss; None where no losses were kept."""
    points = inputs.report["losses"]
    if not points:
        return None
    names = dict.fromkeys(name for point in points for name in point["losses"])
    end = points[-1]["step"]
    curves = {
        name: [(p["step"], p["losses"][name]) for p in points if name in p["losses"]]
        for name in names
    }
    held_out = inputs.metrics.get("validation") or {"history": []}
    validated = [(v["step"] * end / v["of"], v["AP50"]) for v in held_out["history"]]
    return {
        "steps": end,
        "steps_per_point": -(-end // len(points)),
        "charts": [charts.curve(name, curve, end) for name, curve in curves.items()],
        "validation": charts.curve("AP50", validated, end) if validated else None,
        "against": held_out.get("against"),
    }


def quality(inputs: ReportInputs) -> dict[str, Any]:
    """The masks' quality, and with ground truth its calibration."""
    bins = [min(int(mask.quality * BINS), BINS - 1) for mask in inputs.masks]
    counts = [bins.count(b) for b in range(BINS)]
    measured = (inputs.metrics["pseudo_masks"] or {}).get("quality")
    if not measured:
        return {
            "measured": None,
            "histogram": charts.columns(counts, (0, 1), "masks by quality", "quality"),
        }
    wrong_ids = {id_ for id_, iou in inputs.ious.items() if iou < RIGHT}
    wrong = [0] * BINS
    for mask, bin_ in zip(inputs.masks, bins, strict=True):
        wrong[bin_] += mask.id in wrong_ids
    reliability = [(b["quality"], b["right"], b["count"]) for b in measured["bins"]]
    return {
        "measured": measured,
        "histogram": charts.columns(counts, (0, 1), "masks by quality", "quality", wrong),
        "reliability": charts.reliability(reliability),
        "bins": [(number(mean, 2), number(right, 2), count) for mean, right, count in reliability],
    }


def resources(inputs: ReportInputs) -> charts.Html:
    """Seconds by stage."""
    seconds: Mapping[str, float] = inputs.report["seconds"]
    rows = [(name, spent, duration(spent)) for name, spent in seconds.items()]
    return charts.bars(rows, "time by stage")


def recipe(inputs: ReportInputs) -> dict[str, Any]:
    """How to repeat the run: a command, a request, versions, settings."""
    report, config = inputs.report, inputs.config
    settings = report["proposals"]["settings"]
    command = ["sapnet", "train", "--points", "points.json", "--images", "images"]
    command += ["--method", config["method"], "--preset", config["preset"]]
    command += ["--seed", f"{report['seed']}", "--proposals", json.dumps(settings)]
    for name, value in inputs.overrides.items():
        command += ["--set", f"{name}={json.dumps(value)}"]
    weights = report["weights"]
    if weights["kind"] == "file":
        command += ["--weights", weights["detail"]]
    command += [*(["--truth", "instances.json"] if inputs.metrics["model"] else []), "--out", "run"]
    body = {
        "dataset_id": "…",
        **{name: config[name] for name in ("method", "preset")},
        "seed": report["seed"],
        "overrides": dict(inputs.overrides),
        "proposals": settings,
    }
    earlier = weights.get("model")
    if earlier:
        body["from_model"] = "…"
    digest = f", sha256 {weights['sha256'][:16]}…" if weights["sha256"] else ""
    facts = [
        ("seed", report["seed"]),
        *([("warm start from the model", f"sha256 {earlier[:16]}…")] if earlier else []),
        ("first weights", f"{weights['kind']}: {weights['detail']}{digest}"),
        ("fingerprint of the proposals", report["proposals"]["fingerprint"][:16]),
        *report["versions"].items(),
    ]
    return {
        # no command begins with another model's weights
        "command": None if earlier else shlex.join(command),
        "request": json.dumps(body, ensure_ascii=False),
        "facts": facts,
        "settings": [
            (name, value if isinstance(value, str) else json.dumps(value))
            for name, value in _flat(config)
        ],
    }


def _flat(values: Mapping[str, Any], prefix: str = "") -> list[tuple[str, Any]]:
    rows: list[tuple[str, Any]] = []
    for name, value in values.items():
        inner = _flat(value, f"{prefix}{name}.") if isinstance(value, Mapping) else None
        rows += inner if inner is not None else [(f"{prefix}{name}", value)]
    return rows
