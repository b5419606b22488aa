"""Superpixels and region-merging trees, as numba kernels. Deterministic, and no weights."""

from typing import NamedTuple

import numba as nb
import numpy as np

from sapnet.types import BoolArray, FloatArray

IntArray = np.ndarray[tuple[int, ...], np.dtype[np.int32]]
BARRIER = np.float32(1e6)  # added to the cost of a merger that would join two annotated points


class Regions(NamedTuple):
    """The n superpixels of an image.

    Attributes:
        labels: (H, W) int32.
        size: (n,) pixels.
        colour: (n, C), summed over pixels.
        length: (n, n), pixel edges that two regions share.
        strength: (n, n), the sum of the weights of these edges.
    """

    labels: IntArray
    size: FloatArray
    colour: FloatArray
    length: FloatArray
    strength: FloatArray


def superpixels(image: FloatArray, scale: float, min_size: int, most: int) -> Regions:
    """Felzenszwalb and Huttenlocher's graph segmentation (IJCV 2004) of an (H, W, C) image.

    min_size (pixels) doubles until there are at most `most` regions: the tables are n x n.
    """
    height, width, channels = image.shape
    first, second, weight = grid_edges(image)
    # sixteen bits make the stable sort a radix sort
    top = max(float(weight.max(initial=0)), 1e-6)
    order = np.argsort((weight * (65535 / top)).astype(np.uint16), kind="stable").astype(np.int32)
    while True:
        flat, count = _segment(first, second, weight, order, height * width, scale, min_size)
        if count <= most:
            break
        min_size *= 2
    tables = _statistics(flat, count, image.reshape(-1, channels), first, second, weight)
    return Regions(flat.reshape(height, width), *tables)


@nb.njit(cache=True, inline="always")
def _find(parent: IntArray, i: int) -> int:
    while parent[i] != i:
        parent[i] = parent[parent[i]]
        i = parent[i]
    return i


@nb.njit(cache=True)
def grid_edges(image: FloatArray) -> tuple[IntArray, IntArray, FloatArray]:
    """4-connected pixel pairs of an (H, W, C) image, and the distance of their values."""
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
def _segment(
    first: IntArray,
    second: IntArray,
    weight: FloatArray,
    order: IntArray,
    pixels: int,
    scale: float,
    min_size: int,
) -> tuple[IntArray, int]:
    """Labels (pixels,) and their count; regions below min_size join their nearest neighbour."""
    parent = np.arange(pixels).astype(np.int32)
    size = np.ones(pixels, np.int32)
    limit = np.full(pixels, scale, np.float32)
    left, apart = np.empty_like(order), 0  # the edges that joined nothing, in order
    for e in order:
        a, b = _find(parent, first[e]), _find(parent, second[e])
        if a == b:
            continue
        if weight[e] <= limit[a] and weight[e] <= limit[b]:
            parent[b] = a
            size[a] += size[b]
            limit[a] = weight[e] + scale / size[a]
        else:
            left[apart] = e
            apart += 1
    for e in left[:apart]:
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


def centres(regions: Regions) -> tuple[FloatArray, FloatArray]:
    """(n,) x and y of the superpixels' centres of mass."""
    height, width = regions.labels.shape
    flat, count = regions.labels.ravel(), len(regions.size)
    xs = np.tile(np.arange(width) + 0.5, height)
    ys = np.repeat(np.arange(height) + 0.5, width)
    x = np.bincount(flat, xs, count) / regions.size
    y = np.bincount(flat, ys, count) / regions.size
    return x.astype(np.float32), y.astype(np.float32)


@nb.njit(cache=True)
def neighbours(length: FloatArray) -> tuple[IntArray, IntArray]:
    """The pairs (first < second) of superpixels that share a border.

    Args:
        length: (n, n), of `Regions`.
    """
    first, second = [np.int32(0) for _ in range(0)], [np.int32(0) for _ in range(0)]
    for a in range(length.shape[0]):
        for b in range(a + 1, length.shape[0]):
            if length[a, b] > 0:
                first.append(np.int32(a))
                second.append(np.int32(b))
    return np.array(first, np.int32), np.array(second, np.int32)


@nb.njit(cache=True, inline="always")
def _cost(
    a: int,
    b: int,
    tables: tuple[FloatArray, FloatArray, FloatArray, FloatArray],
    power: float,
    edge: float,
) -> float:
    """(colour distance + edge * mean border weight) * (harmonic size) ** power."""
    size, colour, length, strength = tables
    distance = np.float32(0)
    for c in range(colour.shape[1]):
        d = colour[a, c] / size[a] - colour[b, c] / size[b]
        distance += d * d
    harmonic = size[a] * size[b] / (size[a] + size[b])
    return (np.sqrt(distance) + edge * strength[a, b] / length[a, b]) * harmonic**power


def merge_tree(regions: Regions, with_point: BoolArray, power: float, edge: float) -> IntArray:
    """Greedy merging of neighbours, cheapest first -> parent (2n-1,) int32, the root's is -1.

    Leaves are the superpixels 0..n-1, inner nodes are numbered as they are made.

    Args:
        with_point: (n,) bool, regions with an annotated point; two of them join only when nothing
            else is left.
    """
    size, colour, length, strength = (table.copy() for table in regions[1:])
    return _merge((size, colour, length, strength), with_point.copy(), power, edge)


@nb.njit(cache=True)
def _merge(
    tables: tuple[FloatArray, FloatArray, FloatArray, FloatArray],
    with_point: BoolArray,
    power: float,
    edge: float,
) -> IntArray:
    size, colour, length, strength = tables
    n = size.size
    parent = np.full(2 * n - 1, -1, np.int32)
    node = np.arange(n).astype(np.int32)
    alive = np.ones(n, np.bool_)
    best = np.full(n, -1, np.int32)
    best_cost = np.full(n, np.inf, np.float32)
    cost = np.full((n, n), np.inf, np.float32)
    for a in range(n):
        for b in range(n):
            if a != b and length[a, b] > 0:
                barrier = BARRIER if with_point[a] and with_point[b] else np.float32(0)
                cost[a, b] = _cost(a, b, tables, power, edge) + barrier
                if cost[a, b] < best_cost[a]:
                    best_cost[a], best[a] = cost[a, b], b
    for made in range(n, 2 * n - 1):
        a = int(np.argmin(best_cost))
        b = int(best[a])
        parent[node[a]] = made
        parent[node[b]] = made
        node[a] = made
        alive[b] = False
        size[a] += size[b]
        with_point[a] |= with_point[b]
        for c in range(colour.shape[1]):
            colour[a, c] += colour[b, c]
        best_cost[b] = np.inf
        best_cost[a], best[a] = np.inf, -1
        cost[a, b] = np.inf
        for c in range(n):
            if not alive[c] or c == a or length[a, c] + length[b, c] <= 0:
                continue
            length[a, c] += length[b, c]
            strength[a, c] += strength[b, c]
            length[c, a], strength[c, a] = length[a, c], strength[a, c]
            barrier = BARRIER if with_point[a] and with_point[c] else np.float32(0)
            new = _cost(a, c, tables, power, edge) + barrier
            cost[a, c], cost[c, a], cost[c, b] = new, new, np.inf
            if new < best_cost[a]:
                best_cost[a], best[a] = new, c
            if new < best_cost[c]:
                best_cost[c], best[c] = new, a
            elif best[c] == a or best[c] == b:
                k = int(np.argmin(cost[c]))
                best_cost[c], best[c] = cost[c, k], k
    return parent


def chain(parent: IntArray, leaf: int, count: int) -> BoolArray:
    """(depth, n) bool: which of the n superpixels each region above a leaf holds, growing."""
    nodes = [leaf]
    while parent[nodes[-1]] >= 0:
        nodes.append(int(parent[nodes[-1]]))
    step = np.full(len(parent), len(nodes), np.int32)  # at which step of the chain a node joins
    step[nodes] = np.arange(len(nodes))
    _step_down(parent, step)
    return step[None, :count] <= np.arange(len(nodes))[:, None]


@nb.njit(cache=True)
def _step_down(parent: IntArray, step: IntArray) -> None:
    for node in range(parent.size - 2, -1, -1):
        step[node] = min(step[node], step[parent[node]])
