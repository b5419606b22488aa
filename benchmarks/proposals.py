"""How good are the bags of a generator? Run: python benchmarks/proposals.py --data DIR [--limit N]

DIR holds images/, points.json and instances.json (COCO). Prints the mean mask IoU, in per cent,
of the best proposal of each bag, of the most confident one, and of the medoid that excludes other
objects' points (`consensus`), and the seconds an image (median and quartiles) of one thread.
"""

import json
import os
import platform
import statistics
import subprocess
import time
from pathlib import Path
from typing import Annotated, Any

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import numpy as np
import typer
from PIL import Image
from pycocotools import mask as coco_mask

from sapnet.proposals import build_generator
from sapnet.proposals.bags import make_bags
from sapnet.types import Bag, ImageInfo, PointAnnotation


def load(folder: Path, limit: int) -> tuple[list[tuple[ImageInfo, list[PointAnnotation]]], Any]:
    """The images with their points, spread evenly over the set, and annotation id -> true RLE."""
    document = json.loads((folder / "points.json").read_text())
    grouped: dict[int, list[PointAnnotation]] = {}
    for a in document["annotations"]:
        x, y = a["point"]
        point = PointAnnotation(a["id"], a["image_id"], a["category_id"], float(x), float(y))
        grouped.setdefault(point.image_id, []).append(point)
    images = [
        ImageInfo(i["id"], i["file_name"], i["width"], i["height"]) for i in document["images"]
    ]
    size = {image.id: image.size for image in images}
    truth = {}
    for a in json.loads((folder / "instances.json").read_text())["annotations"]:
        segmentation = a["segmentation"]
        if isinstance(segmentation, list) or isinstance(segmentation["counts"], list):
            segmentation = coco_mask.frPyObjects(segmentation, *size[a["image_id"]])
        if isinstance(segmentation, list):
            segmentation = coco_mask.merge(segmentation)
        truth[a["id"]] = segmentation
    step = max(1, len(images) // limit) if limit else 1
    chosen = images[::step][: limit or None]
    return [(image, grouped.get(image.id, [])) for image in chosen], truth


def consensus(bag: Bag, point: PointAnnotation, points: list[PointAnnotation]) -> int:
    """The medoid of the proposals that hold no other point of the class, unless all do."""
    masks = coco_mask.decode(list(bag.masks)).astype(bool)
    others = [p for p in points if p.id != point.id and p.category_id == point.category_id]
    foreign = np.array([masks[int(p.y), int(p.x)] for p in others]).reshape(len(others), -1)
    excluded = foreign.any(axis=0) if others else np.zeros(len(bag), bool)
    score = bag.overlaps.sum(axis=1)
    return int(np.argmax(np.where(excluded & ~excluded.all(), -1.0, score)))


def main(
    data: Annotated[Path, typer.Option(help="folder with images/, points.json, instances.json")],
    limit: Annotated[int, typer.Option(help="how many images; 0 takes all")] = 0,
    kind: Annotated[str, typer.Option(help="hierarchy or sam")] = "hierarchy",
    json_out: Annotated[Path | None, typer.Option(help="keep the figures as JSON")] = None,
) -> None:
    scenes, truth = load(data, limit)
    generator = build_generator({"kind": kind})
    seconds: list[float] = []
    rows: list[tuple[float, float, float, int]] = []
    for turn, (info, points) in enumerate([scenes[0], *scenes]):  # the first warms numba's cache
        with Image.open(data / "images" / info.file_name) as opened:
            image = np.asarray(opened.convert("RGB"))
        start = time.perf_counter()
        bags = make_bags(generator, image, info, points)
        if not turn:
            continue
        seconds.append(time.perf_counter() - start)
        for point, bag in zip(points, bags, strict=True):
            iou = np.asarray(coco_mask.iou(list(bag.masks), [truth[point.id]], [0]))[:, 0]
            rows.append((iou.max(), iou[0], iou[consensus(bag, point, points)], len(bag)))
    best, top, medoid, length = np.mean(rows, axis=0)
    quartiles = statistics.quantiles(seconds, n=4) if len(seconds) > 1 else seconds * 3
    commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True)
    figures = {
        "data": data.name,
        "generator": kind,
        "images": len(scenes),
        "objects": len(rows),
        "best_of_bag": round(100 * float(best), 1),
        "most_confident": round(100 * float(top), 1),
        "consensus": round(100 * float(medoid), 1),
        "proposals_a_bag": round(float(length), 1),
        "seconds_an_image": [round(q, 3) for q in quartiles],
        "machine": f"{platform.machine()}, {os.cpu_count()} cores",
        "commit": commit.stdout.strip(),
    }
    for name, value in figures.items():
        print(f"{name:>18}  {value}")
    if json_out:
        json_out.write_text(json.dumps(figures, indent=2) + "\n")


if __name__ == "__main__":
    typer.run(main)
