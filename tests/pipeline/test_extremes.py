"""Data at the edges, through the whole run: one class, 300 objects in an image, a long tail of
classes with one example each, images without objects, and no object at all."""

import json
import math
import shutil
import subprocess
import sys
from dataclasses import dataclass
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as coco_mask

from sapnet.errors import InvalidDataset

NOISE = 12
MOST_MEMORY = 600  # MB more for 270 objects more; 180 were seen


@dataclass(frozen=True)
class Disc:
    """One object: its class's index, its middle and its radius, in pixels."""

    kind: int
    x: float
    y: float
    radius: float

    def mask(self, size, grow=1.0):
        rows, columns = np.ogrid[: size[0], : size[1]]
        away = (columns + 0.5 - self.x) ** 2 + (rows + 0.5 - self.y) ** 2
        return away <= (grow * self.radius) ** 2


def encode(mask):
    rle = coco_mask.encode(np.asfortranarray(mask, dtype=np.uint8))
    return {"size": [int(side) for side in rle["size"]], "counts": rle["counts"].decode()}


def grid(count, size, radius, kind=lambda n: 0):
    """Discs in rows, so that none touch."""
    across = math.ceil(math.sqrt(count * size[1] / size[0]))
    down = math.ceil(count / across)
    dx, dy = size[1] / across, size[0] / down
    return [
        Disc(kind(n), (n % across + 0.5) * dx, (n // across + 0.5) * dy, radius)
        for n in range(count)
    ]


@pytest.fixture
def world(make_spec, tmp_path):
    """world(images, categories, **changes): discs in their class's colour on noise, with truth.

    images: the discs of each. Of every object there are three proposals: a part, which is the
    most confident, the object itself, and one that is too large.
    """

    def make(images, categories, size=(96, 128), **changes):
        rng = np.random.default_rng(0)
        colors = rng.integers(60, 256, (len(categories), 3))
        head = {
            "images": [
                {"id": n, "file_name": f"{n}.png", "height": size[0], "width": size[1]}
                for n in range(len(images))
            ],
            "categories": [{"id": c, "name": f"class {c}"} for c in categories],
        }
        points, truth, bags, paths = [], [], {}, {}
        for image_id, discs in enumerate(images):
            pixels = np.full((*size, 3), 30.0)
            for disc in discs:
                mask, id_ = disc.mask(size), len(points)
                pixels[mask] = colors[disc.kind]
                own = {"id": id_, "image_id": image_id, "category_id": categories[disc.kind]}
                points.append({**own, "point": [disc.x, disc.y]})
                truth.append({**own, "segmentation": encode(mask), "iscrowd": 0})
                bags[str(id_)] = [
                    {"segmentation": encode(disc.mask(size, grow)), "score": score}
                    for grow, score in ((0.6, 0.9), (1.0, 0.7), (1.3, 0.6))
                ]
            pixels += rng.normal(0, NOISE, pixels.shape)
            paths[image_id] = tmp_path / f"{image_id}.png"
            Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(paths[image_id])
        for name, rows in (("points", points), ("truth", truth)):
            (tmp_path / f"{name}.json").write_text(json.dumps({**head, "annotations": rows}))
        return make_spec(
            tmp_path / "work",
            points=tmp_path / "points.json",
            truth=tmp_path / "truth.json",
            image_paths=paths,
            **{"proposals": {"kind": "given", "document": bags}, **changes},
        )

    return make


def checked(outcome):
    """What must hold whatever the data: finite losses, a mask for every annotation, and metrics
    that are those of the masks, worked out here a second time. Returns rows and metrics."""
    if outcome.error is not None:
        raise outcome.error
    assert outcome.steps
    for losses in outcome.steps.values():
        assert all(math.isfinite(value) for value in losses.values())
    result = outcome.spec.workdir / "result"
    rows = [json.loads(line) for line in (result / "pseudo_masks.ndjson").read_text().splitlines()]
    points = json.loads(outcome.spec.points.read_text())
    truth = {a["id"]: a for a in json.loads(outcome.spec.truth.read_text())["annotations"]}
    assert [(row["id"], row["image_id"], row["category_id"]) for row in rows] == [
        (a["id"], a["image_id"], a["category_id"]) for a in points["annotations"]
    ]
    ious = {}
    for row in rows:
        mask = coco_mask.decode(row["segmentation"]).astype(bool)
        true = coco_mask.decode(truth[row["id"]]["segmentation"]).astype(bool)
        assert row["area"] == mask.sum() > 0
        assert 0 <= row["quality"] <= 1
        ious.setdefault(row["category_id"], []).append((mask & true).sum() / (mask | true).sum())
    metrics = json.loads((result / "metrics.json").read_text())
    figures = metrics["pseudo_masks"]
    assert figures["count"] == len(rows)
    assert figures["miou_mask"] == pytest.approx(np.concatenate([*ious.values()]).mean())
    per_class = {c["category_id"]: (c["count"], c["miou_mask"]) for c in figures["per_class"]}
    assert per_class == {c: (len(some), pytest.approx(np.mean(some))) for c, some in ious.items()}
    assert metrics["proposals"]["best_of_bag_miou_mask"] == pytest.approx(1)
    return rows, metrics


@pytest.mark.slow
@pytest.mark.parametrize(
    ("method", "as_printed"),
    [
        ("sapnet++", False),
        ("sapnet++", True),
        ("sapnet", False),
        ("mil", False),
    ],
)
def test_one_class(world, go, method, as_printed):
    """As printed, a softmax over the classes, the score of a single one is constant."""
    images = [grid(6, (96, 128), 7 + 2 * n) for n in range(3)]
    overrides = {
        "mil.softmax_over_k": as_printed,
        "mil.instance_branch": None,
        "refine.warmup": 0.0,
        "train.epochs": 4,
    }
    outcome = go(world(images, [7], method=method, overrides=overrides))
    _, metrics = checked(outcome)
    assert [c["category_id"] for c in metrics["pseudo_masks"]["per_class"]] == [7]
    assert set(metrics["model"]) == {"on", "segm", "bbox", "curves"}
    psm = [losses["psm"] for losses in outcome.steps.values()]
    assert as_printed or psm[-1] < psm[0]


@pytest.mark.slow
def test_a_long_tail_of_classes(world, go):
    """Sixteen classes with one example each beside one with twelve; ids with gaps, and a class
    that nobody used."""
    categories = [3 * n + 2 for n in range(18)]
    kinds = [*range(1, 17), *[0] * 12]
    images = [
        grid(7, (96, 128), 9, lambda n, at=at: kinds[7 * at + n]) for at in range(len(kinds) // 7)
    ]
    outcome = go(world(images, categories, overrides={"refine.warmup": 0.0}))
    _, metrics = checked(outcome)
    counts = {c["category_id"]: c["count"] for c in metrics["pseudo_masks"]["per_class"]}
    assert counts == {2: 12, **dict.fromkeys(categories[1:17], 1)}
    described = json.loads((outcome.spec.workdir / "result" / "model.json").read_text())
    assert [c["id"] for c in described["categories"]] == categories


@pytest.mark.slow
def test_most_images_without_objects(world, go):
    """And one image a step, so that most steps see none; the first does."""
    images = [[], [], grid(4, (96, 128), 12), [], []]
    overrides = {"train.batch_size": 1, "train.epochs": 2, "refine.warmup": 0.0}
    overrides["train.empty_images"] = True
    outcome = go(world(images, [1, 2], overrides=overrides))
    rows, metrics = checked(outcome)
    assert {row["image_id"] for row in rows} == {2}
    assert metrics["model"]["segm"]["AP"] is not None
    empty = [losses for losses in outcome.steps.values() if losses["mask"] == 0]
    assert len(empty) == 8
    for losses in empty:  # only the classifier learns: that nothing is there
        assert losses["cls"] > 0
        assert losses["aff"] == losses["sasd"] == 0


@pytest.mark.parametrize("crowds", [0, 3])
@pytest.mark.parametrize("method", ["consensus", "sapnet++"])
def test_no_object_at_all(world, go, method, crowds):
    """Said before any work is done. A crowd is no object."""
    spec = world([[], []], [1], method=method)
    document = json.loads(spec.points.read_text())
    document["annotations"] = [
        {"id": n, "image_id": 0, "category_id": 1, "point": [5, 5], "iscrowd": 1}
        for n in range(crowds)
    ]
    spec.points.write_text(json.dumps(document))
    outcome = go(spec)
    assert isinstance(outcome.error, InvalidDataset)
    assert "/annotations: there is no annotation to train on" in str(outcome.error)
    assert outcome.events == []


@pytest.mark.slow
def test_three_hundred_objects_in_one_image(world):
    """Memory is compared with that of thirty, since what the libraries take differs by machine."""
    most = {}
    for count in (30, 300):
        outcome, most[count] = in_a_process(world, count)
        rows, _ = checked(outcome)
        assert len(rows) == count
        refined = sum(row["refined"] is not None for row in rows)
        assert refined > 0.8 * count  # each has cells of its own
        shutil.rmtree(outcome.spec.workdir)
    assert most[300] < most[30] + MOST_MEMORY, most


def in_a_process(world, count):
    """A run of its own on an image of so many objects. Returns its outcome and peak in MB."""
    size = (480, 640)
    overrides = {
        "data.short_sides": [192],
        "data.max_long_side": 256,
        "solo.num_grids": [40, 36, 24, 16, 12],
        "refine.warmup": 0.0,
    }
    spec = world([grid(count, size, 11, lambda n: n % 3)], [1, 2, 3], size, overrides=overrides)
    job = {
        "points": str(spec.points),
        "truth": str(spec.truth),
        "image_paths": {str(k): str(v) for k, v in spec.image_paths.items()},
        "workdir": str(spec.workdir),
        "proposal_store": str(spec.proposal_store),
        "overrides": spec.overrides,
        "proposals": spec.proposals,
        "backbone_weights": str(spec.backbone_weights),
    }
    path = spec.points.with_name("JOB.json")
    path.write_text(json.dumps(job))
    command = [sys.executable, "-m", "sapnet.cli", "run", str(path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    events = [json.loads(line) for line in done.stdout.splitlines()]
    assert events[-1]["event"] == "done"
    steps = {e["step"]: e["losses"] for e in events if e.get("stage") == "train"}
    return SimpleNamespace(error=None, steps=steps, spec=spec), events[-1]["peak_memory_mb"]
