"""The semantic map of an image, painted from what its bags expect."""

from math import ceil

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from sapnet.data.box_masks import pixels_of
from sapnet.data.masks import run_lengths
from sapnet.data.resize import MASK_STRIDE
from sapnet.data.samples import Sample
from sapnet.types import Bag, FloatArray

UNKNOWN = -1
"""Of a pixel that is neither surely an object's nor surely ground."""


def expected_mask(bag: Bag, posterior: np.ndarray) -> FloatArray:
    """The mean of a bag's masks under their probabilities, (H, W) float32 in [0, 1].

    Args:
        posterior: (M,) or longer, of the bag's M masks.
    """
    height, width = bag.masks[0]["size"]
    mean = np.zeros((height, width), np.float32)
    used = np.flatnonzero(posterior[: len(bag)] > 0)
    if not len(used):
        return mean
    # columns that hold all of these masks; runs go down one column after the other
    left, right = int(bag.boxes[used, 0].min()), ceil(bag.boxes[used, 2].max())
    steps = np.zeros(height * (right - left) + 1)
    for place in used.tolist():
        ends = run_lengths(bag.masks[place]["counts"]).cumsum() - height * left
        ends = ends.clip(0, len(steps) - 1)
        np.add.at(steps, ends[0::2], posterior[place])
        np.add.at(steps, ends[1::2], -posterior[place])
    top, bottom = int(bag.boxes[used, 1].min()), ceil(bag.boxes[used, 3].max())
    columns = steps[:-1].cumsum().reshape(right - left, height)
    mean[top:bottom, left:right] = columns[:, top:bottom].T.clip(0, 1)
    return mean


def expected_masks(sample: Sample, posterior: np.ndarray, shape: tuple[int, int]) -> Tensor:
    """The expected mask of each object on the padded grid at stride 4, (N, *shape) in [0, 1].

    That of an object with a box is cut to it.

    Args:
        sample: the image.
        posterior: (N, M), probabilities of the bags' masks.
        shape: (h, w) of the batch's grid.
    """
    record = sample.record
    out = torch.zeros(len(record.bags), *shape)
    h, w = (-(-side // MASK_STRIDE) for side in sample.size)
    objects = zip(record.annotations, record.bags, posterior, strict=True)
    for n, (annotation, bag, shares) in enumerate(objects):
        mean = expected_mask(bag, shares)
        if annotation.guide is not None:
            rows, columns = pixels_of(annotation.guide, record.info.size)
            inside = np.zeros_like(mean)
            inside[rows, columns] = mean[rows, columns]
            mean = inside
        full = torch.from_numpy(np.ascontiguousarray(mean))
        small = F.interpolate(full[None, None], size=(h, w), mode="area")[0, 0]
        out[n, :h, :w] = small.flip(1) if sample.flipped else small
    return out


def points_on_input(sample: Sample) -> Tensor:
    """The points of an image in pixels of the network's input, (N, 2) float32 xy."""
    points = [(a.x, a.y) for a in sample.record.annotations]
    xy = np.array(points, dtype=np.float64).reshape(-1, 2) * np.array(sample.scale)
    if sample.flipped:
        xy[:, 0] = sample.size[1] - xy[:, 0]
    return torch.from_numpy(xy.astype(np.float32))


def cells_of(points: Tensor, size: tuple[int, int]) -> tuple[Tensor, Tensor]:
    """Row and column of the cell at stride 4 that holds each point, (N,) int64 each.

    Args:
        points: (N, 2) xy, pixels of the input.
        size: (h, w) of the image in the input, without padding, in pixels.
    """
    limits = [-(-side // MASK_STRIDE) - 1 for side in size]
    columns, rows = (points / MASK_STRIDE).long().unbind(1)
    return rows.clamp(0, limits[0]), columns.clamp(0, limits[1])


def paint(
    expected: Tensor,
    labels: Tensor,
    content: tuple[int, int],
    ground: int,
    object_from: float,
    ground_to: float,
) -> Tensor:
    """The semantic map, (h, w) int64: a class, `ground`, or `UNKNOWN`.

    A pixel is of an object's class where that object's expected mask is at least `object_from`, of
    the smallest (by the sum of its expected mask) where several are; ground where all are at most
    `ground_to`; else, and in the padding, unknown.

    Args:
        expected: (N, h, w) in [0, 1].
        labels: (N,) int64.
        content: (h, w) of the image on the grid; what lies beyond is padding.
        ground: K.
        object_from: share of the posterior from which on a pixel is object.
        ground_to: share of the posterior up to which a pixel is ground.
    """
    painted = torch.full(expected.shape[1:], UNKNOWN, dtype=torch.int64)
    painted[: content[0], : content[1]] = ground
    painted[(expected > ground_to).any(0)] = UNKNOWN
    sizes = expected.flatten(1).sum(1)
    for n in sizes.argsort(descending=True, stable=True).tolist():
        painted[expected[n] >= object_from] = labels[n]
    return painted
