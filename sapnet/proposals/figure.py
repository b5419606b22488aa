"""Figure against ground at several scales: colour models of a disc around a point and its ring.

For each point and radius: a soft disc is the first guess of the object, the ring around it of the
background. Both become colour distributions over superpixels (Parzen windows), Bayes' rule gives
each superpixel's share, neighbours smooth it, and the share is the next guess.
"""

from collections.abc import Sequence

import numba as nb
import numpy as np

from sapnet.proposals.regions import Regions
from sapnet.types import BoolArray, FloatArray

_SIGMA = 10.0  # width of the Parzen window, in units of the normalised colour
_SOFT = 0.4  # width of the disc's border, over its radius
_RING = 2.5  # outer radius of the background, over the disc's
_BORDER = 10.0  # mean border weight that stops the smoothing
_ROUNDS = 3
_FLOOR = 1e-4  # density of a colour that was never seen


class FigureGround:
    """The tables that all points of one image share."""

    def __init__(self, regions: Regions, points: FloatArray) -> None:
        """points: (N, 2) xy pixels of all annotated points."""
        self.size = regions.size
        mean = regions.colour / regions.size[:, None]
        square = (mean**2).sum(axis=1)
        apart = np.maximum(square[:, None] + square[None] - 2 * mean @ mean.T, 0)
        self.window = np.exp(apart * np.float32(-0.5 / _SIGMA**2))
        border = regions.strength / np.maximum(regions.length, 1)
        link = regions.length * np.exp(border * np.float32(-1 / _BORDER))
        self.neighbours = link / np.maximum(link.sum(axis=1, keepdims=True), 1e-6)
        x, y = _centres(regions)
        self.distance = np.hypot(x[:, None] - points[:, 0], y[:, None] - points[:, 1])
        nearest = np.argsort(self.distance, axis=1, kind="stable")[:, :2]
        self.nearest = nearest
        self.near_distance = np.take_along_axis(self.distance, nearest, axis=1)

    def shares(self, index: int, radii: Sequence[float]) -> FloatArray:
        """(n, S) share of the point's object in each superpixel, a column per radius (pixels)."""
        ratio = self.distance[:, [index]] / np.asarray(radii)
        prior = _sigmoid((1 - ratio) / _SOFT)
        prior *= self._own(index)[:, None]
        ring = _sigmoid((_RING - ratio) / 0.3)
        odds = np.log(prior + 1e-6) - np.log(1 - prior + 1e-6)
        share = prior
        for _ in range(_ROUNDS):
            figure = self._density(share)
            ground = self._density((1 - share) * ring)
            new = _sigmoid(np.log(figure + _FLOOR) - np.log(ground + _FLOOR) + odds)
            share = (new + self.neighbours @ new) / 2
        return share

    def _own(self, index: int) -> FloatArray:
        """(n,) soft share of the point's own Voronoi cell in each superpixel."""
        if self.near_distance.shape[1] < 2:
            return np.ones(len(self.size), np.float32)
        mine = self.distance[:, index]
        rank = np.where(self.nearest[:, 0] == index, 1, 0)
        other = np.take_along_axis(self.near_distance, rank[:, None], axis=1)[:, 0]
        return _sigmoid((other - mine) / (0.15 * (mine + other) + 1e-6))

    def _density(self, weight: FloatArray) -> FloatArray:
        """(n, S) Parzen density of the colours of superpixels that are weighted (n, S)."""
        pixels = weight * self.size[:, None]
        return (self.window @ pixels) / np.maximum(pixels.sum(axis=0), 1e-6)


def _sigmoid(z: FloatArray) -> FloatArray:
    return (1 / (1 + np.exp(-np.clip(z, -30, 30)))).astype(np.float32)


def _centres(regions: Regions) -> tuple[FloatArray, FloatArray]:
    """(n,) x and y of the superpixels' centres of mass."""
    height, width = regions.labels.shape
    flat, count = regions.labels.ravel(), len(regions.size)
    xs = np.tile(np.arange(width) + 0.5, height)
    ys = np.repeat(np.arange(height) + 0.5, width)
    x = np.bincount(flat, xs, count) / regions.size
    y = np.bincount(flat, ys, count) / regions.size
    return x.astype(np.float32), y.astype(np.float32)


@nb.njit(cache=True)
def connected(on: BoolArray, seed: int, length: FloatArray) -> BoolArray:
    """(n,) bool: the superpixels of `on` that are joined to the seed, and the seed itself."""
    count = on.size
    found = np.zeros(count, np.bool_)
    stack = np.empty(count, np.int32)
    found[seed], stack[0], used = True, seed, 1
    while used > 0:
        used -= 1
        here = stack[used]
        for there in range(count):
            if on[there] and not found[there] and length[here, there] > 0:
                found[there] = True
                stack[used] = there
                used += 1
    return found
