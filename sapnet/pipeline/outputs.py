"""Outputs of a run beside its masks: its identity, the model's description, the report."""

import hashlib
import json
import platform
from collections.abc import Mapping
from dataclasses import asdict
from importlib.metadata import version
from typing import Any

from sapnet import __version__
from sapnet.data.tiles import TrainedSizes
from sapnet.errors import is_disk_full
from sapnet.evaluation.pseudo_masks import ious_with, true_masks
from sapnet.evaluation.report import ReportInputs, write_report
from sapnet.evaluation.score_calibration import ScoreCalibration
from sapnet.pipeline.context import RunContext
from sapnet.pipeline.validation import given_subsets
from sapnet.proposals.base import ProposalGenerator
from sapnet.proposals.cached import StoredBags, boxes_digest, masks_digest
from sapnet.segmenters.backbones import WeightsOrigin
from sapnet.types import PointSet, PseudoMask
from sapnet.utils.files import file_sha256


def run_identity(ctx: RunContext, points: PointSet, generator: ProposalGenerator) -> dict[str, Any]:
    """The settings that a run's checkpoint depends on."""
    initial = ctx.spec.initial_model
    return {
        **ctx.config.to_dict(),
        "seed": ctx.spec.seed,
        "points": hashlib.sha256(repr(points).encode("utf-8", "replace")).hexdigest()[:16],
        "proposals": generator.fingerprint()[:16],
        "masks": masks_digest(points),
        "boxes": boxes_digest(points),
        "subsets": subsets_digest(given_subsets(ctx.spec, points)),
        "initial_model": file_sha256(initial)[:16] if initial else None,
    }


def subsets_digest(subsets: Mapping[int, str]) -> str | None:
    """Digest of the user's own split, 16 hex digits; None where there is none."""
    text = json.dumps(sorted(subsets.items()))
    return hashlib.sha256(text.encode()).hexdigest()[:16] if subsets else None


def summary_of(validation: Mapping[str, Any]) -> dict[str, Any]:
    """What a model says of its own validation: figures, and the score threshold of the best F1."""
    best = validation["at_best_f1"] or {"score_threshold": None, "f1": None}
    return {
        **{name: validation[name] for name in ("on", "against", "AP", "AP50", "AP75")},
        **{name: best[name] for name in ("score_threshold", "f1")},
    }


def describe_model(
    ctx: RunContext,
    points: PointSet,
    generator: ProposalGenerator,
    origin: WeightsOrigin,
    validation: Mapping[str, Any] | None = None,
    calibration: ScoreCalibration | None = None,
) -> dict[str, Any]:
    """The description of the model that is stored with its weights.

    Args:
        validation: of `metrics.json`.
        calibration: of its scores.
    """
    packages = ("torch", "torchvision", "numpy", "pycocotools")
    return {
        "categories": [
            asdict(c) for c in sorted(points.categories, key=lambda category: category.id)
        ],
        "config": ctx.config.to_dict(),
        "weights": asdict(origin),
        "seed": ctx.spec.seed,
        "pixel_ranges": ctx.pixel_ranges,
        "proposals": {
            "generator": generator.name,
            "fingerprint": generator.fingerprint(),
            # the masks that a user brought are data, not a setting
            "settings": {k: v for k, v in ctx.spec.proposals.items() if k != "document"},
        },
        "validation": summary_of(validation) if validation else None,
        "score_calibration": calibration.to_meta() if calibration else None,
        "image_sizes": TrainedSizes.of([image.size for image in points.images]).to_meta(),
        "images": len(points.images),
        "annotations": len(points.annotations),
        "versions": {
            "sapnet": __version__,
            "python": platform.python_version(),
            **{name: version(name) for name in packages},
        },
    }


def draw_report(
    ctx: RunContext,
    report: dict[str, Any],
    points: PointSet,
    bags: StoredBags,
    masks: list[PseudoMask],
    truth: dict[str, Any] | None,
) -> None:
    """Write `report.html`. A failure is a warning, since the run's results are there without it."""
    try:
        true = true_masks(points, truth) if truth is not None else {}
        inputs = ReportInputs(
            report=report,
            points=points,
            masks=masks,
            bag_sizes=[size for image in points.images for size in bags.sizes(image.id)],
            paths=ctx.spec.image_paths,
            overrides=ctx.spec.overrides,
            true=true,
            ious=ious_with(masks, true),
        )
        write_report(ctx.result / "report.html", inputs)
    except Exception as error:
        if is_disk_full(error):
            raise
        what = f"the report was not drawn: {type(error).__name__}: {error}"
        ctx.warn(what)
