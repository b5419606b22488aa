"""From scores to the probability of being right."""

import numpy as np
import pytest

from sapnet.data.masks import encode
from sapnet.evaluation.score_calibration import ScoreCalibration, calibrate, fit


def probability(fitted: tuple[float, float], score: float) -> float:
    return ScoreCalibration(*fitted, count=0, on="")(score)


def test_nothing_known_leaves_the_score_as_it_is():
    assert fit([], []) == pytest.approx((0.0, 1.0))
    for score in (0.1, 0.5, 0.93):
        assert probability((0.0, 1.0), score) == pytest.approx(score, abs=1e-6)


@pytest.mark.parametrize("seed", range(3))
def test_it_finds_the_law_that_the_masks_follow(seed):
    rng = np.random.default_rng(seed)
    scores = rng.uniform(0.1, 0.95, 20_000)
    logit = np.log(scores / (1 - scores))
    truth = 1 / (1 + np.exp(-(0.7 + 1.6 * logit)))
    fitted = fit(scores, rng.uniform(size=len(scores)) < truth)
    assert fitted == pytest.approx((0.7, 1.6), abs=0.12)
    least = [probability(fitted, score) for score in (0.0, 0.1, 0.4, 0.9, 1.0)]
    assert least == sorted(least)
    assert 0 <= least[0] <= least[-1] <= 1


def test_few_masks_pull_little_and_none_turn_it_round():
    near = probability(fit([0.5], [0.0]), 0.5)
    assert 0.3 < near < 0.5
    intercept, slope = fit(np.linspace(0.05, 0.95, 500), np.linspace(1, 0, 500))
    assert slope == 0
    assert probability((intercept, slope), 0.9) == pytest.approx(0.5, abs=0.05)


def square(x: int):
    mask = np.zeros((40, 60), bool)
    mask[5:15, x : x + 10] = True
    return encode(mask)


def test_against_masks_that_may_be_wrong_themselves():
    truth = {
        "images": [{"id": 1, "height": 40, "width": 60}],
        "annotations": [
            {"id": 7, "image_id": 1, "category_id": 3, "segmentation": square(0), "iscrowd": 0}
        ],
    }
    found = [
        {"image_id": 1, "category_id": 3, "segmentation": square(1), "score": 0.8},
        {"image_id": 1, "category_id": 3, "segmentation": square(40), "score": 0.8},
        {"image_id": 2, "category_id": 3, "segmentation": square(0), "score": 0.1},
    ]
    sure = calibrate(found, truth, {1}, {3}, {}, "1 image")
    doubtful = calibrate(found, truth, {1}, {3}, {7: 0.2}, "1 image")
    assert (sure.count, sure.on) == (2, "1 image")
    assert doubtful(0.8) < sure(0.8) < 0.8
    nothing = calibrate([], truth, {1}, {3}, {}, "")
    assert (nothing.intercept, nothing.slope, nothing.count) == (0.0, 1.0, 0)
    assert ScoreCalibration.of_meta({"score_calibration": sure.to_meta()}) == sure
    assert ScoreCalibration.of_meta({}) is None
