"""Prediction of an image and of its mirror image, joined: what both show counts more.

Test-time augmentation by horizontal flips. Imports no torch.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
from pycocotools import mask as coco_mask

from sapnet.data.masks import decode, encode, tight_box
from sapnet.types import ByteArray

Results = list[dict[str, Any]]

AGREE = 0.5
"""IoU from which an instance and a mirrored one of its class are one object."""
ALONE = 0.5
"""Of its score: what is left to an instance that only one of the two images shows."""


def part_predictor(
    predict: Callable[[ByteArray, float], Results], score_threshold: float, mirror: bool
) -> Callable[[ByteArray], Results]:
    """What predicts an image, or a tile of it, with its mirror image where that is asked for."""
    if mirror:
        return lambda image: predict_mirrored(image, predict, score_threshold)
    return lambda image: predict(image, score_threshold)


def predict_mirrored(
    image: ByteArray, predict: Callable[[ByteArray, float], Results], score_threshold: float
) -> Results:
    """Predict an image and its mirror image.

    Of two instances that are one object the mask of the higher score stays; their score is the
    mean of both.

    Args:
        image: (H, W, 3) uint8.
        predict: COCO results of an image from a confidence threshold on.
        score_threshold: confidence threshold of the joined results.

    Returns:
        COCO results, best first.
    """
    lowest = score_threshold / 2  # fainter ones are no half of a pair
    plain = predict(image, lowest)
    flipped = [_turned(result) for result in predict(_mirror(image), lowest)]
    joined = [result for result in _joined(plain, flipped) if result["score"] >= score_threshold]
    return sorted(joined, key=lambda result: -result["score"])


def _mirror(image: ByteArray) -> ByteArray:
    return np.ascontiguousarray(image[:, ::-1])


def _turned(result: dict[str, Any]) -> dict[str, Any]:
    """A result of the mirror image in the image itself."""
    mask = encode(decode(result["segmentation"])[:, ::-1])
    return {**result, "segmentation": mask, "bbox": tight_box(mask)}


def _joined(plain: Results, flipped: Results) -> Results:
    """Pairs by falling sum of scores; each instance is in one pair at most."""
    masks = [[r["segmentation"] for r in results] for results in (plain, flipped)]
    pairs = []
    if plain and flipped:
        iou = np.asarray(coco_mask.iou(*masks, [0] * len(flipped)))
        for i, j in np.argwhere(iou >= AGREE).tolist():
            if plain[i]["category_id"] == flipped[j]["category_id"]:
                pairs.append((-(plain[i]["score"] + flipped[j]["score"]), i, j))
    first, second = set(range(len(plain))), set(range(len(flipped)))
    out = []
    for total, i, j in sorted(pairs):
        if i in first and j in second:
            first.remove(i)
            second.remove(j)
            better = max(plain[i], flipped[j], key=lambda result: result["score"])
            out.append({**better, "score": -total / 2})
    alone = [plain[i] for i in sorted(first)] + [flipped[j] for j in sorted(second)]
    return out + [{**result, "score": result["score"] * ALONE} for result in alone]
