"""Outlines against the pixels they were drawn from: filled again, they must be the same ones."""

import cv2
import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy import ndimage

from sapnet.data.exporters.polygons import outlines
from sapnet.data.exporters.rasterize import agreement, filled, painted
from sapnet.data.exporters.yolo import joined

MASKS = st.tuples(st.integers(1, 12), st.integers(1, 12)).flatmap(lambda s: arrays(bool, s))
SOME = MASKS.filter(np.any)


def blob(seed: int, size: int = 90) -> np.ndarray:
    """Smooth shapes with holes and split parts, as masks of objects are."""
    noise = np.random.default_rng(seed).normal(size=(size, size))
    return ndimage.gaussian_filter(noise, 4) > 0.01


@pytest.mark.slow
@given(MASKS)
@example(np.zeros((3, 4), bool))
@example(np.ones((3, 4), bool))
@example(np.ones((1, 1), bool))
@example(np.eye(5, dtype=bool))
@example(~np.eye(5, dtype=bool))
@settings(max_examples=300)
def test_an_outline_gives_its_pixels_back(mask: np.ndarray) -> None:
    found = outlines(mask)
    assert len(found) == ndimage.label(mask)[1]  # a polygon for each part that hangs together
    assert all(len(p) >= 3 and (p == p.round()).all() for p in found)
    if found:
        assert (filled(found, *mask.shape) == mask).all()
    else:
        assert not mask.any()


@pytest.mark.slow
@given(SOME)
@settings(max_examples=200)
def test_one_through_the_centres_is_painted_as_its_pixels(mask: np.ndarray) -> None:
    painted_mask = np.zeros(mask.shape, np.uint8)
    for polygon in outlines(mask, centres=True):
        cv2.fillPoly(painted_mask, [np.floor(polygon).astype(np.int32)], 1)
    assert (painted_mask.astype(bool) == mask).all()


@pytest.mark.slow
@given(SOME)
@settings(max_examples=200)
def test_our_painter_is_opencvs(mask: np.ndarray) -> None:
    """Where parts are not joined by slanting lines, which the two draw by rules of their own."""
    for polygon in outlines(mask, centres=True):
        painted_mask = np.zeros(mask.shape, np.uint8)
        cv2.fillPoly(painted_mask, [np.floor(polygon).astype(np.int32)], 1)
        assert (painted(polygon, *mask.shape) == painted_mask.astype(bool)).all()


@pytest.mark.parametrize("seed", range(5))
def test_joined_parts_lose_no_more_than_lines(seed: int) -> None:
    mask = blob(seed)
    parts = outlines(mask, centres=True)
    assert len(parts) > 1
    back = painted(joined(parts), *mask.shape)
    assert (back | mask == back).mean() > 0.999
    assert agreement(back, mask) > 0.97
    painted_mask = np.zeros(mask.shape, np.uint8)
    cv2.fillPoly(painted_mask, [np.floor(joined(parts)).astype(np.int32)], 1)
    assert agreement(painted_mask.astype(bool), back) > 0.99


@pytest.mark.parametrize("tolerance", [0.75, 1.0, 2.0])
def test_simplified_ones_are_shorter_and_near(tolerance: float) -> None:
    mask = blob(0)
    exact, simple = outlines(mask), outlines(mask, simplify=tolerance)
    assert len(simple) == len(exact)
    assert sum(map(len, simple)) < 0.8 * sum(map(len, exact))
    # No pixel changes but within the tolerance, and one for its size, of the border.
    changed = filled(simple, *mask.shape) != mask
    padded = np.pad(mask, 1)
    far = ndimage.distance_transform_edt(padded) + ndimage.distance_transform_edt(~padded)
    assert far[1:-1, 1:-1][changed].max() <= tolerance + 1.5
    assert agreement(filled(simple, *mask.shape), mask) > 0.85


@pytest.mark.slow
@given(SOME, st.floats(0.1, 20))
@settings(max_examples=100)
def test_simplified_ones_are_still_polygons(mask: np.ndarray, tolerance: float) -> None:
    for polygon in outlines(mask, simplify=tolerance):
        assert len(polygon) >= 3
        assert polygon.min() >= 0
        assert (polygon.max(axis=0) <= mask.shape[::-1]).all()


def test_a_chain_of_holes() -> None:
    """Each hangs on the one above it; thousands must not be a recursion."""
    mask = np.ones((4_001, 3), bool)
    mask[1:-1:2, 1] = False
    found = outlines(mask)
    assert len(found) == 1
    assert (filled(found, *mask.shape) == mask).all()
