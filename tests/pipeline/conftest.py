"""A run that takes seconds: four small scenes, bags made by hand from their true masks."""

import json
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as coco_mask

from sapnet.data.synthetic import Scenes, make_scenes
from sapnet.pipeline.events import Event
from sapnet.pipeline.run import Run
from sapnet.pipeline.spec import RunSpec

TINY: dict[str, Any] = {
    "backbone.fpn_channels": 16,
    "mil.fc_channels": 24,
    "mil.background_negatives": 8,
    "mil.box_mining": True,
    "mil.instance_branch": True,
    "mil.prior_medoid": 2.0,
    "mil.prior_confidence": 0.0,
    "mil.completeness": True,
    "mil.part_negatives": 6,
    "solo.num_grids": [8, 6, 4, 3, 2],
    "solo.scale_ranges": [[1, 16], [8, 24], [16, 32], [24, 48], [40, 2048]],
    "solo.channels": 16,
    "solo.stacked_convs": 1,
    "solo.mask_channels": 16,
    "solo.mask_feature_channels": 16,
    "data.short_sides": [64],
    "data.max_long_side": 96,
    "train.epochs": 3,
    "train.batch_size": 2,
    "train.warmup_steps": 2,
    "train.learning_rate": 5e-4,
    "train.checkpoint_every": 1000,
    "teacher.enabled": False,
    "output.blend": False,
    "output.stride": 4,
    "output.agreement": 0.5,
}


@pytest.fixture(scope="session")
def tiny() -> dict[str, Any]:
    return dict(TINY)


@pytest.fixture(scope="session")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> Scenes:
    return make_scenes(tmp_path_factory.mktemp("scenes"), 4, (96, 128), seed=3)


@pytest.fixture(scope="session")
def given(scenes: Scenes) -> dict[str, Any]:
    """Proposals: of each object the whole, one that leaks, and its upper left part."""
    document: dict[str, list[dict[str, Any]]] = {}
    for row in json.loads(scenes.truth.read_text())["annotations"]:
        whole = coco_mask.decode(row["segmentation"]).astype(bool)
        leaking = whole | np.roll(whole, 5, axis=1) | np.roll(whole, 5, axis=0)
        part = whole & ~np.roll(whole, (8, 8), axis=(0, 1))
        masks = [("whole", whole, 0.6), ("leaking", leaking, 0.9), ("part", part, 0.7)]
        document[str(row["id"])] = [
            {"segmentation": encode(mask), "score": score} for _, mask, score in masks
        ]
    return {"kind": "given", "document": document}


def encode(mask: np.ndarray) -> dict[str, Any]:
    rle = coco_mask.encode(np.asfortranarray(mask, dtype=np.uint8))
    return {"size": [int(side) for side in rle["size"]], "counts": rle["counts"].decode()}


def go(spec: RunSpec, should_stop: Callable[[dict[str, Any]], bool] = lambda _: False) -> Any:
    """Run to the end or to the stop. should_stop sees the last event. Events, steps, report."""
    events: list[dict[str, Any]] = []
    report, error = None, None

    def emit(event: Event) -> None:
        events.append(event.to_dict())

    try:
        report = Run(spec, emit, lambda: should_stop(events[-1]))()
    except Exception as raised:  # handed to the test, which says what it must be
        error = raised
    steps = {
        e["step"]: e["losses"] for e in events if e["event"] == "progress" and e["stage"] == "train"
    }
    return SimpleNamespace(events=events, steps=steps, report=report, error=error, spec=spec)


def result_of(spec: RunSpec) -> dict[str, str]:
    folder = spec.workdir / "result"
    return {n: (folder / n).read_text() for n in ("pseudo_masks.ndjson", "metrics.json")}


@pytest.fixture(scope="session")
def make_spec(scenes: Scenes, weights: Path, given: dict[str, Any]) -> Callable[..., RunSpec]:
    """make_spec(workdir, **changes): the scenes with their truth; overrides go on top of TINY."""

    def make(workdir: Path, **changes: Any) -> RunSpec:
        images = json.loads(scenes.points.read_text())["images"]
        fields: dict[str, Any] = {
            "points": scenes.points,
            "truth": scenes.truth,
            "image_paths": {i["id"]: scenes.images / i["file_name"] for i in images},
            "workdir": workdir,
            "proposal_store": workdir / "proposals",
            "proposals": given,
            "backbone_weights": weights,
            "seed": 7,
            **changes,
        }
        fields["overrides"] = {**TINY, **changes.get("overrides", {})}
        return RunSpec(**fields)

    return make


@pytest.fixture
def small_world(tmp_path: Path, weights: Path) -> Callable[..., RunSpec]:
    """small_world(sizes, annotations, **changes): noise images of (h, w) `sizes`, ids from 0.

    annotations: (image_id, category_id, x, y). Two classes, 4 and 9, or those of `categories`.
    Without given masks every bag is the disc around its point.
    """

    def make(
        sizes: list[tuple[int, int]],
        annotations: list[tuple[int, int, float, float]],
        categories: tuple[int, ...] = (4, 9),
        **changes: Any,
    ) -> RunSpec:
        rng = np.random.default_rng(0)
        images, paths = [], {}
        for index, (height, width) in enumerate(sizes):
            paths[index] = tmp_path / f"{index}.png"
            pixels = rng.integers(0, 256, (height, width, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(paths[index])
            images.append(
                {"id": index, "file_name": f"{index}.png", "height": height, "width": width}
            )
        points = tmp_path / "points.json"
        rows = [
            {"id": n, "image_id": i, "category_id": c, "point": [x, y]}
            for n, (i, c, x, y) in enumerate(annotations)
        ]
        kinds = [{"id": c, "name": f"class {c}"} for c in categories]
        points.write_text(json.dumps({"images": images, "annotations": rows, "categories": kinds}))
        overrides = {**TINY, "train.epochs": 1, **changes.pop("overrides", {})}
        return RunSpec(
            points=points,
            image_paths=paths,
            workdir=tmp_path / "work",
            proposal_store=tmp_path / "proposals",
            proposals=changes.pop("proposals", {"kind": "given", "document": {}}),
            backbone_weights=weights,
            overrides=overrides,
            **changes,
        )

    return make


@pytest.fixture(name="go", scope="session")
def go_fixture() -> Callable[..., Any]:
    return go


@pytest.fixture(name="result_of", scope="session")
def result_of_fixture() -> Callable[[RunSpec], dict[str, str]]:
    return result_of


@pytest.fixture(scope="session")
def finished(
    make_spec: Callable[..., RunSpec], tmp_path_factory: pytest.TempPathFactory
) -> SimpleNamespace:
    """One unbroken sapnet++ run that many tests look at."""
    return go(make_spec(tmp_path_factory.mktemp("finished")))


@pytest.fixture
def _signals() -> Iterator[None]:
    """Commands install handlers for the life of their process, which here is the test's."""
    numbers = (signal.SIGTERM, signal.SIGINT)
    before = [signal.getsignal(number) for number in numbers]
    yield
    for number, handler in zip(numbers, before, strict=True):
        signal.signal(number, handler)
