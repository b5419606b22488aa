"""Global affinity: every pixel becomes the mean of all pixels, weighted by affinity, exactly.

    Y_i = sum_j phi_j psi_ij / sum_j psi_ij,    psi_ij = exp(-max edge on the path / zeta^2)

(SAPNet++, Eqs 14, 17-20.) With k_a = exp(-w_a / zeta^2) at each node of the reconstruction tree
(leaves: 1) and d_a = k_a - k_parent(a) (the root: k), the affinity of a pair is the sum of d over
the nodes that hold both. So with S_a the sum of phi below a and n_a the number of leaves,

    Y_i = sum_{a holds i} d_a S_a / sum_{a holds i} d_a n_a :    one pass up, one down.

The pixel itself counts in both sums. The paper's exclusion of it in the denominator alone lets Y
exceed 1, and leaves a pixel that is like no other with nothing to divide by.
"""

from typing import Any

import numpy as np
import torch
from numba import njit
from torch import Tensor

from sapnet.labelers.affinity.tree import AffinityTree, FloatArray
from sapnet.utils.device import to_device

LANES = 4  # masks walked together: they share each read of the tree, and their sums a cache line
_TILE = 256  # pixels whose masks are laid side by side at a time


def propagate(tree: AffinityTree, probs: FloatArray, zeta2: float | None = None) -> FloatArray:
    """Global affinity refinement on the CPU, linear in pixels and masks.

    Args:
        probs: (N, H, W) float32, any range.
        zeta2: the bandwidth, in the unit of the tree's edges (squared differences), > 0; None takes
            the median tree edge.

    Returns:
        (N, H, W) float32 within the range of each mask's input.

    Raises:
        ValueError: the size or zeta2 does not fit.
    """
    bandwidth = _checked(tree, probs.shape, zeta2)
    steps, leaf_steps = _steps(tree, bandwidth)
    flat = np.ascontiguousarray(probs, np.float32).reshape(len(probs), tree.pixel.size)
    out = np.empty_like(flat)
    _walk(tree.parent, tree.leaf_parent, tree.pixel, tree.count, steps, leaf_steps, flat, out)
    return out.reshape(probs.shape)


def propagate_torch(tree: AffinityTree, probs: Tensor, zeta2: float | None = None) -> Tensor:
    """The same on any device: leaf intervals, gathers and float64 cumulative sums.

    Sums over an interval are differences of cumulative sums. In float32 these cancel (errors up to
    0.8 were seen); in float64 they are safe, because sum_a d_a n_a is the pixel count.

    Args:
        probs: (N, H, W) float tensor.

    Returns:
        (N, H, W) in its dtype, on its device, without graph.
    """
    bandwidth = _checked(tree, tuple(probs.shape), zeta2)
    device = probs.device

    def moved(array: np.ndarray) -> Tensor:
        return to_device(torch.from_numpy(array), device)

    steps, leaf_steps = map(moved, _steps(tree, bandwidth))
    first = moved(tree.first).long()
    last = first + moved(tree.count)
    pixel = moved(tree.pixel).long()
    masks = probs.detach().reshape(len(probs), len(pixel)).double()[:, pixel]
    masks = torch.cat([masks, masks.new_ones(1, len(pixel))])  # the last one counts the norms
    sums = _before(masks)
    node_sums = (sums[:, last] - sums[:, first]) * steps
    # The nodes that hold position i began at or before it and have not ended.
    by_end = torch.argsort(last, stable=True)
    position = torch.arange(len(pixel), device=device)
    begun = torch.searchsorted(first, position, right=True)
    ended = torch.searchsorted(last[by_end], position, right=True)
    totals = _before(node_sums)[:, begun] - _before(node_sums[:, by_end])[:, ended]
    totals += masks * leaf_steps
    out = torch.empty_like(totals[:-1])
    out[:, pixel] = totals[:-1] / totals[-1]
    return out.to(probs.dtype).reshape(probs.shape)


def _checked(tree: AffinityTree, shape: tuple[int, ...], zeta2: float | None) -> float:
    if len(shape) != 3 or shape[1:] != tree.size:
        raise ValueError(f"probs must be (N, {tree.size[0]}, {tree.size[1]}), got {shape}")
    bandwidth = tree.median_edge if zeta2 is None else zeta2
    if not bandwidth > 0:
        raise ValueError(f"zeta2 must be above 0, got {bandwidth}")
    return bandwidth


def _steps(tree: AffinityTree, zeta2: float) -> tuple[np.ndarray, np.ndarray]:
    """The d of each inner node (P-1,) and of each leaf position (P,), float64, all >= 0."""
    affinity = np.exp(-tree.weight.astype(np.float64) / zeta2)
    # Index -1 is the parent of the root: nothing is alike there.
    above = np.append(affinity, 0.0)
    return affinity - above[tree.parent], 1.0 - above[tree.leaf_parent]


def _before(values: Tensor) -> Tensor:
    """(N, P) -> (N, P + 1): the sum of everything before each place."""
    return torch.nn.functional.pad(values.cumsum(-1), (1, 0))


@njit(cache=True, nogil=True)
def _walk(
    parent: Any,
    leaf_parent: Any,
    pixel: Any,
    count: Any,
    steps: Any,
    leaf_steps: Any,
    masks: Any,
    out: Any,
) -> None:
    nodes, pixels = parent.size, pixel.size
    norm = steps * count
    for a in range(1, nodes):
        norm[a] += norm[parent[a]]
    sums = np.empty((max(nodes, 1), LANES), np.float64)
    side = np.zeros((pixels, LANES), np.float32)  # the masks' values of a pixel beside each other
    for begin in range(0, len(masks), LANES):
        lanes = min(LANES, len(masks) - begin)
        for start in range(0, pixels, _TILE):
            for lane in range(lanes):
                for p in range(start, min(start + _TILE, pixels)):
                    side[p, lane] = masks[begin + lane, p]
        sums[:] = 0.0
        for i in range(pixels):
            a, p = leaf_parent[i], pixel[i]
            for lane in range(LANES):
                sums[a, lane] += side[p, lane]
        for a in range(nodes - 1, 0, -1):
            above = parent[a]
            for lane in range(LANES):
                sums[above, lane] += sums[a, lane]
        for lane in range(LANES):
            sums[0, lane] *= steps[0] if nodes else 0.0
        for a in range(1, nodes):
            above = parent[a]
            for lane in range(LANES):
                sums[a, lane] = steps[a] * sums[a, lane] + sums[above, lane]
        for i in range(pixels):
            a, p = leaf_parent[i], pixel[i]
            total = leaf_steps[i] + (norm[a] if nodes else 0.0)
            for lane in range(LANES):
                side[p, lane] = (leaf_steps[i] * side[p, lane] + sums[a, lane]) / total
        for start in range(0, pixels, _TILE):
            for lane in range(lanes):
                for p in range(start, min(start + _TILE, pixels)):
                    out[begin + lane, p] = side[p, lane]
