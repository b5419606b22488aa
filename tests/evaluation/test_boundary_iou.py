"""Boundary IoU against distances measured pixel by pixel."""

import math

import numpy as np
import pytest
from pycocotools import mask as coco_mask

from sapnet.evaluation.boundary_iou import boundary_iou, inner_boundary


def band_by_hand(mask, width):
    """A pixel of the mask is in the band where the square around it holds one of the outside."""
    around = np.pad(mask, width)
    side = 2 * width + 1
    band = np.zeros_like(mask)
    for y, x in zip(*np.nonzero(mask), strict=True):
        band[y, x] = not around[y : y + side, x : x + side].all()
    return band


def blobs(seed, size=(23, 31)):
    rng = np.random.default_rng(seed)
    mask = np.zeros(size, dtype=bool)
    for _ in range(3):
        y, x = rng.integers(0, size[0] - 4), rng.integers(0, size[1] - 4)
        mask[y : y + rng.integers(4, 16), x : x + rng.integers(4, 16)] = True
    return mask & (rng.random(size) < 0.98)


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("width", [1, 2, 5, 40])
def test_band_equals_the_loop(seed, width):
    mask = blobs(seed)
    before = mask.copy()
    np.testing.assert_array_equal(inner_boundary(mask, width), band_by_hand(mask, width))
    np.testing.assert_array_equal(mask, before)


@pytest.mark.parametrize("seed", range(4))
def test_it_is_the_iou_of_the_bands(seed):
    mask, other = blobs(seed), blobs(seed + 10)
    width = max(1, round(0.1 * math.hypot(*mask.shape)))
    bands = [band_by_hand(m, width).astype(np.uint8) for m in (mask, other)]
    (one, two) = (coco_mask.encode(np.asfortranarray(band)) for band in bands)
    expected = coco_mask.iou([one], [two], [0])[0, 0]
    assert boundary_iou(mask, other, 0.1) == pytest.approx(expected)
    assert boundary_iou(other, mask, 0.1) == pytest.approx(expected)


def test_a_shifted_outline_costs_more_than_the_mask_shows():
    whole = np.zeros((200, 200), dtype=bool)
    whole[20:180, 20:180] = True
    less = np.zeros_like(whole)
    less[24:176, 24:176] = True
    assert (whole & less).sum() / (whole | less).sum() > 0.9
    assert boundary_iou(whole, less) < 0.25  # bands 6 wide, 4 apart
    assert boundary_iou(whole, whole) == 1


def test_small_masks_are_all_boundary():
    mask, other = np.zeros((2, 300, 400), dtype=bool)
    mask[10:16, 10:16] = other[12:18, 10:16] = True
    assert boundary_iou(mask, other) == pytest.approx(24 / 48)


def test_empty_masks_and_one_pixel():
    none, dot = np.zeros((1, 1), dtype=bool), np.ones((1, 1), dtype=bool)
    assert boundary_iou(none, none) == 1
    assert boundary_iou(none, dot) == 0
    assert boundary_iou(dot, dot) == 1
    full = np.ones((9, 9), dtype=bool)
    assert inner_boundary(full, 1).sum() == 32  # the image's border is an outline


def test_masks_of_two_sizes_are_refused():
    with pytest.raises(ValueError, match="one size"):
        boundary_iou(np.zeros((2, 3), dtype=bool), np.zeros((3, 2), dtype=bool))
