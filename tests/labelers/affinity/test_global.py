"""Tree and propagation against all pairs by plain search, against higra, and their symmetries."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sapnet.labelers.affinity.global_filter import propagate, propagate_torch
from sapnet.labelers.affinity.tree import build_tree

SIZES = [(1, 1), (1, 2), (1, 7), (6, 1), (2, 2), (7, 9), (12, 5)]


def scene(height, width, channels=3, masks=3, seed=0, levels=None):
    rng = np.random.default_rng(seed)
    image = rng.random((channels, height, width), dtype=np.float32)
    if levels:  # coarse values: many equal edges
        image = np.floor(image * levels).astype(np.float32) / levels
    return image, rng.random((masks, height, width), dtype=np.float32)


@pytest.mark.slow
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("zeta2", [1e-3, 0.1, 10.0])
@pytest.mark.parametrize("levels", [None, 3])
def test_propagation_equals_all_pairs(size, zeta2, levels, all_pairs):
    image, probs = scene(*size, levels=levels)
    expected = all_pairs(image, probs, zeta2)
    tree = build_tree(image)
    np.testing.assert_allclose(propagate(tree, probs, zeta2), expected, atol=1e-6)
    got = propagate_torch(tree, torch.from_numpy(probs), zeta2)
    np.testing.assert_allclose(got.numpy(), expected, atol=1e-6)


@settings(max_examples=30)
@given(
    height=st.integers(1, 9),
    width=st.integers(1, 9),
    masks=st.integers(0, 19),
    channels=st.integers(1, 5),
    seed=st.integers(0, 10_000),
)
def test_both_forms_agree_at_any_shape(height, width, masks, channels, seed):
    image, probs = scene(height, width, channels, masks, seed, levels=4)
    tree = build_tree(image)
    a = propagate(tree, probs)
    b = propagate_torch(tree, torch.from_numpy(probs)).numpy()
    assert a.shape == b.shape == probs.shape
    np.testing.assert_allclose(a, b, atol=1e-6)
    if masks:
        low, high = probs.min((1, 2), keepdims=True), probs.max((1, 2), keepdims=True)
        assert (a >= low - 1e-6).all()
        assert (a <= high + 1e-6).all()


def test_both_forms_agree_on_a_large_image():
    image, probs = scene(150, 201, masks=9)
    tree = build_tree(image)
    a = propagate(tree, probs)
    b = propagate_torch(tree, torch.from_numpy(probs)).numpy()
    np.testing.assert_allclose(a, b, atol=1e-6)


@pytest.mark.parametrize("size", [(1, 2), (5, 8), (9, 4)])
def test_tree_is_a_preorder_of_minimax_merges(size, largest_edges):
    image, _ = scene(*size, levels=4)
    tree = build_tree(image)
    pixels = size[0] * size[1]
    assert sorted(tree.pixel) == list(range(pixels))
    assert tree.parent[0] == -1
    nodes = np.arange(1, pixels - 1)
    assert (tree.parent[1:] < nodes).all()
    assert (tree.weight[1:] <= tree.weight[tree.parent[1:]]).all()
    expected = largest_edges(image)
    for i in range(pixels):
        for j in range(i + 1, pixels):
            holds = (tree.first <= i) & (j < tree.first + tree.count)
            lowest = tree.weight[holds].min()
            assert lowest == pytest.approx(expected[tree.pixel[i], tree.pixel[j]], abs=1e-6)


@pytest.mark.slow
def test_tree_edges_equal_higras():
    import higra  # takes 1.5 s: it imports matplotlib

    image, _ = scene(23, 31)
    graph = higra.get_4_adjacency_graph((23, 31))
    flat = image.reshape(3, -1)
    sources, targets = graph.edge_list()
    weights = ((flat[:, sources] - flat[:, targets]) ** 2).sum(0)
    _, altitudes = higra.bpt_canonical(graph, weights)
    expected = np.sort(altitudes[23 * 31 :])
    np.testing.assert_allclose(np.sort(build_tree(image).weight), expected, rtol=1e-6)


def test_constant_image_gives_the_mean_everywhere():
    _, probs = scene(8, 11)
    tree = build_tree(np.full((3, 8, 11), 0.3, np.float32))
    assert tree.median_edge == 1.0
    mean = np.broadcast_to(probs.mean((1, 2), keepdims=True), probs.shape)
    np.testing.assert_allclose(propagate(tree, probs), mean, atol=1e-6)
    np.testing.assert_allclose(propagate_torch(tree, torch.from_numpy(probs)), mean, atol=1e-6)


def test_median_edge_skips_a_flat_majority():
    image = np.zeros((1, 10, 10), np.float32)
    image[0, :2] = np.arange(20).reshape(2, 10)
    assert build_tree(image).median_edge > 0


def test_a_wall_keeps_two_sides_apart():
    image = np.zeros((1, 6, 8), np.float32)
    image[:, :, 4:] = 10.0
    image[0] += np.random.default_rng(0).normal(0, 0.01, (6, 8))
    probs = np.zeros((1, 6, 8), np.float32)
    probs[0, 2:4, 1:3] = 1.0
    out = propagate(build_tree(image), probs, 1.0)
    np.testing.assert_allclose(out[0, :, :4], 4 / 24, atol=2e-2)
    np.testing.assert_allclose(out[0, :, 4:], 0.0, atol=1e-6)


@pytest.mark.parametrize("axes", [(1,), (2,), (1, 2)])
def test_flips_go_through(axes):
    image, probs = scene(7, 10, levels=3)
    plain = propagate(build_tree(image), probs, 0.1)
    flipped = propagate(build_tree(np.flip(image, axes).copy()), np.flip(probs, axes).copy(), 0.1)
    np.testing.assert_allclose(np.flip(flipped, axes), plain, atol=1e-6)


def test_masks_do_not_touch_each_other():
    image, probs = scene(9, 9, masks=20)
    tree = build_tree(image)
    together = propagate(tree, probs)
    order = np.random.default_rng(1).permutation(20)
    np.testing.assert_array_equal(propagate(tree, probs[order]), together[order])
    np.testing.assert_array_equal(propagate(tree, probs[7:8]), together[7:8])


def test_what_does_not_fit_is_named():
    tree = build_tree(np.zeros((1, 3, 4), np.float32))
    with pytest.raises(ValueError, match="probs must be"):
        propagate(tree, np.zeros((2, 4, 3), np.float32))
    with pytest.raises(ValueError, match="zeta2"):
        propagate(tree, np.zeros((2, 3, 4), np.float32), 0.0)
    with pytest.raises(ValueError, match="image must be"):
        build_tree(np.zeros((3, 0, 4), np.float32))
