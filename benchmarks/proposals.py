"""How good are the bags of a generator? Run: python benchmarks/proposals.py --data DIR [--limit N]

DIR holds images/, points.json and instances.json (COCO). Prints the mean mask IoU, in per cent,
of the best proposal of each bag, of the most confident one, and of the medoid that excludes other
objects' points (`consensus`); and the CPU seconds an image (mean, quartiles), of one thread, so
that a busy machine counts less.
"""

import json
import os
import platform
import statistics
import subprocess
import time
from pathlib import Path
from typing import Annotated

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import numpy as np
import typer
from pycocotools import mask as coco_mask

from sapnet.cli.main import parse_overrides
from sapnet.data.annotations.coco import load_points
from sapnet.data.annotations.ground_truth import as_rle, read_truth
from sapnet.data.images import read_rgb
from sapnet.labelers.consensus import consensus_pick
from sapnet.labelers.same_class_points import point_containment
from sapnet.proposals import build_generator
from sapnet.proposals.bags import make_bags


def main(
    data: Annotated[Path, typer.Option(help="folder with images/, points.json, instances.json")],
    limit: Annotated[int, typer.Option(help="how many images; 0 takes all")] = 0,
    kind: Annotated[str, typer.Option(help="hierarchy, hierarchy+prompter, sam")] = "hierarchy",
    setting: Annotated[
        list[str] | None, typer.Option("--set", help="of the generator: box_round=true, repeatable")
    ] = None,
    masks: Annotated[int, typer.Option(help="of a bag, at most")] = 16,
    json_out: Annotated[Path | None, typer.Option(help="keep the figures as JSON")] = None,
) -> None:
    scenes = list(load_points(data / "points.json"))
    scenes = scenes[:: max(1, len(scenes) // limit)][:limit] if limit else scenes
    true_masks = {a["id"]: a for a in read_truth(data / "instances.json")["annotations"]}
    settings = parse_overrides(setting or [])
    generator = build_generator({"kind": kind, **settings})
    seconds: list[float] = []
    rows: list[tuple[float, float, float, int]] = []
    for turn, (info, points) in enumerate([scenes[0], *scenes]):  # the first warms numba's cache
        image = read_rgb(data / "images" / info.file_name)
        start = time.process_time()
        bags = make_bags(generator, image, info, points, max_proposals=masks)
        if not turn:
            continue
        seconds.append(time.process_time() - start)
        for point, bag in zip(points, bags, strict=True):
            truth = as_rle(true_masks[point.id]["segmentation"], *info.size)
            iou = np.asarray(coco_mask.iou(list(bag.masks), [truth], [0]))[:, 0]
            medoid = consensus_pick(bag, point_containment(bag, point, points)[0])
            rows.append((iou.max(), iou[0], iou[medoid], len(bag)))
    best, top, central, length = np.mean(rows, axis=0)
    quartiles = statistics.quantiles(seconds, n=4) if len(seconds) > 1 else seconds * 3
    commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True)
    figures = {
        "data": data.name,
        "generator": kind,
        "settings": settings,
        "masks": masks,
        "images": len(scenes),
        "objects": len(rows),
        "best_of_bag": round(100 * float(best), 1),
        "most_confident": round(100 * float(top), 1),
        "consensus": round(100 * float(central), 1),
        "proposals_a_bag": round(float(length), 1),
        "cpu_seconds_mean": round(statistics.mean(seconds), 3),
        "cpu_seconds": [round(q, 3) for q in quartiles],
        "machine": f"{platform.machine()}, {os.cpu_count()} cores",
        "commit": commit.stdout.strip(),
    }
    for name, value in figures.items():
        print(f"{name:>18}  {value}")
    if json_out:
        json_out.write_text(json.dumps(figures, indent=2) + "\n")


if __name__ == "__main__":
    typer.run(main)
