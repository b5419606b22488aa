"""A point inside of a mask, for any mask."""

import numpy as np
import pytest
from scipy.ndimage import distance_transform_edt

from sapnet.data.inner_point import inner_point
from sapnet.data.masks import encode


def depth_at(mask, x, y):
    depth = distance_transform_edt(np.pad(mask, 1))[1:-1, 1:-1]
    return depth[int(y), int(x)], depth.max()


def ring(size, hole):
    y, x = np.mgrid[:size, :size] - size / 2
    radius = np.hypot(x, y)
    return (radius < size * 0.45) & (radius > hole)


@pytest.mark.parametrize("seed", range(4))
def test_it_lies_deep_inside_of_any_blob(seed):
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:90, :120]
    mask = np.zeros((90, 120), bool)
    for _ in range(3):
        cx, cy, rx, ry = rng.uniform([20, 20, 5, 5], [100, 70, 25, 20])
        mask |= ((x - cx) / rx) ** 2 + ((y - cy) / ry) ** 2 < 1
    at, deepest = depth_at(mask, *inner_point(encode(mask)))
    assert at >= deepest * 0.6


def test_not_in_the_hole_of_a_ring():
    mask = ring(80, 20)
    x, y = inner_point(encode(mask))
    assert mask[int(y), int(x)]


def test_one_pixel_a_whole_image_and_a_thin_line_of_a_large_one():
    one = np.zeros((5, 7), bool)
    one[4, 6] = True
    assert inner_point(encode(one)) == (6.5, 4.5)
    assert inner_point(encode(np.ones((3, 3), bool))) == (1.5, 1.5)
    line = np.zeros((900, 40), bool)
    line[:, 3] = True
    x, y = inner_point(encode(line))
    assert x == 3.5
    assert 300 < y < 600
    with pytest.raises(ValueError, match="empty"):
        inner_point(encode(np.zeros((4, 4), bool)))
