"""A model at one score: the threshold of the best F1, and what is taken for what there. No torch.

A detection is right where its mask has an IoU of 0.5 or more with a true object that no better one
took.
"""

import math
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from pycocotools import mask as coco_mask

from sapnet.data.annotations.ground_truth import as_rle
from sapnet.data.masks import Size

RIGHT_IOU = 0.5
MOST_PAIRS = 200


@dataclass(frozen=True)
class OperatingPoint:
    """The score threshold at which F1 is greatest.

    Attributes:
        score_threshold: detections of at least this score count.
        f1, precision, recall: in [0, 1], over all classes, a detection of another class is wrong.
        confusion: (true category id, predicted category id) -> objects, the most frequent first;
            None stands for nothing: an object that was not found, a detection of none.
    """

    score_threshold: float
    f1: float
    precision: float
    recall: float
    confusion: Mapping[tuple[int | None, int | None], int]

    def to_dict(self) -> dict[str, Any]:
        """For `metrics.json`; of the confusions the first two hundred."""
        pairs = list(self.confusion.items())[:MOST_PAIRS]
        return {
            "score_threshold": math.floor(self.score_threshold * 1e4) / 1e4,  # never above it
            **{name: round(getattr(self, name), 4) for name in ("f1", "precision", "recall")},
            "confusion": [
                {"true": true, "predicted": predicted, "count": count}
                for (true, predicted), count in pairs
            ],
        }


def best_operating_point(
    detections: Sequence[Mapping[str, Any]],
    truth: Mapping[str, Any],
    image_ids: Collection[int],
    category_ids: Collection[int],
) -> OperatingPoint | None:
    """Find the score of the best F1.

    Args:
        detections: COCO results with image_id.
        truth: ground truth as `read_truth` gives it; crowds are left out.
        image_ids: of the images that count.
        category_ids: of the classes that count.

    Returns:
        None where there is no detection, or no object.
    """
    results, true = (
        _by_image(detections, category_ids),
        _by_image(truth["annotations"], category_ids),
    )
    sizes = {image["id"]: (image["height"], image["width"]) for image in truth["images"]}
    images = [_Image(results[id_], true[id_], sizes[id_]) for id_ in image_ids]
    count = sum(len(image.true) for image in images)
    pairs = [pair for image in images for pair in image.matched(by_class=True)]
    if not count or not pairs:
        return None
    pairs.sort(key=lambda pair: -pair[0])
    scores = np.array([score for score, _, _ in pairs])
    right = np.cumsum([true is not None for _, true, _ in pairs])
    f1 = 2 * right / (np.arange(1, len(pairs) + 1) + count)
    f1[:-1][scores[:-1] == scores[1:]] = -1.0  # equal scores come together
    best = int(f1.argmax())
    threshold = float(scores[best])
    confusion: Counter[tuple[int | None, int | None]] = Counter()
    for image in images:
        confusion += image.confusion(threshold)
    return OperatingPoint(
        score_threshold=threshold,
        f1=float(f1[best]),
        precision=float(right[best] / (best + 1)),
        recall=float(right[best] / count),
        confusion=dict(confusion.most_common()),
    )


def matched_scores(
    detections: Sequence[Mapping[str, Any]],
    truth: Mapping[str, Any],
    image_ids: Collection[int],
    category_ids: Collection[int],
) -> list[tuple[float, int | None]]:
    """The score of each detection, and the id of the object of its class that it is; None: of none.

    Args:
        detections: COCO results with image_id.
        truth: ground truth as `read_truth` gives it; crowds are left out.
        image_ids: of the images that count.
        category_ids: of the classes that count.
    """
    results = _by_image(detections, category_ids)
    true = _by_image(truth["annotations"], category_ids)
    sizes = {image["id"]: (image["height"], image["width"]) for image in truth["images"]}
    pairs: list[tuple[float, int | None]] = []
    for id_ in image_ids:
        image = _Image(results[id_], true[id_], sizes[id_])
        pairs += [
            (score, None if place is None else image.own[place]["id"])
            for score, place, _ in image.matched(by_class=True)
        ]
    return pairs


def _by_image(
    items: Iterable[Mapping[str, Any]], category_ids: Collection[int]
) -> defaultdict[int, list[Mapping[str, Any]]]:
    grouped = defaultdict(list)
    for item in items:
        if item["category_id"] in category_ids:
            grouped[item["image_id"]].append(item)
    return grouped


class _Image:
    """The objects of one image, what was found there, and their IoUs."""

    def __init__(
        self, results: Sequence[Mapping[str, Any]], true: Sequence[Mapping[str, Any]], size: Size
    ) -> None:
        own = [item for item in true if not item["iscrowd"]]
        results = sorted(results, key=lambda item: -item["score"])
        masks = [as_rle(item["segmentation"], *size) for item in own]
        self.true = [item["category_id"] for item in own]
        self.own = own
        self.results = [(item["score"], item["category_id"]) for item in results]
        self.ious: npt.NDArray[np.float64] = np.zeros((len(results), len(own)))
        if results and own:
            self.ious = coco_mask.iou(
                [item["segmentation"] for item in results], masks, [0] * len(masks)
            )

    def matched(
        self, *, by_class: bool, threshold: float = 0.0
    ) -> list[tuple[float, int | None, int]]:
        """Score, index of the object that it is (None: of none), and class of each detection."""
        free = np.ones(len(self.true), dtype=bool)
        pairs: list[tuple[float, int | None, int]] = []
        for (score, category), row in zip(self.results, self.ious, strict=True):
            if score < threshold:
                break
            fits = free & (row >= RIGHT_IOU)
            if by_class:
                fits &= np.array([true == category for true in self.true], dtype=bool)
            place = int(np.where(fits, row, -1.0).argmax()) if fits.any() else None
            if place is not None:
                free[place] = False
            pairs.append((score, place, category))
        return pairs

    def confusion(self, threshold: float) -> "Counter[tuple[int | None, int | None]]":
        """How often an object of one class was taken for one of another, at a score."""
        pairs = self.matched(by_class=False, threshold=threshold)
        counted: Counter[tuple[int | None, int | None]] = Counter(
            (None if place is None else self.true[place], category) for _, place, category in pairs
        )
        matched = {place for _, place, _ in pairs}
        counted.update((true, None) for n, true in enumerate(self.true) if n not in matched)
        return counted
