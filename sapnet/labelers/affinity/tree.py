"""The affinity tree of an image: minimum spanning tree and Kruskal reconstruction tree.

Two pixels are as alike as the largest edge on their path in the minimum spanning tree is small
(SAPNet++, Eqs 15-18; the minimax distance). In the Kruskal reconstruction tree, whose inner nodes
are Kruskal's merges and whose leaves are the pixels, that edge is the weight at the lowest common
ancestor. So this tree answers for all pairs of pixels in linear space, for every mask and every
bandwidth.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from numba import njit
from torch import Tensor

from sapnet.utils.device import async_to_host
from sapnet.utils.threads import pool

IntArray = npt.NDArray[np.int32]
FloatArray = npt.NDArray[np.float32]


@dataclass(frozen=True)
class AffinityTree:
    """Kruskal reconstruction tree of a 4-connected grid of P = H*W pixels.

    Inner nodes (P-1 of them) are numbered in preorder, the root is 0, so a parent stands before its
    children and a subtree is contiguous. Leaves are ordered by the same walk, so the pixels below a
    node are an interval of leaf positions.

    Attributes:
        size: (H, W).
        parent: (P-1,) int32, of each inner node, -1 at the root.
        weight: (P-1,) float32 >= 0, the edge that a node merged by (squared difference).
        leaf_parent: (P,) int32, the inner node above each leaf position (-1 where P = 1).
        pixel: (P,) int32, the pixel (row-major) at each leaf position.
        first: (P-1,) int32, a node's first leaf position.
        count: (P-1,) int32, its leaves.
    """

    size: tuple[int, int]
    parent: IntArray
    weight: FloatArray
    leaf_parent: IntArray
    pixel: IntArray
    first: IntArray
    count: IntArray

    @cached_property
    def median_edge(self) -> float:
        """Median weight of the tree's edges: the automatic bandwidth, always above zero.

        Where half of the tree is flat (saturated sky, a constant image) the median of the edges
        above zero stands in, and 1 where there is none: affinities are then all 1.
        """
        finite = self.weight[np.isfinite(self.weight)]
        median = float(np.median(finite)) if finite.size else 0.0
        if median == 0.0:
            positive = finite[finite > 0]
            median = float(np.median(positive)) if positive.size else 1.0
        return median


def build_tree(image: Tensor | FloatArray) -> AffinityTree:
    """The tree of an image or feature map, by squared differences of 4-neighbours (Eqs 15-18).

    O(C*P + P log P) in theory, linear in practice.

    Args:
        image: (C, H, W) float, any range, any device (differences are taken there). C, H, W >= 1.

    Raises:
        ValueError: it is of any other shape.
    """
    values = torch.as_tensor(image)
    return _tree(async_to_host(_edges(values)), values.shape[1], values.shape[2])


def tree_beside(image: Tensor) -> Callable[[], AffinityTree]:
    """`build_tree` on a thread of its own, while a GPU, or the caller, goes on.

    Returns:
        A function that waits for the tree and gives it.
    """
    edges = async_to_host(_edges(image))
    return pool().submit(_tree, edges, image.shape[1], image.shape[2]).result


def _edges(image: Tensor) -> Tensor:
    """Weights of all edges: those to the right row by row, then those down."""
    values = image.detach()
    if values.ndim != 3 or 0 in values.shape:
        raise ValueError(f"image must be (C, H, W) and not empty, got {tuple(values.shape)}")
    values = values.float()
    right = (values[:, :, 1:] - values[:, :, :-1]).square_().sum(0)
    down = (values[:, 1:] - values[:, :-1]).square_().sum(0)
    return torch.cat([right.reshape(-1), down.reshape(-1)])


def _tree(edges: Callable[[], list[Tensor]], height: int, width: int) -> AffinityTree:
    arrays = _reconstruction_tree(edges()[0].numpy(), height, width)
    return AffinityTree((height, width), *arrays)


@njit(cache=True, nogil=True)
def _sorted_edges(weights: Any) -> Any:
    """Indices of non-negative float32 by rising value, ties by index.

    The bits of non-negative floats rise with their value, so three counting passes of 11 bits sort
    exactly, in linear time.
    """
    n = weights.size
    keys = weights.view(np.uint32)
    order = np.arange(n).astype(np.int32)
    other = np.empty(n, np.int32)
    for shift in (0, 11, 22):
        start = np.zeros(2049, np.int64)
        for i in range(n):
            start[((keys[i] >> shift) & 2047) + 1] += 1
        for b in range(2048):
            start[b + 1] += start[b]
        for i in range(n):
            bucket = (keys[order[i]] >> shift) & 2047
            other[start[bucket]] = order[i]
            start[bucket] += 1
        order, other = other, order
    return order


@njit(cache=True, nogil=True)
def _find(group: Any, i: int) -> int:
    while group[i] != i:
        group[i] = group[group[i]]
        i = group[i]
    return i


@njit(cache=True, nogil=True)
def _merge(weights: Any, height: int, width: int) -> Any:
    """Kruskal. Children (2 a merge; a pixel, or P + the merge), leaves below and weight of each."""
    pixels = height * width
    horizontal = height * (width - 1)
    left, right = np.empty(pixels - 1, np.int32), np.empty(pixels - 1, np.int32)
    count, weight = np.empty(pixels - 1, np.int32), np.empty(pixels - 1, np.float32)
    group = np.arange(pixels).astype(np.int32)
    top = np.arange(pixels).astype(np.int32)  # the tree node that stands for a group
    members = np.ones(pixels, np.int32)
    merges = 0
    for edge in _sorted_edges(weights):
        if edge < horizontal:
            a = edge + edge // (width - 1)
            b = a + 1
        else:
            a = edge - horizontal
            b = a + width
        a, b = _find(group, a), _find(group, b)
        if a == b:
            continue
        if members[a] < members[b]:
            a, b = b, a
        left[merges], right[merges] = top[a], top[b]
        group[b] = a
        members[a] += members[b]
        top[a] = pixels + merges
        count[merges], weight[merges] = members[a], weights[edge]
        merges += 1
        if merges == pixels - 1:
            break
    return left, right, count, weight


@njit(cache=True, nogil=True)
def _reconstruction_tree(weights: Any, height: int, width: int) -> Any:
    """Merges renumbered in preorder: both passes of a propagation then walk through memory."""
    pixels = height * width
    left, right, merged_count, merged_weight = _merge(weights, height, width)
    parent, first = np.empty(pixels - 1, np.int32), np.empty(pixels - 1, np.int32)
    count, weight = np.empty(pixels - 1, np.int32), np.empty(pixels - 1, np.float32)
    leaf_parent, pixel = np.full(pixels, -1, np.int32), np.zeros(pixels, np.int32)
    number = np.empty(pixels - 1, np.int32)  # of each merge, in preorder
    if pixels > 1:
        number[pixels - 2], parent[0], first[0] = 0, -1, 0
    for merge in range(pixels - 2, -1, -1):
        node = number[merge]
        count[node], weight[node] = merged_count[merge], merged_weight[merge]
        next_node, next_leaf = node + 1, first[node]
        for child in (left[merge], right[merge]):
            if child < pixels:
                leaf_parent[next_leaf], pixel[next_leaf] = node, child
                next_leaf += 1
            else:
                number[child - pixels] = next_node
                parent[next_node], first[next_node] = node, next_leaf
                below = merged_count[child - pixels]
                next_node += below - 1
                next_leaf += below
    return parent, weight, leaf_parent, pixel, first, count
