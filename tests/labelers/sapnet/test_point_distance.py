"""Eq. 2 as the algorithm's page settles it, against plain loops."""

import math

import numpy as np
import pytest

from sapnet.labelers.sapnet.point_distance import contained_distance, distance_score, mean_spacing


def slow_spacing(points):
    if len(points) < 2:
        return 1.0
    nearest = [
        min(math.dist(p, q) for j, q in enumerate(points) if j != i) for i, p in enumerate(points)
    ]
    return sum(nearest) / len(nearest) or 1.0


def slow_weight(point, others, contains, spacing):
    """W_im = sum over j of |p_i - p_j| t_mj, in units of the spacing, at least 0.01 a point."""
    return [
        sum(max(math.dist(point, r) / spacing, 0.01) for r, t in zip(others, row, strict=True) if t)
        for row in contains
    ]


def slow_score(weight, exponent):
    return 1.0 if weight == 0 else (1 / (1 + math.exp(-1 / weight))) ** exponent


@pytest.mark.parametrize("count", [0, 1, 2, 7, 300])
def test_spacing(count):
    points = np.random.default_rng(count).uniform(0, 100, (count, 2))
    assert mean_spacing(points) == pytest.approx(slow_spacing(points.tolist()))


def test_points_in_one_place_have_a_spacing_of_one():
    assert mean_spacing(np.full((3, 2), 4.5)) == 1.0


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("exponent", [0.015, 0.5, 1.0])
def test_weight_and_score(seed, exponent):
    rng = np.random.default_rng(seed)
    others, point = rng.uniform(0, 60, (6, 2)), rng.uniform(0, 60, 2)
    contains = rng.random((9, 6)) < 0.3
    contains[0] = False
    weight = contained_distance(point, others, contains, 7.5)
    expected = slow_weight(point.tolist(), others.tolist(), contains.tolist(), 7.5)
    np.testing.assert_allclose(weight, expected, rtol=1e-6)
    score = distance_score(weight, exponent)
    np.testing.assert_allclose(score, [slow_score(w, exponent) for w in expected], rtol=1e-6)
    assert score.dtype == weight.dtype == np.float32


def test_nothing_contained_is_exactly_one():
    score = distance_score(np.zeros((2, 3), np.float32), 0.5)
    assert (score == 1).all()
    none = contained_distance(np.zeros(2), np.zeros((0, 2)), np.zeros((4, 0), bool), 1.0)
    assert none.tolist() == [0, 0, 0, 0]


def test_it_is_a_penalty_that_grows_with_what_is_contained():
    """The printed exponent -d would reward it."""
    score = distance_score(np.array([0, 0.01, 0.5, 1, 4, 100], np.float32), 1.0)
    assert (np.diff(score) <= 0).all()
    assert score[-1] == pytest.approx(0.5, abs=0.01)


def test_a_rival_in_the_very_same_place_still_counts():
    twin = contained_distance(np.array([3.5, 3.5]), np.array([[3.5, 3.5]]), np.array([[True]]), 5.0)
    assert twin == pytest.approx(0.01)
    assert distance_score(np.array([0.7], np.float32), 1.0) < 1
