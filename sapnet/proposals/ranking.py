"""What a mask looks like, and from that an estimate of how well it fits its object.

The estimate is a ridge regression of a mask's true IoU on seven figures of it, fitted on
photographs and on micrographs together; docs/log.md has the fit and its figures.
"""

from typing import NamedTuple

import numba as nb
import numpy as np

from sapnet.proposals.regions import Regions, centres, neighbours
from sapnet.types import BoolArray, FloatArray


class Shapes(NamedTuple):
    """M masks in figures, (M,) each unless said; pixels.

    counts: (M, n) pixels of each superpixel. border: pixel edges on the mask's outline, those on
    the image's border included. strength: sum of the image's edge weights on the outline.
    x, y: centre of mass.
    """

    counts: FloatArray
    area: FloatArray
    border: FloatArray
    strength: FloatArray
    x: FloatArray
    y: FloatArray


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


def joined(one: Shapes, two: Shapes) -> Shapes:
    return Shapes(*(np.concatenate(pair) for pair in zip(one, two, strict=True)))


def overlaps(shapes: Shapes, members: BoolArray) -> FloatArray:
    """(M, M) IoU. The first masks are those of `members` (R, n), unions of superpixels; the rest
    are nested in one another, so that the smaller of two is what they share."""
    regional = len(members)
    area = shapes.area
    shared = np.minimum(area[:, None], area[None, :])
    of_regions = members.astype(np.float32) @ shapes.counts.T
    shared[:regional] = of_regions
    shared[:, :regional] = of_regions.T
    return np.asarray(shared / np.maximum(area[:, None] + area[None, :] - shared, 1), np.float32)


def estimate(
    shapes: Shapes, iou: FloatArray, foreign: BoolArray, point: FloatArray, pixels: int
) -> FloatArray:
    """(M,) the IoU to expect of each mask with its object, in [0, 1].

    iou: (M, M) of the masks with each other: what many sources find is more often right. foreign:
    (M,) holds another annotated point. point: (2,) xy. pixels: of the image.
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
        - 0.12 * foreign
        - 0.15 * np.minimum(away, 2)
        + 0.50 * compact
        + 0.52 * iou.mean(axis=1)
    )
    return np.clip(value, 0, 1).astype(np.float32)


def select(confidence: FloatArray, iou: FloatArray, *, alike: float, worse: float) -> list[int]:
    """Indices, best first: no two above IoU `alike`, none `worse` than the best by more."""
    kept: list[int] = []
    for i in np.argsort(-confidence, kind="stable"):
        if kept and confidence[i] < confidence[kept[0]] - worse:
            break
        if not kept or iou[i, kept].max() <= alike:
            kept.append(int(i))
    return kept
