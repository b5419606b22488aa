"""Figures of a mask's shape and outline, and from them an estimate of its IoU with the object.

The estimate is a ridge regression of a mask's true IoU on seven figures of it, fitted on
photographs and on micrographs together; docs/log.md has the fit and its figures.
"""

import itertools
from collections.abc import Sequence
from typing import NamedTuple

import numba as nb
import numpy as np

from sapnet.proposals.hierarchy.superpixels import IntArray, Regions, centres, neighbours
from sapnet.types import BoolArray, FloatArray

_SPREAD = 0.12  # a mask whose confidence is lower by this is e times less likely the object


class Shapes(NamedTuple):
    """M masks in figures, (M,) each unless said; pixels.

    Attributes:
        counts: (M, n) pixels of each superpixel.
        border: pixel edges on the mask's outline, those on the image's border included.
        strength: sum of the image's edge weights on the outline.
        x: of the centre of mass.
        y: of the centre of mass.
    """

    counts: FloatArray
    area: FloatArray
    border: FloatArray
    strength: FloatArray
    x: FloatArray
    y: FloatArray


class Nest(NamedTuple):
    """Masks each of which lies within the next.

    Attributes:
        first: (H, W) int32, for each pixel the index of the first mask that contains it, `depth`
            where none does.
        depth: how many masks.
    """

    first: IntArray
    depth: int


class RegionFigures:
    """The figures of masks that are unions of superpixels, without looking at a pixel again."""

    def __init__(self, regions: Regions) -> None:
        labels = regions.labels
        self.size = regions.size
        self.first, self.second = neighbours(regions.length)
        self.length = regions.length[self.first, self.second]
        self.strength = regions.strength[self.first, self.second]
        frame = np.concatenate([labels[0], labels[-1], labels[:, 0], labels[:, -1]])
        self.frame = np.bincount(frame, minlength=len(regions.size)).astype(np.float32)
        self.x, self.y = centres(regions)

    def shapes(self, members: BoolArray) -> Shapes:
        """members: (M, n) bool, the superpixels of each mask."""
        counts = members * self.size
        area = counts.sum(axis=1)
        cut = members[:, self.first] != members[:, self.second]
        return Shapes(
            counts=counts,
            area=area,
            border=cut @ self.length + members @ self.frame,
            strength=cut @ self.strength,
            x=counts @ self.x / np.maximum(area, 1),
            y=counts @ self.y / np.maximum(area, 1),
        )


@nb.njit(cache=True)
def measure(image: FloatArray, mask: BoolArray, top: int, left: int) -> FloatArray:
    """(5,) area, border, strength, x and y (see Shapes) of a mask that is a window's content.

    Args:
        mask: (h, w), whose first pixel lies at (top, left) of the (H, W, C) image; empty outside.
    """
    height, width, channels = image.shape
    area, border, strength, sx, sy = 0, 0, 0.0, 0.0, 0.0
    for i in range(mask.shape[0]):
        for j in range(mask.shape[1]):
            if not mask[i, j]:
                continue
            y, x = top + i, left + j
            area += 1
            sx += x + 0.5
            sy += y + 0.5
            for dy, dx in ((-1, 0), (1, 0), (0, -1), (0, 1)):
                k, m = i + dy, j + dx
                if 0 <= k < mask.shape[0] and 0 <= m < mask.shape[1] and mask[k, m]:
                    continue
                border += 1
                v, u = y + dy, x + dx
                if 0 <= v < height and 0 <= u < width:
                    total = 0.0
                    for c in range(channels):
                        total += (image[y, x, c] - image[v, u, c]) ** 2
                    strength += np.sqrt(total)
    figures = np.zeros(5, np.float32)
    figures[0], figures[1], figures[2] = area, border, strength
    figures[3], figures[4] = sx / max(area, 1), sy / max(area, 1)
    return figures


def joined(*shapes: Shapes) -> Shapes:
    """The figures of all masks, one after the other."""
    return Shapes(*(np.concatenate(figures) for figures in zip(*shapes, strict=True)))


@nb.njit(cache=True)
def tally(one: IntArray, two: IntArray, rows: int, columns: int) -> FloatArray:
    """(rows, columns) pixels that have the value i in `one` and j in `two`, both (H, W)."""
    table = np.zeros((rows, columns), np.float32)
    for y in range(one.shape[0]):
        for x in range(one.shape[1]):
            table[one[y, x], two[y, x]] += 1
    return table


def overlaps(shapes: Shapes, members: BoolArray, nests: Sequence[Nest]) -> FloatArray:
    """IoU of all masks with each other.

    Args:
        shapes: figures of all M masks.
        members: (R, n) bool, of the first R masks, which are unions of superpixels.
        nests: the rest, in their order.

    Returns:
        (M, M) float32.
    """
    regional, area = len(members), shapes.area
    shared = np.zeros((len(area), len(area)), np.float32)
    shared[:regional] = members.astype(np.float32) @ shapes.counts.T
    ends = np.cumsum([regional, *[nest.depth for nest in nests]])
    spans = [slice(start, end) for start, end in itertools.pairwise(ends)]
    for i, (one, span) in enumerate(zip(nests, spans, strict=True)):
        shared[span, span] = np.minimum(area[span, None], area[None, span])
        for two, other in zip(nests[:i], spans[:i], strict=True):
            table = tally(one.first, two.first, one.depth + 1, two.depth + 1)
            shared[span, other] = table.cumsum(axis=0).cumsum(axis=1)[:-1, :-1]
    shared = np.maximum(shared, shared.T)
    return np.asarray(shared / np.maximum(area[:, None] + area[None, :] - shared, 1), np.float32)


def estimate(
    shapes: Shapes, iou: FloatArray, contains_other: BoolArray, point: FloatArray, pixels: int
) -> FloatArray:
    """(M,) the IoU to expect of each mask with its object, in [0, 1].

    Args:
        iou: (M, M) of the masks with each other: what many sources find is more often right.
        contains_other: (M,) another annotated point.
        point: (2,) xy.
        pixels: of the image.
    """
    contrast = shapes.strength / np.maximum(shapes.border, 1)
    share = np.log(shapes.area / pixels + 1e-5)
    away = np.hypot(shapes.x - point[0], shapes.y - point[1]) / np.sqrt(np.maximum(shapes.area, 1))
    compact = 4 * np.pi * shapes.area / np.maximum(shapes.border, 1) ** 2
    value = (
        -0.19
        + 0.04 * np.log1p(contrast)
        - 0.09 * share
        - 0.01 * share**2
        - 0.12 * contains_other
        - 0.15 * np.minimum(away, 2)
        + 0.50 * compact
        + 0.52 * iou.mean(axis=1)
    )
    return np.clip(value, 0, 1).astype(np.float32)


def select(
    confidence: FloatArray, iou: FloatArray, *, most: int, alike: float, spread: float = _SPREAD
) -> list[int]:
    """Indices of at most `most` masks, best first, of which no two are above IoU `alike`.

    Any of the masks may be the object, more likely where its confidence is high; after the most
    confident one, each choice raises the expected best IoU of the chosen by as much as it can.
    (The expected best IoU is submodular: greedy choice is near the optimum.)

    Args:
        spread: of the confidence; where it is large, masks of low confidence count more.
    """
    likely = np.exp((confidence - confidence.max(initial=0)) / np.float32(spread))
    covered = np.zeros_like(confidence)
    free = np.ones(len(confidence), bool)
    kept: list[int] = []
    while len(kept) < most and free.any():
        gain = np.maximum(iou - covered, 0) @ likely if kept else confidence
        best = int(np.argmax(np.where(free, gain, -1)))
        kept.append(best)
        covered = np.maximum(covered, iou[best])
        free &= iou[best] <= alike
        free[best] = False
    return sorted(kept, key=lambda i: (-confidence[i], i))
