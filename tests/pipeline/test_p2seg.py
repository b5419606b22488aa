"""The method p2seg whole: steps whose losses are known, a run taken up again, its masks."""

import json

import numpy as np
import pytest

from sapnet.data.annotations.coco import load_points
from sapnet.data.masks import holds_points
from sapnet.errors import Stopped

from .conftest import go, result_of

SETTINGS = {"train.epochs": 3, "p2seg.least_part": 12.0}
# six steps with seed 7 on the four scenes; I2S changes the labels from the third on
PINNED = {
    "mask": [2.69329, 2.58891, 2.66021, 2.51279, 2.55315, 2.56486],
    "cls": [1.08680, 1.08691, 1.08339, 1.07965, 1.07142, 1.09791],
    "s2i": [2.42385, 2.24308, 1.95760, 1.81523, 1.72710, 1.75668],
    "i2s": [0.99811, 0.98638, 0.98450, 0.96834, 0.96018, 0.97413],
}


@pytest.fixture(scope="module")
def whole(make_spec, tmp_path_factory):
    outcome = go(make_spec(tmp_path_factory.mktemp("p2seg"), method="p2seg", overrides=SETTINGS))
    if outcome.error is not None:
        raise outcome.error
    return outcome


@pytest.mark.slow
def test_seeded_steps(whole):
    """Who changes these figures on purpose pins the new ones."""
    assert set(whole.steps[1]) == {*PINNED, "psm", "srm", "sasd"}
    for term, expected in PINNED.items():
        got = [whole.steps[number][term] for number in range(1, 7)]
        assert got == pytest.approx(expected, rel=1e-3), term


@pytest.mark.slow
def test_taken_up_again(make_spec, whole, tmp_path):
    """From a step before and from one after I2S sets in; the tail is the unbroken run's."""
    spec = make_spec(tmp_path, method="p2seg", overrides={**SETTINGS, "train.checkpoint_every": 1})
    seen = {}
    for stop in (1, 3, 99):
        outcome = go(spec, lambda event, stop=stop: event.get("step", 0) >= stop)
        assert isinstance(outcome.error, Stopped) or stop == 99
        seen |= outcome.steps
    assert seen == whole.steps
    assert result_of(spec) == result_of(whole.spec)


@pytest.mark.slow
def test_delivered_masks_hold_their_points(whole, scenes):
    points = {a.id: (a.x, a.y) for a in load_points(scenes.points).annotations}
    lines = result_of(whole.spec)["pseudo_masks.ndjson"].splitlines()
    masks = [json.loads(line) for line in lines]
    assert {mask["source"] for mask in masks} <= {"selected", "refined"}
    assert any(mask["source"] == "refined" for mask in masks)
    for mask in masks:
        if mask["source"] == "refined":
            assert holds_points(mask["segmentation"], np.array([points[mask["id"]]])).all()
    figures = whole.report["metrics"]["pseudo_masks"]
    assert 0 <= figures["missing_rate"] <= 1
    assert figures["adjacent_pairs"] >= 0
