"""Prediction by tiles on a mosaic of generated scenes, beside prediction scene by scene.

    python benchmarks/tiles.py MODEL [--side 8] [--score 0.3] [--seed 7]

MODEL is a trained model of `sapnet.data.synthetic`'s classes. The mosaic is side × side scenes that
no training saw; tiles of the scenes' size lie across their borders. Each true object should be
found once: a duplicate is a second instance on an object that has one (IoU >= 0.5), a part is an
instance of which most lies on an object of which it covers less than half.
"""

import resource
import tempfile
import time
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer

from sapnet.data.annotations.ground_truth import read_truth
from sapnet.data.images import read_rgb
from sapnet.data.masks import area, merge, moved, tight_box
from sapnet.data.synthetic import make_scenes
from sapnet.data.tiles import Results, TrainedSizes, predict_tiled
from sapnet.segmenters.checkpoint import load_predictor
from sapnet.types import ByteArray, Rle

SCENE = (224, 224)
FIRST_ID = 500_001  # scenes of ids that no demo draws


def counts(found: Results, truth: list[tuple[int, Rle]]) -> dict[str, int]:
    """How many objects were found, and how many instances are duplicates, parts or on nothing."""
    tally = {"objects": len(truth), "found": 0, "duplicates": 0, "parts": 0, "elsewhere": 0}
    boxes = np.array([_box(mask) for _, mask in truth])
    taken: set[int] = set()
    for result in sorted(found, key=lambda r: -r["score"]):
        mask, box = result["segmentation"], _box(result["segmentation"])
        near = (np.maximum(boxes[:, :2], box[:2]) < np.minimum(boxes[:, 2:], box[2:])).all(1)
        shares = {i: area(merge([mask, truth[i][1]], intersect=True)) for i in np.flatnonzero(near)}
        best = max(shares, key=lambda i: shares[i], default=None)
        if best is None or not shares[best]:
            tally["elsewhere"] += 1
            continue
        of_truth, of_mask = area(truth[best][1]), area(mask)
        if shares[best] >= 0.5 * (of_truth + of_mask - shares[best]):
            tally["duplicates" if best in taken else "found"] += 1
            taken.add(best)
        elif shares[best] >= 0.5 * of_mask:
            tally["parts"] += 1
        else:
            tally["elsewhere"] += 1
    return tally


def mosaic(folder: Path, side: int, seed: int) -> tuple[ByteArray, list[tuple[int, Rle]]]:
    """The image, and class and mask of each of its objects."""
    scenes = make_scenes(folder, side * side, SCENE, seed=seed, start_id=FIRST_ID)
    truth = read_truth(scenes.truth)
    size = SCENE[0] * side, SCENE[1] * side
    image, objects = np.zeros((*size, 3), np.uint8), []
    places = {}
    for number, record in enumerate(truth["images"]):
        top, left = SCENE[0] * (number // side), SCENE[1] * (number % side)
        places[record["id"]] = top, left
        pixels = read_rgb(scenes.images / record["file_name"])
        image[top : top + SCENE[0], left : left + SCENE[1]] = pixels
    for annotation in truth["annotations"]:
        mask = moved(annotation["segmentation"], *places[annotation["image_id"]], size)
        objects.append((annotation["category_id"], mask))
    return image, objects


def main(
    model: Annotated[Path, typer.Argument(help="model.pt")],
    side: int = 8,
    score: float = 0.3,
    seed: int = 7,
) -> None:
    """Print both tallies."""
    predictor = load_predictor(model)
    trained = TrainedSizes.from_meta(predictor.meta)
    with tempfile.TemporaryDirectory() as folder:
        image, truth = mosaic(Path(folder), side, seed)
    began, size = time.perf_counter(), (image.shape[0], image.shape[1])
    alone: list[Any] = []
    for top in range(0, size[0], SCENE[0]):
        for left in range(0, size[1], SCENE[1]):
            part = np.ascontiguousarray(image[top : top + SCENE[0], left : left + SCENE[1]])
            for result in predictor.predict(part, score, tiles="off"):
                mask = moved(result["segmentation"], top, left, size)
                alone.append({**result, "segmentation": mask})
    seconds = time.perf_counter() - began
    typer.echo(f"scene by scene   {seconds:6.1f} s  {counts(alone, truth)}")
    began = time.perf_counter()
    if trained and trained.tile_for(size):
        found = predictor.predict(image, score)
    else:
        found = predict_tiled(image, lambda part: predictor.predict(part, score), SCENE)
    seconds = time.perf_counter() - began
    typer.echo(f"by tiles         {seconds:6.1f} s  {counts(found, truth)}")
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    typer.echo(f"peak memory {peak:,.0f} MiB")


def _box(mask: Rle) -> Any:
    x, y, w, h = tight_box(mask)
    return np.array([x, y, x + w, y + h])


if __name__ == "__main__":
    typer.run(main)
