"""How much clicks improve a mask: mean IoU after 0 to 4, each at the centre of the largest error.

    python benchmarks/clicks.py --data nuclei48/ --data coco96/ --scenes 40 [--objects 24]
        [--prompter]

A folder of --data holds images/, points.json and instances.json. A mask to begin with is a proposal
of the hierarchy of IoU 0.3 to 0.7; the object's own point counts as a click where it has it.
--prompter: the learned prompter refines, not the image's edges alone.
"""

import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import numpy as np
import typer
from ladder_data import DataSet
from pycocotools import mask as coco_mask
from scipy.ndimage import distance_transform_edt

from sapnet.data.annotations.ground_truth import as_rle
from sapnet.data.synthetic import make_scenes
from sapnet.proposals.hierarchy.generator import HierarchyGenerator
from sapnet.proposals.interactive.click_refine import suggest
from sapnet.proposals.interactive.clicks import Click
from sapnet.types import BoolArray, ByteArray

LOW, HIGH, CLICKS, CANDIDATES = 0.3, 0.7, 4, 6


@dataclass(frozen=True)
class Start:
    """An object, and a middling proposal of its point. candidates: the bag's others."""

    image: ByteArray
    truth: BoolArray
    mask: BoolArray
    candidates: list[BoolArray]
    point: Click


def iou(one: BoolArray, two: BoolArray) -> float:
    return float((one & two).sum() / max((one | two).sum(), 1))


def worst_place(mask: BoolArray, truth: BoolArray) -> Click | None:
    """Where the largest part that is wrong is deepest; None where nothing is."""
    depths = {
        wanted: distance_transform_edt(np.pad(wrong, 1))[1:-1, 1:-1]
        for wanted, wrong in ((True, truth & ~mask), (False, mask & ~truth))
    }
    wanted = bool(depths[True].max() >= depths[False].max())
    if not depths[wanted].max():
        return None
    y, x = np.unravel_index(int(depths[wanted].argmax()), mask.shape)
    return Click(x + 0.5, y + 0.5, wanted)


def starts(data: DataSet, seed: int) -> Iterator[Start]:
    """At most two of an image, so that many images have their say."""
    outlines = {a["id"]: a["segmentation"] for a in data.truth["annotations"]}
    draw = np.random.default_rng(seed)
    infos = list(data.points)
    for index in draw.permutation(len(infos)):
        info, annotations = infos[index]
        image, found = data.pixels(info), 0
        raws = HierarchyGenerator().propose(image, info, annotations)
        for annotation, raw in zip(annotations, raws, strict=True):
            if found == 2 or annotation.id not in outlines:
                continue
            truth = coco_mask.decode(as_rle(outlines[annotation.id], *info.size)).astype(bool)
            masks = [np.asarray(m, bool) for m in raw.masks]
            fits = np.array([iou(m, truth) for m in masks])
            middling = np.flatnonzero((fits >= LOW) & (fits <= HIGH))
            if not len(middling):
                continue
            start = masks.pop(int(draw.choice(middling)))
            point = Click(annotation.x, annotation.y, True)
            yield Start(image, truth, start, masks[:CANDIDATES], point)
            found += 1


Refine = Callable[[list[Click], BoolArray], BoolArray]


def by_edges(start: Start) -> Refine:
    return lambda clicks, mask: suggest(start.image, clicks, mask, start.candidates)


def by_prompter(start: Start) -> Refine:
    """The image's features are made once, before the first click."""
    from sapnet.proposals.prompter import weights
    from sapnet.proposals.prompter.clicks import refine
    from sapnet.proposals.prompter.scene import Scene

    scene = Scene(weights.load(), start.image)
    return lambda clicks, mask: refine(scene, clicks, mask)


def climb(start: Start, refine: Refine, seconds: list[float]) -> list[float]:
    """IoU after each click; `seconds` of CPU are added to."""
    mask, row = start.mask, [iou(start.mask, start.truth)]
    y, x = int(start.point.y), int(start.point.x)
    held = y < mask.shape[0] and x < mask.shape[1] and mask[y, x] and start.truth[y, x]
    clicks = [start.point] if held else []
    for _ in range(CLICKS):
        click = worst_place(mask, start.truth)
        if click is not None:
            clicks = [c for c in clicks if (int(c.x), int(c.y)) != (int(click.x), int(click.y))]
            clicks.append(click)
            began = time.process_time()
            mask = refine(clicks, mask)
            seconds.append(time.process_time() - began)
        row.append(iou(mask, start.truth))
    return row


def line(name: str, data: DataSet, objects: int, seed: int, make: Callable[[Start], Refine]) -> str:
    rows, seconds = [], []
    for start in starts(data, seed):
        rows.append(climb(start, make(start), seconds))
        if len(rows) == objects:
            break
    means = " | ".join(f"{mean:.3f}" for mean in np.mean(rows, 0))
    return f"| {name} ({len(rows)}) | {means} | {np.median(seconds):.2f}, {max(seconds):.2f} |"


def main(
    data: Annotated[list[Path] | None, typer.Option(help="folder; may be repeated")] = None,
    scenes: Annotated[int, typer.Option(help="drawn scenes, 0 for none")] = 40,
    objects: Annotated[int, typer.Option(help="of each set")] = 24,
    seed: int = 0,
    prompter: Annotated[bool, typer.Option(help="the learned one refines")] = False,
) -> None:
    make = by_prompter if prompter else by_edges
    typer.echo(
        "| (objects) | 0 | 1 | 2 | 3 | 4 | CPU s, median, longest |\n|---|---|---|---|---|---|---|"
    )
    with tempfile.TemporaryDirectory() as name:
        if scenes:
            make_scenes(Path(name), scenes, size=(224, 224), seed=99)
            typer.echo(line("drawn scenes", DataSet.read(Path(name)), objects, seed, make))
        for folder in data or []:
            typer.echo(line(folder.name, DataSet.read(folder), objects, seed, make))


if __name__ == "__main__":
    typer.run(main)
