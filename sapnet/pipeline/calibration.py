"""How a run's model comes by the quality of what it will predict: see `ScoreCalibration`."""

from collections.abc import Mapping, Sequence
from typing import Any

from sapnet.evaluation.score_calibration import ScoreCalibration, calibrate
from sapnet.pipeline.validation import Validator, as_truth
from sapnet.types import PointSet, PseudoMask


def calibrate_scores(
    points: PointSet,
    masks: Sequence[PseudoMask],
    detections: Sequence[Mapping[str, Any]],
    validator: Validator | None,
) -> ScoreCalibration:
    """Hold what the model detects against what is known of the same images.

    These are the images held out, and where there are none those whose detections are at hand,
    against the delivered masks; a delivered mask counts as much as its quality says.

    Args:
        points: of the run.
        masks: the delivered ones, with their quality.
        detections: COCO results with image_id.
        validator: of the images held out.
    """
    classes = {category.id for category in points.categories}
    certain = {mask.id: mask.quality for mask in masks}
    if validator is not None:
        images, truth = validator.reference_masks(masks)
        on = f"{len(images)} images held out"
        if not validator.is_agreement:
            certain = {}
    else:
        images = {detection["image_id"] for detection in detections}
        by_id = {mask.id: mask.segmentation for mask in masks if mask.image_id in images}
        truth = as_truth(points, [a for a in points.annotations if a.id in by_id], by_id)
        on = f"{len(images)} training images"
    return calibrate(detections, truth, images, classes, certain, on)
