"""Superpixels and region-merging trees, as numba kernels. Deterministic; no weights."""

import numba as nb
import numpy as np

from sapnet.types import FloatArray

IntArray = np.ndarray[tuple[int, ...], np.dtype[np.int32]]
BARRIER = np.float32(1e9)  # added to the cost of a merger that would join two annotated points


@nb.njit(cache=True, inline="always")
def _find(parent: IntArray, i: int) -> int:
    while parent[i] != i:
        parent[i] = parent[parent[i]]
        i = parent[i]
    return i


@nb.njit(cache=True)
def grid_edges(image: FloatArray) -> tuple[IntArray, IntArray, FloatArray]:
    """The 4-connected edges of an (H, W, C) image and the distance of their pixels' values."""
    height, width, channels = image.shape
    count = height * (width - 1) + (height - 1) * width
    first, second = np.empty(count, np.int32), np.empty(count, np.int32)
    weight = np.empty(count, np.float32)
    e = 0
    for y in range(height):
        for x in range(width):
            for dy, dx in ((0, 1), (1, 0)):
                if y + dy >= height or x + dx >= width:
                    continue
                total = np.float32(0)
                for c in range(channels):
                    d = image[y, x, c] - image[y + dy, x + dx, c]
                    total += d * d
                first[e], second[e] = y * width + x, (y + dy) * width + x + dx
                weight[e] = np.sqrt(total)
                e += 1
    return first, second, weight


@nb.njit(cache=True)
def superpixels(
    first: IntArray,
    second: IntArray,
    weight: FloatArray,
    order: IntArray,
    pixels: int,
    scale: float,
    min_size: int,
) -> tuple[IntArray, int]:
    """Felzenszwalb and Huttenlocher's graph segmentation -> labels (pixels,), their count."""
    parent = np.arange(pixels).astype(np.int32)
    size = np.ones(pixels, np.int32)
    limit = np.full(pixels, scale, np.float32)
    for e in order:
        a, b = _find(parent, first[e]), _find(parent, second[e])
        if a != b and weight[e] <= limit[a] and weight[e] <= limit[b]:
            parent[b] = a
            size[a] += size[b]
            limit[a] = weight[e] + scale / size[a]
    for e in order:
        a, b = _find(parent, first[e]), _find(parent, second[e])
        if a != b and (size[a] < min_size or size[b] < min_size):
            parent[b] = a
            size[a] += size[b]
    names = np.full(pixels, -1, np.int32)
    labels = np.empty(pixels, np.int32)
    count = 0
    for i in range(pixels):
        root = _find(parent, i)
        if names[root] < 0:
            names[root] = count
            count += 1
        labels[i] = names[root]
    return labels, count


@nb.njit(cache=True)
def _statistics(
    labels: IntArray,
    count: int,
    image: FloatArray,
    first: IntArray,
    second: IntArray,
    weight: FloatArray,
) -> tuple[FloatArray, FloatArray, FloatArray, FloatArray]:
    """size (n,), colour sums (n, C), border length (n, n), sum of the border's edges (n, n)."""
    channels = image.shape[1]
    size = np.zeros(count, np.float32)
    colour = np.zeros((count, channels), np.float32)
    length = np.zeros((count, count), np.float32)
    strength = np.zeros((count, count), np.float32)
    for i in range(labels.size):
        size[labels[i]] += 1
        for c in range(channels):
            colour[labels[i], c] += image[i, c]
    for e in range(first.size):
        a, b = labels[first[e]], labels[second[e]]
        if a != b:
            length[a, b] += 1
            length[b, a] += 1
            strength[a, b] += weight[e]
            strength[b, a] += weight[e]
    return size, colour, length, strength


@nb.njit(cache=True)
def _cost(a, b, size, colour, length, strength, power, edge):  # type: ignore[no-untyped-def]
    distance = np.float32(0)
    for c in range(colour.shape[1]):
        d = colour[a, c] / size[a] - colour[b, c] / size[b]
        distance += d * d
    small = size[a] * size[b] / (size[a] + size[b])
    border = strength[a, b] / length[a, b]
    return (np.sqrt(distance) + edge * border) * small**power


@nb.njit(cache=True)
def merge_tree(size, colour, length, strength, owner, power, edge):  # type: ignore[no-untyped-def]
    """Greedy merging -> parent (2n-1,), cost (2n-1,) of the merger that made each node.

    owner (n,): the annotated point in a region, -1 without one, -2 for several.
    """
    n = size.size
    parent = np.full(2 * n - 1, -1, np.int32)
    height = np.zeros(2 * n - 1, np.float32)
    node = np.arange(n).astype(np.int32)
    alive = np.ones(n, np.bool_)
    best = np.full(n, -1, np.int32)
    best_cost = np.full(n, np.inf, np.float32)
    cost = np.full((n, n), np.inf, np.float32)
    for a in range(n):
        for b in range(n):
            if a != b and length[a, b] > 0:
                cost[a, b] = _cost(a, b, size, colour, length, strength, power, edge)
                if owner[a] != -1 and owner[b] != -1:
                    cost[a, b] += BARRIER
                if cost[a, b] < best_cost[a]:
                    best_cost[a], best[a] = cost[a, b], b
    for made in range(n, 2 * n - 1):
        a = int(np.argmin(best_cost))
        b = int(best[a])
        parent[node[a]] = made
        parent[node[b]] = made
        height[made] = best_cost[a]
        node[a] = made
        alive[b] = False
        size[a] += size[b]
        if owner[b] != -1:
            owner[a] = owner[b] if owner[a] == -1 else -2
        for c in range(colour.shape[1]):
            colour[a, c] += colour[b, c]
        best_cost[b] = np.inf
        best_cost[a], best[a] = np.inf, -1
        cost[a, b] = np.inf
        for c in range(n):
            if not alive[c] or c == a:
                continue
            length[a, c] += length[b, c]
            strength[a, c] += strength[b, c]
            if length[a, c] <= 0:
                continue
            length[c, a], strength[c, a] = length[a, c], strength[a, c]
            new = _cost(a, c, size, colour, length, strength, power, edge)
            if owner[a] != -1 and owner[c] != -1:
                new += BARRIER
            cost[a, c] = new
            cost[c, a] = new
            cost[c, b] = np.inf
            if new < best_cost[a]:
                best_cost[a], best[a] = new, c
            if new < best_cost[c]:
                best_cost[c], best[c] = new, a
            elif best[c] == a or best[c] == b:
                k = int(np.argmin(cost[c]))
                best_cost[c], best[c] = cost[c, k], k
    return parent, height
