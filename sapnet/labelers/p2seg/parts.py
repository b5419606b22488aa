"""Semantic to instance (S2I): connected parts of a semantic map, and whose pixel each one is."""

from dataclasses import dataclass

import numpy as np
import torch
from scipy import ndimage
from torch import Tensor

from sapnet.data.resize import MASK_STRIDE

_EIGHT = np.ones((3, 3), dtype=bool)


@dataclass(frozen=True)
class OffsetTargets:
    """What the offset map of one image learns.

    Attributes:
        offset: (2, h, w) float32, x and y to the pixel's target, pixels of the input.
        labeled: (h, w) bool, where there is one.
    """

    offset: Tensor
    labeled: Tensor


def grid_centers(shape: tuple[int, int]) -> Tensor:
    """(2, h, w) float32: x and y of the centres of the cells at stride 4, pixels of the input."""
    ys, xs = ((torch.arange(side) + 0.5) * MASK_STRIDE for side in shape)
    return torch.stack([xs.expand(shape), ys[:, None].expand(shape)])


def offset_targets(semantic: Tensor, points: Tensor, labels: Tensor, least: int) -> OffsetTargets:
    """Where each pixel's object is: offsets of the 8-connected parts of each class.

    A part that holds one point of its class leads to its own centroid, one that holds several to
    the nearest of them (k* = argmin_k ‖e_k − p‖); one without a point, or of fewer than `least`
    cells, is not known.

    Args:
        semantic: (h, w) int64, classes 0..K-1; other numbers are no object.
        points: (N, 2) xy, pixels of the input.
        labels: (N,) int64.
        least: cells.
    """
    shape = tuple(semantic.shape)
    centers = grid_centers((shape[0], shape[1]))
    offset = torch.zeros(2, *shape)
    labeled = torch.zeros(shape, dtype=torch.bool)
    for label in labels.unique().tolist():
        parts, count = ndimage.label((semantic == label).numpy(), _EIGHT)
        own = points[labels == label]
        columns, rows = (own / MASK_STRIDE).long().unbind(1)
        of_point = parts[
            rows.clamp(0, shape[0] - 1).numpy(), columns.clamp(0, shape[1] - 1).numpy()
        ]
        sizes = np.bincount(parts.ravel(), minlength=count + 1)
        for part in np.unique(of_point[of_point > 0]).tolist():
            if sizes[part] < least:
                continue
            cells = torch.from_numpy(parts == part)
            xy, inside = centers[:, cells].T, own[torch.from_numpy(of_point == part)]
            if len(inside) == 1:
                target = xy.mean(0, keepdim=True).expand_as(xy)
            else:
                target = inside[torch.cdist(xy, inside).argmin(1)]
            offset[:, cells] = (target - xy).T
            labeled |= cells
    return OffsetTargets(offset, labeled)


def vote(semantic: Tensor, offset: Tensor, points: Tensor, labels: Tensor) -> Tensor:
    """The object of each pixel, (h, w) int64 in 0..N-1, or -1 where there is none.

    It is the one of the pixel's class whose point is nearest to where the pixel's offset leads:
    argmin_n ‖p + Ô(p) − e_n‖.

    Args:
        semantic: (h, w) int64, classes 0..K-1; other numbers are no object.
        offset: (2, h, w), pixels of the input.
        points: (N, 2) xy, pixels of the input.
        labels: (N,) int64.
    """
    owner = torch.full(semantic.shape, -1, dtype=torch.int64)
    ends = grid_centers((semantic.shape[0], semantic.shape[1])) + offset
    for label in labels.unique().tolist():
        cells, own = semantic == label, (labels == label).nonzero().squeeze(1)
        nearest = torch.cdist(ends[:, cells].T, points[own]).argmin(1)
        owner[cells] = own[nearest]
    return owner
