"""Picks without learning, the ceiling of any pick, and what picks are worth."""

from collections.abc import Sequence
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import numpy as np
from ladder_data import DataSet
from pycocotools import mask as coco_mask

from sapnet.config.schema import MilConfig
from sapnet.data.annotations.ground_truth import as_rle
from sapnet.data.samples import ImageRecord
from sapnet.evaluation import average_precision, pseudo_mask_metrics
from sapnet.labelers.consensus import consensus_pick
from sapnet.labelers.sapnet.bag_features import bag_features
from sapnet.types import Bag

Row = dict[str, Any]


@dataclass(frozen=True)
class Picks:
    """Of one image's N bags: index into each, confidence in [0, 1]; where it was learned, the
    probabilities of each bag's masks, (N, M)."""

    selected: list[int]
    confidence: list[float]
    posterior: np.ndarray | None = None


def by_rule(rule: str, record: ImageRecord, seed: int) -> Picks:
    """The picks that need no learning; each is as sure as its confidence, or its support."""
    selected, confidence = [], []
    known = bag_features(record, MilConfig())
    per_bag = zip(record.bags, known.contains_other_point, known.medoid, strict=True)
    for bag, excluded, medoid in per_bag:
        score = bag.confidence
        if rule == "random":
            index = int(np.random.default_rng([seed, bag.annotation_id % 2**64]).integers(len(bag)))
        elif rule == "largest":
            index = int(np.argmax(coco_mask.area(list(bag.masks))))
        elif rule == "sam-top1":
            index = int(np.argmax(bag.confidence))
        else:
            index, score = consensus_pick(bag, excluded), medoid
        selected.append(index)
        confidence.append(float(score[index]))
    return Picks(selected, confidence)


def picked(records: Sequence[ImageRecord], picks: Sequence[Picks]) -> list[Row]:
    """Pseudo-masks, as in `pseudo_masks.ndjson`, that are the bags' own masks."""
    rows = []
    for record, pick in zip(records, picks, strict=True):
        for n, (annotation, bag) in enumerate(zip(record.annotations, record.bags, strict=True)):
            mask = bag.masks[pick.selected[n]]
            rows.append(
                {
                    "id": annotation.id,
                    "image_id": annotation.image_id,
                    "category_id": annotation.category_id,
                    "segmentation": mask,
                    "bbox": coco_mask.toBbox(mask).tolist(),
                    "score": pick.confidence[n],
                }
            )
    return rows


class Scale:
    """Measures pseudo-masks by the truth, which nothing else here sees."""

    def __init__(self, data: DataSet, bags: dict[int, list[Bag]]) -> None:
        self.data = data
        self.bags = {bag.annotation_id: bag for group in bags.values() for bag in group}
        self.images = {image.id for image in data.points.images}
        self.true = {a["id"]: a for a in data.truth["annotations"] if not a["iscrowd"]}

    def __call__(self, masks: list[Row]) -> Row:
        """mIoUs, gaps, and the AP family of the masks scored by their quality; all in [0, 1]."""
        found = [SimpleNamespace(**mask) for mask in masks]
        figures = pseudo_mask_metrics(found, self.bags, self.data.points, self.data.truth)
        ap = average_precision(masks, self.data.truth, image_ids=self.images)
        return {
            **{name: figures[name] for name in ("miou_mask", "miou_box", "gap_local", "gap_group")},
            **{name.lower(): value for name, value in ap.items()},
            "objects": figures["count"],
        }

    def best(self, record: ImageRecord) -> Picks:
        """The best of each bag, its quality the very IoU: the ceiling of any selection."""
        selected, confidence = [], []
        for bag in record.bags:
            ious = np.zeros(len(bag))
            if bag.annotation_id in self.true:
                true = as_rle(self.true[bag.annotation_id]["segmentation"], *record.info.size)
                ious = coco_mask.iou(list(bag.masks), [true], [0])[:, 0]
            selected.append(int(np.argmax(ious)))
            confidence.append(float(ious.max()))
        return Picks(selected, confidence)
