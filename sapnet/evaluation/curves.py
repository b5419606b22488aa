"""Precision against recall: as numbers for programs, and as a PNG for people. No torch."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFont

from sapnet.data.drawing import colour
from sapnet.evaluation.average_precision import AT, OF_COCO, count, mean
from sapnet.utils.files import atomic_write

Curve = npt.NDArray[np.float64]

NAMES = ("AP50", "AP75", "AP")
SAMPLED = 5  # of COCO's 101 recalls, every fifth one goes into the metrics
MOST_CLASSES = 100
_DRAWN_CLASSES = 10
_SIDE, _MARGIN, _GAP = 360, 44, 60  # pixels
_INK, _GRID, _AXIS = (40, 40, 40), (225, 225, 225), (120, 120, 120)


@dataclass(frozen=True)
class Curves:
    """Interpolated precision, in [0, 1], at `recalls`, (101,) from 0 to 1.

    Attributes:
        overall: by "AP50", "AP75" and "AP" (at each recall the mean over IoU 0.50 to 0.95), the
            means over the classes.
        classes: the same of each class that has true objects, by category id.
    """

    recalls: Curve
    overall: Mapping[str, Curve]
    classes: Mapping[int, Mapping[str, Curve]]


def precision_recall(
    detections: Sequence[dict[str, Any]],
    truth: dict[str, Any],
    *,
    image_ids: Collection[int] | None = None,
) -> Curves | None:
    """Precision-recall curves of masks, of arguments as those of `average_precision`.

    None where there is no true object.
    """
    counted = count(detections, truth, image_ids=image_ids)
    if counted is None:
        return None
    precision = counted.precision[..., 0]  # (T, 101, K), objects of all sizes
    by_name = {
        "AP50": precision[AT[0.5]],
        "AP75": precision[AT[0.75]],
        "AP": precision[OF_COCO].mean(0),
    }
    defined = {k: c for k, c in enumerate(counted.category_ids) if precision[0, 0, k] > -1}
    return Curves(
        recalls=counted.recalls,
        overall={name: p[:, list(defined)].mean(1) for name, p in by_name.items()},
        classes={c: {name: p[:, k] for name, p in by_name.items()} for k, c in defined.items()},
    )


def as_metrics(curves: Curves) -> dict[str, Any]:
    """The curves' part of `metrics.json`.

    The overall curves at 21 recalls, and the figures of each class, of the first hundred at most.
    """
    few = slice(None, None, SAMPLED)
    return {
        "recall": _rounded(curves.recalls[few]),
        **{name: _rounded(curve[few]) for name, curve in curves.overall.items()},
        "classes": [
            {"category_id": id, **{n: round(mean(c) or 0.0, 4) for n, c in of_class.items()}}
            for id, of_class in list(curves.classes.items())[:MOST_CLASSES]
        ],
    }


def _rounded(curve: Curve) -> list[float]:
    return [round(float(value), 4) for value in curve]


def draw_curves(path: Path, curves: Curves, names: Mapping[int, str]) -> None:
    """Write a PNG: on the left the curves over all classes, on the right each class's at IoU 0.5.

    Of many classes the five with the greatest AP50 are drawn and the five with the smallest.

    Args:
        names: of the classes, by category id.
    """
    overall = [(f"{n} {mean(c) or 0:.3f}", c) for n, c in curves.overall.items()]
    ranked = sorted(curves.classes.items(), key=lambda item: -(mean(item[1]["AP50"]) or 0))
    if len(ranked) > _DRAWN_CLASSES:
        ranked = ranked[: _DRAWN_CLASSES // 2] + ranked[-(_DRAWN_CLASSES // 2) :]
    classes = [
        (f"{names.get(id, str(id))[:24]} {mean(of_class['AP50']) or 0:.3f}", of_class["AP50"])
        for id, of_class in ranked
    ]
    width = 2 * (_MARGIN + _SIDE) + _GAP + _MARGIN // 2
    sheet = Image.new("RGB", (width, _SIDE + 2 * _MARGIN), "white")
    pen = ImageDraw.Draw(sheet)
    _panel(pen, _MARGIN, "all classes", curves.recalls, overall)
    _panel(pen, _MARGIN + _SIDE + _GAP + _MARGIN // 2, "classes, AP50", curves.recalls, classes)
    with atomic_write(path) as file:
        sheet.save(file, format="PNG")


def _panel(
    pen: ImageDraw.ImageDraw,
    left: int,
    title: str,
    recalls: Curve,
    lines: Sequence[tuple[str, Curve]],
) -> None:
    """Axes from 0 to 1, a line a curve, and their legend in the corner where curves are low."""
    font, small = ImageFont.load_default(14), ImageFont.load_default(11)
    top, bottom = _MARGIN, _MARGIN + _SIDE
    for tick in range(0, 11, 2):
        x, y = left + tick * _SIDE // 10, bottom - tick * _SIDE // 10
        pen.line((x, top, x, bottom), fill=_GRID)
        pen.line((left, y, left + _SIDE, y), fill=_GRID)
        pen.text((x, bottom + 4), f"{tick / 10:.1f}", fill=_AXIS, font=small, anchor="ma")
        pen.text((left - 5, y), f"{tick / 10:.1f}", fill=_AXIS, font=small, anchor="rm")
    pen.rectangle((left, top, left + _SIDE, bottom), outline=_AXIS)
    pen.text((left, top - 22), title, fill=_INK, font=font)
    pen.text((left + _SIDE, bottom + 20), "recall", fill=_INK, font=small, anchor="ra")
    pen.text((left + _SIDE, top - 18), "precision", fill=_INK, font=small, anchor="ra")
    for number, (label, curve) in enumerate(lines):
        xs, ys = left + recalls * _SIDE, bottom - curve * _SIDE
        pen.line([*zip(xs.tolist(), ys.tolist(), strict=True)], fill=colour(number), width=2)
        y = bottom - 10 - 16 * (len(lines) - number)
        pen.line((left + 10, y + 7, left + 28, y + 7), fill=colour(number), width=3)
        pen.text((left + 34, y), label, fill=_INK, font=small)
