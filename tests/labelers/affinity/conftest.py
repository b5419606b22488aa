"""Plain references: slow, obvious, and independent of the code under test."""

import heapq
from collections.abc import Callable

import numpy as np
import pytest


def grid_edges(image: np.ndarray) -> list[tuple[int, int, float]]:
    """(a, b, squared difference) of every 4-neighbour pair."""
    _, height, width = image.shape
    edges = []
    for y in range(height):
        for x in range(width):
            for v, u in ((y, x + 1), (y + 1, x)):
                if v < height and u < width:
                    weight = float(((image[:, y, x] - image[:, v, u]) ** 2).sum())
                    edges.append((y * width + x, v * width + u, weight))
    return edges


def largest_edges(image: np.ndarray) -> np.ndarray:
    """(P, P): the smallest possible largest edge of a path, for all pairs, by search on the grid.

    That path lies on every minimum spanning tree, so no tree is needed to find it.
    """
    pixels = image.shape[1] * image.shape[2]
    near: list[list[tuple[int, float]]] = [[] for _ in range(pixels)]
    for a, b, weight in grid_edges(image):
        near[a].append((b, weight))
        near[b].append((a, weight))
    out = np.zeros((pixels, pixels))
    for start in range(pixels):
        found: dict[int, float] = {}
        queue = [(0.0, start)]
        while queue:
            cost, i = heapq.heappop(queue)
            if i in found:
                continue
            found[i] = cost
            for j, weight in near[i]:
                if j not in found:
                    heapq.heappush(queue, (max(cost, weight), j))
        out[start] = [found[i] for i in range(pixels)]
    return out


def all_pairs(image: np.ndarray, probs: np.ndarray, zeta2: float) -> np.ndarray:
    """Eqs 14, 17, 19 as they are written, the pixel itself counted in both sums."""
    affinity = np.exp(-largest_edges(image) / zeta2)
    flat = probs.reshape(len(probs), -1).astype(np.float64)
    return (flat @ affinity.T / affinity.sum(1)).reshape(probs.shape)


def local_loop(guide: np.ndarray, probs: np.ndarray, kernel: int, zeta: float) -> np.ndarray:
    """One step of Eqs 21, 23, pixel by pixel."""
    n, height, width = probs.shape
    r = kernel // 2
    out = np.zeros((n, height, width))
    for y in range(height):
        for x in range(width):
            total = 0.0
            for v in range(max(0, y - r), min(height, y + r + 1)):
                for u in range(max(0, x - r), min(width, x + r + 1)):
                    gap = ((guide[:, y, x] - guide[:, v, u]) ** 2).sum()
                    weight = np.exp(-gap / zeta**2)
                    total += weight
                    out[:, y, x] += weight * probs[:, v, u]
            out[:, y, x] /= total
    return out


@pytest.fixture(name="all_pairs")
def all_pairs_fixture() -> Callable[[np.ndarray, np.ndarray, float], np.ndarray]:
    return all_pairs


@pytest.fixture(name="largest_edges")
def largest_edges_fixture() -> Callable[[np.ndarray], np.ndarray]:
    return largest_edges


@pytest.fixture(name="local_loop")
def local_loop_fixture() -> Callable[[np.ndarray, np.ndarray, int, float], np.ndarray]:
    return local_loop
