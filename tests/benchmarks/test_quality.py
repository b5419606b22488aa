"""benchmarks/quality.py: the fit, its folds and its tables, on made-up masks."""

import importlib
import sys
from pathlib import Path

import numpy as np
import pytest

from sapnet.labelers.quality import WEIGHTS

FOLDER = Path(__file__).parents[2] / "benchmarks"


@pytest.fixture(scope="module")
def quality():
    sys.path.insert(0, str(FOLDER))
    try:
        yield importlib.import_module("quality")
    finally:
        sys.path.remove(str(FOLDER))


def made(quality, count, weights, intercept, seed=0):
    draw = np.random.default_rng(seed)
    told = draw.random((count, len(weights)))
    chance = 1 / (1 + np.exp(-intercept - told @ weights))
    right = (draw.random(count) < chance).astype(float)
    return quality.Masks(told, right, draw.integers(0, 40, count), chance)


@pytest.mark.slow
def test_the_fit_finds_the_weights_that_made_the_data(quality):
    true = np.array([4.0, 2.0, 0.0])
    sets = [made(quality, 20_000, true, -2.0, seed) for seed in (0, 1)]
    fitted = quality.fit(sets, ridge=0.0)
    assert fitted == pytest.approx([-2.0, *true], abs=0.15)


def test_weights_are_never_negative(quality):
    fitted = quality.fit([made(quality, 4000, np.array([3.0, -3.0]), 0.0)])
    assert fitted[1] > 1
    assert fitted[2] == 0


def test_each_set_weighs_the_same(quality):
    small, large = made(quality, 400, np.ones(2), 2.0), made(quality, 4000, np.ones(2), -3.0)
    fitted = quality.fit([small, large])
    said = [float(quality.said(masks, fitted).mean()) for masks in (small, large)]
    found = [float(masks.right.mean()) for masks in (small, large)]
    assert np.mean(said) == pytest.approx(np.mean(found), abs=1e-4)


def test_folds_are_of_whole_images(quality, monkeypatch):
    masks = made(quality, 500, np.ones(2), 0.0)
    seen = []
    fit = quality.fit
    monkeypatch.setattr(quality, "fit", lambda sets: seen.append(set(sets[0].image)) or fit(sets))
    out = quality.by_image(masks)
    assert ((out > 0) & (out < 1)).all()
    assert len(seen) == quality.FOLDS
    left_out = [set(masks.image) - images for images in seen]
    assert sorted(i for images in left_out for i in images) == sorted(set(masks.image))


@pytest.mark.slow
def test_tables_have_every_set_and_signal(quality):
    weights = np.array(list(WEIGHTS.values()))
    sets = {name: made(quality, 300, weights, -5.0, n) for n, name in enumerate(("a", "b"))}
    sets["all right"] = made(quality, 300, weights, -5.0, 2)
    sets["all right"].right[:] = 1
    found = quality.measure(sets)
    text = quality.tables(found)
    for name in (*sets, *WEIGHTS):
        assert f"| {name} |" in text
    assert "nan" in text  # the AUROC of a set without a wrong mask
