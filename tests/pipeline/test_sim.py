"""The method sim whole: known losses, a run taken up again, masks in their boxes."""

import json

import numpy as np
import pytest
import torch

from sapnet.data.annotations.coco import load_points
from sapnet.errors import Stopped

from .conftest import go, result_of


@pytest.fixture(scope="module")
def boxes(scenes, tmp_path_factory):
    """The scenes' points, two in three with the box of the true mask."""
    document = json.loads(scenes.points.read_text())
    truth = {row["id"]: row["bbox"] for row in json.loads(scenes.truth.read_text())["annotations"]}
    for place, row in enumerate(document["annotations"]):
        if place % 3:
            row["bbox"] = truth[row["id"]]
    path = tmp_path_factory.mktemp("boxes") / "boxes.json"
    path.write_text(json.dumps(document))
    return path


SETTINGS = {"train.epochs": 3, "sim.warmup": 0.3, "sim.rare": 2, "sim.pixels": 64}
# six steps with seed 7 on the four scenes; pseudo-masks from the third on
PINNED = {
    "cls": [1.07282, 1.07521, 1.09392, 1.08542, 1.05704, 1.09586],
    "proj": [1.25229, 1.13534, 1.16684, 1.08910, 1.07995, 1.11739],
    "pair": [0.0, 0.16116, 0.27561, 0.33867, 0.69013, 0.27566],
    "pseudo": [0.85494, 0.84569, 0.82243, 0.82258],
}


@pytest.fixture(scope="module")
def whole(make_spec, boxes, tmp_path_factory):
    folder = tmp_path_factory.mktemp("sim")
    outcome = go(make_spec(folder, points=boxes, method="sim", overrides=SETTINGS))
    if outcome.error is not None:
        raise outcome.error
    return outcome


@pytest.mark.slow
def test_seeded_steps(whole):
    """Who changes these figures on purpose pins the new ones."""
    assert set(whole.steps[6]) == {*PINNED, "psm", "srm", "sasd"}
    for term, expected in PINNED.items():
        got = [losses[term] for losses in whole.steps.values() if term in losses]
        assert got == pytest.approx(expected, rel=1e-3), term


@pytest.mark.slow
def test_taken_up_again(make_spec, boxes, whole, tmp_path):
    """Copy and prototypes are in the checkpoint; the tail is the unbroken run's."""
    changes = {"points": boxes, "method": "sim", "overrides": SETTINGS}
    spec = make_spec(tmp_path, **changes)
    seen = {}
    for stop in (1, 4, 99):
        outcome = go(spec, lambda event, stop=stop: event.get("step", 0) >= stop)
        assert isinstance(outcome.error, Stopped) or stop == 99
        seen |= outcome.steps
    assert seen == whole.steps
    assert result_of(spec) == result_of(whole.spec)
    state = torch.load(tmp_path / "train" / "checkpoint.pt", weights_only=True)["model"]
    assert state["labeler.prototypes.updates"].sum() > 0
    copied = {name for name in state if name.startswith("labeler.copied.")}
    learned = [name for name in copied if "head.conv_kernel" in name]
    assert learned
    for name in learned:  # what is delivered is the copy
        own = name.replace("labeler.copied", "segmenter")
        assert not torch.equal(state[name], state[own])
    model = torch.load(tmp_path / "result" / "model.pt", weights_only=True)["state_dict"]
    weights = {name.replace("labeler.copied.", ""): state[name] for name in learned}
    assert all(torch.equal(model[name], value) for name, value in weights.items())


@pytest.mark.slow
def test_delivered_masks_are_in_their_boxes(whole, boxes):
    guides = {a.id: a.guide for a in load_points(boxes).annotations}
    lines = result_of(whole.spec)["pseudo_masks.ndjson"].splitlines()
    masks = [json.loads(line) for line in lines]
    assert len(masks) == len(guides)
    for mask in masks:
        if (box := guides[mask["id"]]) is not None:
            x, y, w, h = mask["bbox"]
            edges = np.array([box[0] - x, box[1] - y, x + w - box[2], y + h - box[3]])
            assert (edges <= 0.5).all()
    assert whole.report["metrics"]["pseudo_masks"]["miou_mask"] > 0.6


@pytest.mark.slow
def test_from_points_and_without_a_copy(make_spec, tmp_path):
    """Objects are learned from from a third of the steps on; before, they weigh nothing."""
    settings = {**SETTINGS, "sim.copy": "self", "refine.enabled": False}
    outcome = go(make_spec(tmp_path, method="sim", overrides=settings))
    if outcome.error is not None:
        raise outcome.error
    assert [outcome.steps[n]["proj"] > 0 for n in range(1, 7)] == [False] * 2 + [True] * 4
    state = torch.load(tmp_path / "train" / "checkpoint.pt", weights_only=True)["model"]
    assert not any(name.startswith("labeler.copied") for name in state)
    lines = result_of(outcome.spec)["pseudo_masks.ndjson"].splitlines()
    assert any(json.loads(line)["source"] == "refined" for line in lines)
