"""One climb: every method on one dataset, one kind of proposals, one seed; in a process alone."""

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from ladder_data import DataSet
from ladder_learn import OnFrozen
from ladder_picks import Row, Scale, by_rule, picked
from ladder_rungs import CEILING, RULES, Stand, stands
from ladder_whole import EndToEnd

from sapnet.data.samples import ImageRecord
from sapnet.training.dataset import TrainingSet
from sapnet.types import Rle
from sapnet.utils.resources import peak_memory_mb


@dataclass(frozen=True)
class Climb:
    """What a process is asked. features: the file of `ladder_data.freeze`; None trains end to end.
    work: a folder; in it the store of proposals. shown: annotations whose masks are wanted back,
    for the figure."""

    folder: Path
    proposals: str
    seed: int
    preset: str
    overrides: dict[str, Any]
    weights: Path | None
    sam: dict[str, Any]
    features: Path | None
    work: Path
    shown: tuple[int, ...]

    @property
    def store(self) -> Path:
        return self.work / "proposals"


@dataclass(frozen=True)
class Climbed:
    """A row a method, of this seed; and by method the masks asked for, by annotation id."""

    rows: list[Row]
    shown: dict[str, dict[int, Rle]]


def climb(asked: Climb) -> Climbed:
    """Every rule and every rung. Seconds are those of the CPU, of one thread; end to end, of the
    clock, since much of that is waiting for a GPU."""
    torch.set_num_threads(1)
    data = DataSet.read(asked.folder)
    bags = dict(data.bags(asked.proposals, asked.seed, asked.store, asked.sam))
    records: list[ImageRecord] = list(TrainingSet(data.points, data.paths, bags))
    scale = Scale(data, bags)
    clock = time.process_time if asked.features else time.monotonic
    rows: list[Row] = []
    shown: dict[str, dict[int, Rle]] = {}
    for label, make in methods(asked, data, records, scale):
        began = clock()
        masks = make()
        seconds = clock() - began
        row = {"data": asked.folder.name, "proposals": asked.proposals, **label}
        row |= {"seed": asked.seed, **scale(masks)}
        rows.append({**row, "seconds": seconds, "peak_memory_mb": peak_memory_mb()})
        shown[label["method"]] = {
            mask["id"]: mask["segmentation"] for mask in masks if mask["id"] in asked.shown
        }
    return Climbed(rows, shown)


def methods(
    asked: Climb, data: DataSet, records: list[ImageRecord], scale: Scale
) -> Iterator[tuple[dict[str, Any], Callable[[], list[Row]]]]:
    """(method, title and below), and what makes its pseudo-masks: the lowest row comes first."""
    for rule, title in RULES.items():
        yield (
            label(rule, title),
            partial(picked, records, [by_rule(rule, record, asked.seed) for record in records]),
        )
    make: Callable[[Stand], list[Row]]
    if asked.features is None:
        make = EndToEnd(
            data,
            records,
            preset=asked.preset,
            seed=asked.seed,
            weights=asked.weights,
            work=asked.work / f"{asked.folder.name}-{asked.proposals}-{asked.seed}",
        )
    else:
        make = OnFrozen(
            data, records, features=asked.features, weights=asked.weights, seed=asked.seed
        )
    for stand in stands(asked.preset, asked.overrides, asked.proposals):
        yield label(stand.rung.method, stand.rung.title, stand.below), partial(make, stand)
    best = [scale.best(record) for record in records]
    yield label(CEILING, "best of bag"), partial(picked, records, best)


def label(method: str, title: str, below: str | None = None) -> dict[str, Any]:
    return {"method": method, "title": title, "below": below}
