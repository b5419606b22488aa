"""The local cascade against plain loops."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sapnet.labelers.affinity import local_filter as local
from sapnet.labelers.affinity.local_filter import cascade, local_affinity, local_kernel


def scene(height, width, channels=3, masks=2, seed=0):
    g = torch.Generator().manual_seed(seed)
    guide = torch.rand(channels, height, width, generator=g)
    return guide, torch.rand(masks, height, width, generator=g)


@pytest.mark.parametrize("size", [(1, 1), (1, 6), (5, 1), (2, 3), (9, 7)])
@pytest.mark.parametrize("kernel", [1, 3, 5])
@pytest.mark.parametrize("zeta", [0.05, 0.5])
def test_one_step_equals_the_loop(size, kernel, zeta, local_loop):
    guide, probs = scene(*size)
    got = local_affinity(guide, probs, kernel=kernel, zeta=zeta, iterations=1, blocks=1)
    expected = local_loop(guide.numpy(), probs.numpy(), kernel, zeta)
    np.testing.assert_allclose(got.numpy(), expected, atol=1e-6)


def test_the_cascade_mixes_each_block_with_its_input(local_loop):
    guide, probs = scene(8, 9)
    got = local_affinity(guide, probs, kernel=3, zeta=0.3, iterations=2, blocks=3, mix=0.25)
    given = probs.numpy()
    for _ in range(3):
        out = given
        for _ in range(2):
            out = local_loop(guide.numpy(), out, 3, 0.3)
        last, given = out, 0.25 * out + 0.75 * given
    np.testing.assert_allclose(got.numpy(), last, atol=1e-6)


@settings(max_examples=25)
@given(
    height=st.integers(1, 8),
    width=st.integers(1, 8),
    masks=st.integers(0, 4),
    kernel=st.sampled_from([1, 3, 5, 7]),
)
def test_weights_sum_to_one_inside_of_the_image_only(height, width, masks, kernel):
    guide, probs = scene(height, width, masks=masks)
    weights = local_kernel(guide, kernel=kernel, zeta=0.2)
    assert weights.shape == (kernel**2, height, width)
    torch.testing.assert_close(weights.sum(0), torch.ones(height, width))
    assert cascade(weights, probs).shape == probs.shape
    ones = torch.ones(1, height, width)
    torch.testing.assert_close(cascade(weights, ones), ones)


def test_a_pixel_like_no_other_keeps_its_value():
    guide = torch.zeros(1, 5, 5)
    guide[0, 2, 2] = 100.0
    probs = torch.zeros(1, 5, 5)
    probs[0, 2, 2] = 1.0
    torch.testing.assert_close(local_affinity(guide, probs), probs)


def test_flips_go_through():
    guide, probs = scene(7, 10)
    plain = local_affinity(guide, probs, zeta=0.3)
    for axes in ([1], [2], [1, 2]):
        flipped = local_affinity(guide.flip(axes), probs.flip(axes), zeta=0.3)
        torch.testing.assert_close(flipped.flip(axes), plain)


def test_parts_equal_the_whole(monkeypatch):
    guide, probs = scene(6, 7, masks=11)
    whole = local_affinity(guide, probs)
    monkeypatch.setattr(local, "CACHED", 6 * 7 * 2)
    torch.testing.assert_close(local_affinity(guide, probs), whole)


def test_no_block_gives_the_input_back():
    guide, probs = scene(4, 4)
    torch.testing.assert_close(local_affinity(guide, probs, blocks=0), probs)


@pytest.mark.parametrize("bad", [{"kernel": 4}, {"kernel": 0}, {"zeta": 0.0}])
def test_what_does_not_fit_is_named(bad):
    with pytest.raises(ValueError, match=next(iter(bad))):
        local_kernel(torch.zeros(1, 3, 3), **bad)
