"""The mean of a point's candidates, against a slow reference."""

import numpy as np
import pytest
from pycocotools import mask as coco_mask

from sapnet.data.masks import encode_all
from sapnet.proposals.prompter.expected import expected_mask


def _reference(masks: np.ndarray, estimates: np.ndarray) -> np.ndarray:
    weights = np.exp((estimates - estimates.max()) / 0.05)
    weights[weights < 0.01] = 0
    return (masks * weights[:, None, None]).sum(0) >= 0.4 * weights.sum()


@pytest.mark.parametrize("seed", range(5))
def test_it_is_what_two_fifths_of_the_weight_hold(seed: int) -> None:
    rng = np.random.default_rng(seed)
    masks = np.zeros((9, 20, 30), bool)
    for mask in masks:
        top, left = rng.integers(0, 8, 2)
        mask[top : top + rng.integers(4, 12), left : left + rng.integers(4, 22)] = True
    estimates = rng.uniform(0.5, 0.7, 9).astype(np.float32)

    mean = expected_mask(encode_all(masks), estimates)

    assert mean is not None
    np.testing.assert_array_equal(coco_mask.decode(dict(mean)), _reference(masks, estimates))


def test_independent_errors_cancel() -> None:
    rng = np.random.default_rng(0)
    rows, columns = np.mgrid[:64, :64]
    truth = (rows - 32) ** 2 + (columns - 32) ** 2 < 400
    masks = []
    for _ in range(12):
        top, left = rng.integers(-6, 7, 2)
        masks.append(np.roll(truth, (top, left), (0, 1)))
    rles = encode_all(np.stack(masks))
    estimates = np.full(12, 0.7, np.float32)

    mean = expected_mask(rles, estimates)

    alone = coco_mask.iou(rles, encode_all(truth[None]), [0])[:, 0]
    assert coco_mask.iou([mean], encode_all(truth[None]), [0])[0, 0] > alone.mean() + 0.1


def test_nothing_to_average() -> None:
    masks = np.zeros((2, 8, 8), bool)
    masks[0, :2], masks[1, 6:] = True, True

    assert expected_mask([], np.zeros(0, np.float32)) is None
    assert expected_mask(encode_all(masks[:1]), np.ones(1, np.float32)) is None
    # one of no weight beside the other is left out
    mean = expected_mask(encode_all(masks), np.array([0.9, 0.2], np.float32))
    assert mean is not None
    np.testing.assert_array_equal(coco_mask.decode(dict(mean)), masks[0])


def test_candidates_that_share_no_pixel_have_no_mean() -> None:
    masks = np.zeros((3, 9, 9), bool)
    for index, mask in enumerate(masks):
        mask[3 * index : 3 * index + 3] = True

    assert expected_mask(encode_all(masks), np.full(3, 0.6, np.float32)) is None
