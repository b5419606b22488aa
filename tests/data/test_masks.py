"""RLE read without decoding it, against pycocotools' decoder."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pycocotools import mask as coco_mask

from sapnet.data.masks import holds_points, run_lengths


def encode(mask):
    rle = coco_mask.encode(np.asfortranarray(mask, dtype=np.uint8))
    return {"size": rle["size"], "counts": rle["counts"].decode()}


def slow_runs(mask):
    runs, value, length = [], 0, 0
    for pixel in mask.ravel(order="F"):
        if pixel != value:
            runs.append(length)
            value, length = pixel, 0
        length += 1
    return [*runs, length]


@pytest.mark.slow
@settings(max_examples=30)
@given(
    st.integers(1, 20),
    st.integers(1, 20),
    st.floats(0, 1),
    st.integers(0, 2**32 - 1),
    st.booleans(),
)
def test_runs_and_points_against_pixels(height, width, share, seed, blocks):
    rng = np.random.default_rng(seed)
    mask = rng.random((height, width)) < share
    if blocks:  # long runs too
        mask = np.repeat(np.repeat(mask, 30, axis=0), 5, axis=1)
        height, width = mask.shape
    rle = encode(mask)
    assert run_lengths(rle["counts"]).tolist() == slow_runs(mask)
    xy = rng.uniform(-2, [width + 2, height + 2], (50, 2))
    expected = [
        0 <= x < width and 0 <= y < height and bool(mask[int(y), int(x)])
        if min(x, y) >= 0
        else False
        for x, y in xy
    ]
    assert holds_points(rle, xy).tolist() == expected


def test_corners_no_points_and_large_runs():
    mask = np.zeros((3000, 2000), bool)
    mask[0, 0] = mask[-1, -1] = True
    rle = encode(mask)
    corners = np.array([[0, 0], [1999.9, 2999.9], [2000, 3000], [1.0, 0.0], [-0.01, 0]])
    assert holds_points(rle, corners).tolist() == [True, True, False, False, False]
    assert holds_points(rle, np.zeros((0, 2))).shape == (0,)
    assert run_lengths(rle["counts"]).sum() == mask.size


@pytest.mark.parametrize("text", ["\x01", "~", "0o", "oooooooo0", "O", "é"])
def test_damaged_text(text):
    with pytest.raises(ValueError):
        run_lengths(text)
