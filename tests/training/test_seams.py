"""A labeler and a segmenter of a few lines each go through a run by public arguments alone."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from pycocotools import mask as coco_mask
from torch import Tensor, nn
from torch.nn import functional as F

from sapnet.config.schema import Config
from sapnet.data.batch import Batch, ObjectMasks, PseudoLabels
from sapnet.data.images import read_rgb
from sapnet.data.masks import area, encode, tight_box
from sapnet.data.resize import MASK_STRIDE
from sapnet.data.sampler import Step
from sapnet.data.samples import mask_grid
from sapnet.errors import Stopped
from sapnet.labelers.base import Labeler
from sapnet.pipeline.events import Event, Progressed
from sapnet.pipeline.run import Run
from sapnet.segmenters.backbones import BackboneWithFpn
from sapnet.segmenters.base import Instances, Segmenter
from sapnet.segmenters.checkpoint import load_predictor
from sapnet.training.model import Builders
from sapnet.types import PseudoMask


class LastOfBag(Labeler):
    """Learns the last mask of each bag, and remembers how many steps it has labeled."""

    def __init__(
        self, config: Config, num_classes: int, channels: int, strides: tuple[int, ...]
    ) -> None:
        super().__init__()
        self.steps = 0
        self.known = nn.Parameter(torch.zeros(num_classes))

    def get_extra_state(self) -> dict[str, int]:
        return {"steps": self.steps}

    def set_extra_state(self, state: dict[str, int]) -> None:
        self.steps = state["steps"]

    def forward(
        self, batch: Batch, features: list[Tensor], output: Any, step: Step | None = None
    ) -> PseudoLabels:
        self.steps += step is not None
        masks, boxes = [], []
        for sample in batch.samples:
            bags = sample.record.bags
            last = np.array([len(bag) - 1 for bag in bags], dtype=np.int64)
            masks.append(mask_grid(sample, last, batch.mask_size, MASK_STRIDE))
            rows = [sample.boxes(bag)[-1] for bag in bags]
            boxes.append(torch.from_numpy(np.array(rows, np.float32).reshape(-1, 4)))
        classes = [torch.from_numpy(sample.record.labels) for sample in batch.samples]
        return PseudoLabels(
            classes=classes,
            assignment=masks,
            masks=[mask.float() for mask in masks],
            boxes=boxes,
            weights=[torch.ones(len(mask)) for mask in masks],
            losses={"known": self.known.square().sum()},
        )

    def deliver(
        self, batch: Batch, features: list[Tensor], labels: PseudoLabels, objects: ObjectMasks
    ) -> list[PseudoMask]:
        record = batch.samples[0].record
        return [
            PseudoMask(
                *(a.id, a.image_id, a.category_id, mask := bag.masks[-1]),
                *(tight_box(mask), area(mask), "selected", mask),
                mask_features={"predicted": float(drawn.mean())},
            )
            for a, bag, drawn in zip(record.annotations, record.bags, objects.probs[0], strict=True)
        ]


class OneMaskAClass(Segmenter):
    """Semantic segmentation: one map a class, each of which is one instance."""

    per_class = ("classify.",)

    def __init__(self, config: Config, num_classes: int, backbone: BackboneWithFpn) -> None:
        super().__init__(backbone)
        self.classify = nn.Conv2d(self.out_channels, num_classes, 1)

    def forward(self, images: Tensor) -> tuple[list[Tensor], Tensor]:
        features = self.backbone(images)
        return features, self.classify(features[0])

    def loss(self, output: Tensor, labels: PseudoLabels) -> tuple[dict[str, Tensor], ObjectMasks]:
        objects = self.object_masks(output, labels)
        terms = [
            F.binary_cross_entropy(probs, mask)
            for probs, mask in zip(objects.probs, labels.masks, strict=True)
            if len(mask)
        ]
        return {"map": torch.stack([output.sum() * 0, *terms]).sum()}, objects

    def object_masks(self, output: Tensor, labels: PseudoLabels) -> ObjectMasks:
        probs = [one[rows] for one, rows in zip(output.sigmoid(), labels.classes, strict=True)]
        drawn = [torch.arange(len(rows)) for rows in labels.classes]
        return ObjectMasks(probs, drawn, [one.detach().flatten(1).amax(1) for one in probs])

    def decode(self, output: Tensor, sizes: Any, original_sizes: Any) -> list[Instances]:
        found = []
        for logits, size in zip(output, original_sizes, strict=True):
            probs = F.interpolate(logits[None], size=size, mode="bilinear")[0].sigmoid()
            masks = [encode(np.ones(size, np.uint8)) for _ in probs]
            boxes = np.tile(np.array([0, 0, size[1], size[0]], np.float32), (len(masks), 1))
            scores = probs.flatten(1).amax(1).detach().numpy()
            found.append(Instances(np.arange(len(masks)), scores, masks, boxes))
        return found


BUILDERS = Builders(segmenter=OneMaskAClass, labeler=LastOfBag)
FIVE_STEPS = {"train.epochs": 5, "train.batch_size": 4}


def run(spec: Any, stop_at: int = 99) -> tuple[list[Progressed], Any]:
    """The training's events, and the report."""
    events: list[Event] = []

    def should_stop() -> bool:
        last = events[-1]
        return isinstance(last, Progressed) and last.stage == "train" and last.step >= stop_at

    report = Run(spec, events.append, should_stop, BUILDERS)()
    trained = [e for e in events if isinstance(e, Progressed) and e.stage == "train"]
    return trained, report


def rows_of(spec: Any) -> list[dict[str, Any]]:
    text = (spec.workdir / "result" / "pseudo_masks.ndjson").read_text()
    return [json.loads(line) for line in text.splitlines()]


@pytest.mark.slow
def test_strangers_train_deliver_and_predict(make_spec: Callable[..., Any], tmp_path: Path) -> None:
    spec = make_spec(tmp_path / "whole", overrides=FIVE_STEPS)
    trained, report = run(spec)
    assert [event.step for event in trained] == [1, 2, 3, 4, 5]
    assert all(event.losses.keys() == {"map", "known"} for event in trained)
    assert trained[-1].losses["map"] < trained[0].losses["map"]
    rows, document = rows_of(spec), spec.proposals["document"]
    parts = {n: min(masks, key=lambda m: m["score"]) for n, masks in document.items()}
    for row in rows:
        assert row["segmentation"] == parts[str(row["id"])]["segmentation"]
        assert row["area"] == coco_mask.area(row["segmentation"])
        assert 0 < row["quality"] < 1
    assert report["metrics"]["pseudo_masks"]["count"] == len(rows) > 0
    predictor = load_predictor(
        spec.workdir / "result" / "model.pt", device="cpu", build=OneMaskAClass
    )
    image = read_rgb(next(iter(spec.image_paths.values())))
    results = predictor.predict(image, score_threshold=0.0)
    assert {r["category_id"] for r in results} == {c.id for c in predictor.categories}


@pytest.mark.slow
def test_what_a_labeler_remembers_is_in_the_checkpoint(
    make_spec: Callable[..., Any], tmp_path: Path
) -> None:
    whole, report = run(make_spec(tmp_path / "whole", overrides=FIVE_STEPS))
    spec = make_spec(tmp_path / "parts", overrides=FIVE_STEPS)
    with pytest.raises(Stopped):
        run(spec, stop_at=2)
    state = torch.load(spec.workdir / "train" / "checkpoint.pt", weights_only=True)
    assert state["model"]["labeler._extra_state"] == {"steps": 2}
    rest, resumed = run(spec)
    assert [event.losses for event in rest] == [event.losses for event in whole[2:]]
    state = torch.load(spec.workdir / "train" / "checkpoint.pt", weights_only=True)
    assert state["model"]["labeler._extra_state"] == {"steps": 5}
    assert resumed["losses"] == report["losses"]


@pytest.mark.slow
def test_a_model_of_a_stranger_goes_on(make_spec: Callable[..., Any], tmp_path: Path) -> None:
    first = make_spec(tmp_path / "first", overrides=FIVE_STEPS)
    trained, _ = run(first)
    model = first.workdir / "result" / "model.pt"
    changes = {"backbone_weights": None, "initial_model": model, "overrides": FIVE_STEPS}
    later, _ = run(make_spec(tmp_path / "later", **changes))
    assert later[0].losses["map"] < trained[0].losses["map"]
