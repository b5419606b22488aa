"""Figure against ground at several scales: colour models of a disc around a point and its ring.

For each point and radius: a soft disc is the first guess of the object, the ring around it of the
background. Both become colour distributions over superpixels (Parzen windows), Bayes' rule gives
each superpixel's share, neighbours smooth it, and the share is the next guess.
"""

from collections.abc import Sequence

import numba as nb
import numpy as np
from scipy.sparse import csr_array
from scipy.special import expit

from sapnet.proposals.hierarchy.superpixels import Regions, centres, neighbours
from sapnet.types import BoolArray, FloatArray

_SIGMA = 10.0  # width of the Parzen window, in units of the normalised colour
_SOFT = 0.4  # width of the disc's border, over its radius
_RING = 2.5  # outer radius of the background, over the disc's
_BORDER = 10.0  # mean border weight that stops the smoothing
_ROUNDS = 3
_FLOOR = np.float32(1e-4)  # density of a colour that was never seen
_TINY = np.float32(1e-6)
_TRACE = np.float32(1e-15)


class FigureGround:
    """The tables that all points of one image share."""

    def __init__(self, regions: Regions, points: FloatArray) -> None:
        """points: (N, 2) xy pixels of all annotated points."""
        self.size = regions.size
        mean = regions.colour / regions.size[:, None]
        square = (mean**2).sum(axis=1)
        apart = np.maximum(square[:, None] + square[None] - 2 * mean @ mean.T, 0)
        self.window = _without_traces(np.exp(apart * np.float32(-0.5 / _SIGMA**2)))
        self.neighbours = _smoothing(regions)
        x, y = centres(regions)
        self.distance = np.hypot(x[:, None] - points[:, 0], y[:, None] - points[:, 1])
        nearest = np.argsort(self.distance, axis=1, kind="stable")[:, :2]
        self.nearest = nearest
        self.near_distance = np.take_along_axis(self.distance, nearest, axis=1)

    def shares(self, indices: Sequence[int], radii: Sequence[float]) -> FloatArray:
        """(P, n, S) share of P points' objects in each superpixel, a column per radius (pixels).

        Points go together because that makes one large matrix product of many small ones.
        """
        count, points, scales = len(self.size), len(indices), len(radii)
        own = np.stack([self._own(index) for index in indices], axis=1)
        distance = self.distance[:, list(indices)]
        ratio = (distance[:, :, None] / np.asarray(radii, np.float32)).reshape(count, -1)
        prior = _sigmoid((1 - ratio) / _SOFT) * np.repeat(own, scales, axis=1)
        ring = _sigmoid((_RING - ratio) / 0.3)
        odds = np.log(prior + _TINY) - np.log(1 - prior + _TINY)
        share = prior
        for _ in range(_ROUNDS):
            figure = self._density(share)
            ground = self._density((1 - share) * ring)
            new = _sigmoid(np.log((figure + _FLOOR) / (ground + _FLOOR)) + odds)
            share = (new + self.neighbours @ new) / 2
        return share.reshape(count, points, scales).transpose(1, 0, 2)

    def _own(self, index: int) -> FloatArray:
        """(n,) soft share of the point's own Voronoi cell in each superpixel."""
        if self.near_distance.shape[1] < 2:
            return np.ones(len(self.size), np.float32)
        own_distance = self.distance[:, index]
        mine_is_nearest = self.nearest[:, 0] == index
        other = np.where(mine_is_nearest, self.near_distance[:, 1], self.near_distance[:, 0])
        return _sigmoid((other - own_distance) / (0.15 * (own_distance + other) + _TINY))

    def _density(self, weight: FloatArray) -> FloatArray:
        """(n, P * S) Parzen density of each superpixel's colour among those weighted so."""
        pixels = _without_traces(weight * self.size[:, None])
        return (self.window @ pixels) / np.maximum(pixels.sum(axis=0), _TINY)


def _without_traces(values: FloatArray) -> FloatArray:
    """`values` with those near 0 made 0: products of them are denormal, and six times as slow."""
    values[values < _TRACE] = 0
    return values


def _sigmoid(z: FloatArray) -> FloatArray:
    return np.asarray(expit(z), np.float32)


def _smoothing(regions: Regions) -> csr_array:
    """(n, n) weights of neighbours, rows of sum 1; a strong border makes a small weight."""
    first, second = neighbours(regions.length)
    length = regions.length[first, second]
    link = length * np.exp(regions.strength[first, second] / length * np.float32(-1 / _BORDER))
    rows, columns = np.concatenate([first, second]), np.concatenate([second, first])
    total = np.bincount(rows, np.tile(link, 2), len(regions.size)).astype(np.float32)
    weight = np.tile(link, 2) / np.maximum(total[rows], _TINY)
    shape = (len(regions.size), len(regions.size))
    return csr_array((weight, (rows, columns)), shape=shape)


@nb.njit(cache=True)
def connected(on: BoolArray, seed: int, length: FloatArray) -> BoolArray:
    """(n,) bool: the superpixels of `on` that are joined to the seed, and the seed itself."""
    count = on.size
    reached = np.zeros(count, np.bool_)
    stack = np.empty(count, np.int32)
    reached[seed], stack[0], used = True, seed, 1
    while used > 0:
        used -= 1
        here = stack[used]
        for there in range(count):
            if on[there] and not reached[there] and length[here, there] > 0:
                reached[there] = True
                stack[used] = there
                used += 1
    return reached
