"""How many images have to be confirmed, by the ranking of `GET /datasets/{id}/next` and at random.

    python benchmarks/next_image.py --data nuclei48/ --scenes 96 [--seeds 5] [--out FILE]
    python benchmarks/next_image.py --scenes 96 --choose     the weights, on scenes of other seeds

A simulation. In place of a segmenter that is trained for every step stands a logistic regression of
pixels on the frozen features of the prompter's body (EfficientNet-Lite0, strides 4 to 16), learned
from the true masks of the confirmed images. Its masks are the connected parts of each class; their
quality is how sure their pixels are on average, twice what is above one half. A third of the images
is held out, and mIoU is measured there: over all pixels, the mean of the classes. Images are
confirmed four at a time, and the model is learned anew after each four. The ranking begins with no
model, as a user does.

A folder of --data holds images/, points.json and instances.json. Each seed draws another third to
hold out, and other scenes; the random order is the mean of `--draws` of them.
"""

import json
import statistics
import tempfile
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
import typer
from ladder_data import DataSet
from pycocotools import mask as coco_mask
from scipy import ndimage
from torch import Tensor
from torch.nn import functional as F

from app.datasets.ranking import overlap
from sapnet.data.annotations.ground_truth import as_rle
from sapnet.data.descriptor import describe, vectors
from sapnet.data.ranking import WEIGHTS, Weights, rank
from sapnet.data.synthetic import make_scenes
from sapnet.proposals.prompter.body import Lite0
from sapnet.proposals.prompter.weights import packaged_state

BATCH = 4
PIXELS = 100  # of a class in an image that are learned from
DECAY = 1e-3
SMALL = 24.0  # pixels; images with objects below it are read at twice their size
LEAST = 6  # cells of a mask
CHOSEN_ON = (100, 101)
"""Seeds of the scenes on which the weights were chosen; figures are of others."""
ORDERS = ("random", "ranked")


@dataclass(frozen=True)
class Sample:
    """An image. features: (C, H, W); classes: (H, W) 0 is the ground; objects: how many."""

    features: Tensor
    classes: np.ndarray
    objects: int


@dataclass(frozen=True)
class Pool:
    """Images of a data set. looks: (N, F), as the service describes them."""

    name: str
    images: list[Sample]
    looks: np.ndarray
    classes: int


@torch.no_grad()
def read(data: DataSet, name: str) -> Pool:
    body = Lite0().eval()
    state = packaged_state()
    body.load_state_dict({k[5:]: v for k, v in state.items() if k.startswith("body.")})
    outlines = defaultdict(list)
    for one in data.truth["annotations"]:
        outlines[one["image_id"]].append(one)
    side = statistics.median(one["area"] ** 0.5 for one in data.truth["annotations"])
    number = {c.id: n for n, c in enumerate(data.points.categories, 1)}
    images, looks = [], []
    for info, _ in data.points:
        objects = outlines[info.id]
        features = _features(body, data.pixels(info), 2 if side < SMALL else 1)
        classes = np.zeros(features.shape[1:], np.int64)
        for one in objects:
            mask = coco_mask.decode(as_rle(one["segmentation"], *info.size)).astype(np.float32)
            share = F.interpolate(torch.from_numpy(mask)[None, None], classes.shape, mode="area")
            classes[share[0, 0].numpy() >= 0.5] = number[one["category_id"]]
        images.append(Sample(features, classes, len(objects)))
        path = data.folder / "images" / info.file_name
        looks.append(np.frombuffer(describe(path).features, np.uint8))
    sample = torch.cat([p.features.flatten(1)[:, ::37] for p in images], 1)
    mean, spread = sample.mean(1)[:, None, None], sample.std(1)[:, None, None].clamp(min=1e-3)
    scaled = [Sample((p.features - mean) / spread, p.classes, p.objects) for p in images]
    return Pool(name, scaled, vectors(np.stack(looks)), len(number))


def _features(body: Lite0, pixels: np.ndarray, scale: int) -> Tensor:
    height, width = (
        round(n * min(scale, 640 / max(pixels.shape)) / 32) * 32 for n in pixels.shape[:2]
    )
    image = (torch.from_numpy(pixels.astype(np.float32)).permute(2, 0, 1)[None] - 127) / 128
    image = F.interpolate(image, (height, width), mode="bilinear", antialias=True)
    levels = body(image)[:3]
    size = levels[0].shape[-2:]
    colours = F.interpolate(image, size, mode="area")
    joined = torch.cat([colours, *(F.interpolate(v, size, mode="bilinear") for v in levels)], 1)
    return joined[0, :, ::scale, ::scale].contiguous()


def learn(images: Sequence[Sample], classes: int, draw: np.random.Generator) -> Tensor:
    """Return weights (classes + 1, C + 1) of the regression, the last of each its bias."""
    rows, targets = [], []
    for sample in images:
        flat = sample.classes.ravel()
        places = [np.flatnonzero(flat == c) for c in np.unique(flat)]
        some = np.concatenate([draw.choice(p, min(len(p), PIXELS)) for p in places])
        rows.append(sample.features.flatten(1)[:, some].T)
        targets.append(torch.from_numpy(flat[some]))
    x, y = torch.cat(rows), torch.cat(targets)
    weights = torch.zeros(classes + 1, x.shape[1] + 1, requires_grad=True)
    optimizer = torch.optim.LBFGS([weights], max_iter=40, line_search_fn="strong_wolfe")

    def closure() -> Tensor:
        optimizer.zero_grad()
        loss = F.cross_entropy(x @ weights[:, :-1].T + weights[:, -1], y)
        loss = loss + DECAY * weights[:, :-1].square().sum()
        loss.backward()
        return loss

    optimizer.step(closure)
    return weights.detach()


@torch.no_grad()
def predict(sample: Sample, weights: Tensor) -> np.ndarray:
    """(classes + 1, H, W) probabilities."""
    logits = torch.einsum("kc,chw->khw", weights[:, :-1], sample.features)
    return torch.softmax(logits + weights[:, -1, None, None], 0).numpy()


def masks(shares: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Quality (N,) and box (N, 4) x, y, width, height of each mask."""
    best = shares.argmax(0)
    quality, boxes = [], []
    for number in range(1, len(shares)):
        parts, count = ndimage.label(best == number)
        ids = np.arange(1, count + 1)
        areas = ndimage.sum_labels(parts > 0, parts, ids)
        sure = ndimage.mean(shares[number], parts, ids)
        for area, mean, (rows, columns) in zip(
            areas, sure, ndimage.find_objects(parts), strict=True
        ):
            if area >= LEAST:
                quality.append(max(2 * mean - 1, 0))
                sides = (columns.stop - columns.start, rows.stop - rows.start)
                boxes.append((columns.start, rows.start, *sides))
    return np.array(quality), np.array(boxes, np.float64).reshape(-1, 4)


def miou(images: Sequence[Sample], weights: Tensor) -> float:
    """Mean over the classes of intersection over union, of the pixels of all images."""
    both, either = np.zeros((2, len(weights) - 1))
    for sample in images:
        best = predict(sample, weights).argmax(0)
        for number in range(1, len(weights)):
            one, other = best == number, sample.classes == number
            both[number - 1] += (one & other).sum()
            either[number - 1] += (one | other).sum()
    return float((both / np.maximum(either, 1)).mean())


def terms(
    pool: Pool, left: Sequence[int], done: Sequence[int], weights: Tensor | None
) -> np.ndarray:
    """(2, N) uncertainty and disagreement, as the service makes them of predicted masks."""
    if weights is None:
        return np.full((2, len(left)), np.nan)
    expected = statistics.mean(pool.images[n].objects for n in done)
    unsure, apart = [], []
    for number in left:
        quality, boxes = masks(predict(pool.images[number], weights))
        unsure.append((1 - quality).sum() + max(expected - len(quality), 0))
        apart.append(overlap(boxes))
    return np.array([unsure, apart])


def curve(pool: Pool, seed: int, most: int, weights: Weights | None, draw: int = 0) -> list[float]:
    """mIoU on the images held out after each batch. weights: of the ranking; None is by chance."""
    order = np.random.default_rng([seed, 1]).permutation(len(pool.images)).tolist()
    held_out = [pool.images[n] for n in order[: len(order) // 3]]
    left = order[len(order) // 3 :]
    chance = np.random.default_rng([seed, 2, draw])
    done: list[int] = []
    model, figures = None, []
    while left and len(done) < most:
        if weights is None:
            places = chance.permutation(len(left))[:BATCH]
        else:
            unsure, apart = terms(pool, left, done, model)
            looks = pool.looks[left], pool.looks[done]
            places = rank(unsure, apart, *looks, chosen=BATCH, weights=weights).order[:BATCH]
        done += [left[n] for n in places]
        left = [number for n, number in enumerate(left) if n not in set(places)]
        model = learn([pool.images[n] for n in done], pool.classes, chance)
        figures.append(miou(held_out, model))
    return figures


def needed(figures: Sequence[float], level: float) -> float:
    """How many images reach a level, between batches in proportion; infinite where none do."""
    best = np.maximum.accumulate(figures)
    if best[-1] < level:
        return float("inf")
    index = int(np.argmax(best >= level))
    if index == 0:
        return float(BATCH)
    return BATCH * (index + float((level - best[index - 1]) / (best[index] - best[index - 1])))


def compare(random: Sequence[float], ranked: Sequence[float]) -> dict[str, Any]:
    """Images that are needed for levels of mIoU between the first and the last of the random order.

    saved: the share of confirmations that the ranking saves at each level; negative where it needs
    more, None where it never comes there.
    """
    first, last = random[0], max(random)
    levels = {}
    for share in (0.25, 0.5, 0.75, 0.9):
        level = first + share * (last - first)
        chance, ours = needed(random, level), needed(ranked, level)
        saved = None if np.isinf(ours) else round(1 - ours / chance, 3)
        levels[f"{share:g}"] = {
            "miou": round(level, 4),
            "random": round(chance, 2),
            "ranked": None if np.isinf(ours) else round(ours, 2),
            "saved": saved,
        }
    return levels


def pools(
    data: Sequence[Path], scenes: int, seeds: Sequence[int]
) -> Iterator[tuple[str, list[Pool]]]:
    """The images of each seed, by data set; those of a folder are the same for all."""
    for folder in data:
        pool = read(DataSet.read(folder), folder.name)
        yield folder.name, [pool] * len(seeds)
    if scenes:
        made = []
        for seed in seeds:
            with tempfile.TemporaryDirectory() as folder:
                make_scenes(Path(folder), scenes, seed=seed)
                made.append(read(DataSet.read(Path(folder)), "scenes"))
        yield "scenes", made


def measure(
    some: Sequence[Pool], seeds: Sequence[int], most: int, draws: int, weights: Weights
) -> dict[str, Any]:
    by_chance, by_rank = [], []
    for pool, seed in zip(some, seeds, strict=True):
        each = [curve(pool, seed, most, None, draw) for draw in range(draws)]
        by_chance.append(np.mean(each, 0).tolist())
        by_rank.append(curve(pool, seed, most, weights))
    random, ranked = np.mean(by_chance, 0), np.mean(by_rank, 0)
    area = np.array(by_rank).mean(1) - np.array(by_chance).mean(1)
    return {
        "images": list(range(BATCH, BATCH * len(random) + 1, BATCH)),
        "random": random.round(4).tolist(),
        "ranked": ranked.round(4).tolist(),
        "gain": {"mean": round(float(area.mean()), 4), "by_seed": area.round(4).tolist()},
        "levels": compare(random.tolist(), ranked.tolist()),
    }


def choose(some: Sequence[Pool], seeds: Sequence[int], most: int) -> None:
    """Print how weights do; the terms of masks against those of looks."""
    shares = [(1, 0, 0, 0), (1, 0.25, 0, 0), (1, 0.25, 0.25, 0.25), (1, 0.25, 0.5, 0.5)]
    shares += [(1, 0, 0.5, 0.5), (1, 0.25, 1, 1), (0, 0, 0.5, 0.5)]
    for weights in [Weights(*some) for some in shares]:
        figures = [curve(pool, seed, most, weights) for pool, seed in zip(some, seeds, strict=True)]
        row = " ".join(f"{v:.3f}" for v in np.mean(figures, 0))
        typer.echo(f"{np.mean(figures):.4f}  {row}  {asdict(weights)}")


def main(
    data: Annotated[list[Path] | None, typer.Option(help="a folder, repeatable")] = None,
    scenes: Annotated[int, typer.Option(help="so many drawn scenes; 0 for none")] = 0,
    seeds: int = 5,
    draws: Annotated[int, typer.Option(help="random orders a seed")] = 2,
    most: Annotated[int, typer.Option(help="images that are confirmed")] = 20,
    choosing: Annotated[bool, typer.Option("--choose", help="try weights on other seeds")] = False,
    out: Annotated[Path | None, typer.Option(help="where to write the figures as JSON")] = None,
) -> None:
    torch.set_num_threads(1)
    numbers = list(CHOSEN_ON) if choosing else list(range(seeds))
    figures: dict[str, Any] = {"weights": asdict(WEIGHTS), "seeds": numbers, "sets": {}}
    for name, some in pools(data or [], scenes, numbers):
        if choosing:
            choose(some, numbers, most)
            continue
        figures["sets"][name] = told = measure(some, numbers, most, draws, WEIGHTS)
        typer.echo(f"{name}\n" + json.dumps(told, indent=2))
    if out is not None:
        out.write_text(json.dumps(figures, indent=2) + "\n")


if __name__ == "__main__":
    typer.run(main)
