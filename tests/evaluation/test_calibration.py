"""Figures of the quality, against plain loops."""

from types import SimpleNamespace

import numpy as np
import pytest

from sapnet.evaluation.calibration import auroc, bins_of, brier, reliability


def test_auroc_against_pairs():
    draw = np.random.default_rng(0)
    for _ in range(20):
        suspicion = draw.integers(0, 6, 30)
        wrong = draw.random(30) < 0.4
        pairs = [
            1.0 if b > g else 0.5 if b == g else 0.0
            for b in suspicion[wrong]
            for g in suspicion[~wrong]
        ]
        assert auroc(suspicion, wrong) == pytest.approx(np.mean(pairs))


def test_auroc_needs_both():
    assert auroc([1, 2], [True, True]) is None
    assert auroc([1, 2], [False, False]) is None
    assert auroc([], []) is None


def test_bins():
    found = bins_of([0.0, 0.05, 0.95, 1.0, 1.0], [0, 1, 1, 1, 0])
    assert found == [
        {"quality": 0.025, "right": 0.5, "count": 2},
        {"quality": 0.9833, "right": 0.6667, "count": 3},
    ]


def test_of_records():
    records = [SimpleNamespace(id=n, quality=q) for n, q in ((1, 0.9), (2, 0.2), (3, 0.5))]
    found = reliability(records, {1: 0.5, 2: 0.49})
    assert found is not None
    assert (found["count"], found["wrong"], found["auroc"]) == (2, 1, 1.0)
    assert found["brier"] == pytest.approx((0.1**2 + 0.2**2) / 2)
    assert brier([1.0], [True]) == 0
    assert reliability(records, {}) is None
