"""One climb: every method on one data set, one kind of proposals, one seed; in a process alone."""

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from ladder_data import DataSet, thaw
from ladder_learn import Chooser, Picks, choose, learn
from ladder_rungs import CEILING, RULES, stands
from pycocotools import mask as coco_mask

from sapnet.config import resolve_config
from sapnet.data.loader import ImageRecord
from sapnet.data.truth import as_rle
from sapnet.evaluate import average_precision, pseudo_mask_metrics
from sapnet.mil.consensus import consensus_pick
from sapnet.pipeline import Records, peak_memory_mb
from sapnet.types import Bag, Rle

Row = dict[str, Any]


@dataclass(frozen=True)
class Climb:
    """What a process is asked. features: the file of `ladder_data.freeze`. store: of proposals.
    shown: annotations whose masks are wanted back, for the picture."""

    folder: Path
    proposals: str
    seed: int
    preset: str
    overrides: dict[str, Any]
    features: Path
    store: Path
    sam: dict[str, Any]
    shown: tuple[int, ...]


@dataclass(frozen=True)
class Climbed:
    """A row a method, of this seed; and by method the masks asked for, by annotation id."""

    rows: list[Row]
    shown: dict[str, dict[int, Rle]]


def climb(asked: Climb) -> Climbed:
    """Every rule and every rung. Seconds are those of the CPU, of one thread."""
    torch.set_num_threads(1)
    data = DataSet.read(asked.folder)
    bags = dict(data.bags(asked.proposals, asked.seed, asked.store, asked.sam))
    scale = Scale(data, bags)
    rows: list[Row] = []
    shown: dict[str, dict[int, Rle]] = {}
    for label, masks, seconds in climbing(asked, data, bags, scale):
        row = {"data": asked.folder.name, "proposals": asked.proposals, **label}
        row |= {"seed": asked.seed, **scale(masks)}
        rows.append({**row, "seconds": seconds, "peak_memory_mb": peak_memory_mb()})
        shown[label["method"]] = {
            mask["id"]: mask["segmentation"] for mask in masks if mask["id"] in asked.shown
        }
    return Climbed(rows, shown)


def climbing(
    asked: Climb, data: DataSet, bags: dict[int, list[Bag]], scale: "Scale"
) -> Iterator[tuple[dict[str, Any], list[Row], float]]:
    """(method, title and below; pseudo-masks; seconds), from the lowest row to the highest."""
    config = resolve_config("sapnet++", asked.preset, asked.overrides)
    records: list[ImageRecord] = list(Records(data.points, data.paths, bags, config))
    for rule, title in RULES.items():
        began = time.process_time()
        picks = [by_rule(rule, record, asked.seed) for record in records]
        yield label(rule, title), picked(records, picks), time.process_time() - began
    frozen, num_classes = thaw(asked.features), len(data.points.categories)
    chooser: Chooser | None = None
    for stand in stands(asked.preset, asked.overrides):
        began = time.process_time()
        if stand.rung.work == "train" or chooser is None:
            chooser = learn(frozen, records, num_classes, stand.config, asked.seed)
        picks = choose(chooser, frozen, records, stand.config)
        place = label(stand.rung.method, stand.rung.title, stand.below)
        yield place, picked(records, picks), time.process_time() - began
    yield label(CEILING, "best of bag"), picked(records, [scale.best(r) for r in records]), 0.0


def label(method: str, title: str, below: str | None = None) -> dict[str, Any]:
    return {"method": method, "title": title, "below": below}


def by_rule(rule: str, record: ImageRecord, seed: int) -> Picks:
    """The picks that need no learning."""
    selected, certainty = [], []
    for bag, foreign in zip(record.bags, record.foreign, strict=True):
        if rule == "random":
            index = int(np.random.default_rng([seed, bag.annotation_id % 2**64]).integers(len(bag)))
        elif rule == "largest":
            index = int(np.argmax(coco_mask.area(list(bag.masks))))
        elif rule == "sam-top1":
            index = int(np.argmax(bag.confidence))
        else:
            index = consensus_pick(bag, foreign)
        selected.append(index)
        certainty.append(float(bag.confidence[index]))
    return Picks(selected, certainty)


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
                    "score": pick.certainty[n],
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
        figures = pseudo_mask_metrics(masks, self.bags, self.data.points, self.data.truth)
        ap = average_precision(masks, self.data.truth, image_ids=self.images)
        return {
            **{name: figures[name] for name in ("miou_mask", "miou_box", "gap_local", "gap_group")},
            **{name.lower(): value for name, value in ap.items()},
            "objects": figures["count"],
        }

    def best(self, record: ImageRecord) -> Picks:
        """The best of each bag, its quality the very IoU: the ceiling of any selection."""
        selected, certainty = [], []
        for bag in record.bags:
            ious = np.zeros(len(bag))
            if bag.annotation_id in self.true:
                true = as_rle(self.true[bag.annotation_id]["segmentation"], *record.info.size)
                ious = coco_mask.iou(list(bag.masks), [true], [0])[:, 0]
            selected.append(int(np.argmax(ious)))
            certainty.append(float(ious.max()))
        return Picks(selected, certainty)
