"""Which grid cell answers for which instance: SOLOv2's targets, all levels at once, as indices."""

import math
from dataclasses import dataclass, fields

import numpy as np
import numpy.typing as npt
import torch
from numba import njit
from torch import Tensor

from sapnet.config.schema import SoloConfig
from sapnet.data.resize import MASK_STRIDE
from sapnet.utils.device import to_device

IntArray = npt.NDArray[np.int32]
IndexArray = npt.NDArray[np.int64]


@dataclass(frozen=True)
class SoloTargets:
    """One image's targets. A cell answers for one instance at most, an instance may have many.

    Attributes:
        cells: (P,) int64, ascending, the positive cells, in the order of `SoloOutput`'s flat cells.
        levels: (P,) int64, 0..4.
        instances: (P,) int64, 0..N-1.
        classes: (C,) int64 of all cells, K is background.
        answered: (V,) int64, ascending, the instances that have a cell.
    """

    cells: Tensor
    levels: Tensor
    instances: Tensor
    classes: Tensor
    answered: Tensor

    def __len__(self) -> int:
        return len(self.cells)

    def to(self, device: torch.device) -> "SoloTargets":
        """The same on another device."""
        moved = {f.name: to_device(getattr(self, f.name), device) for f in fields(self)}
        return SoloTargets(**moved)


def assign(masks: Tensor, labels: Tensor, config: SoloConfig, num_classes: int) -> SoloTargets:
    """Positive cells of each instance, from its mask alone.

    An instance is on every level whose scale range holds sqrt(w·h) of its mask's box. There, the
    positive cells are those that its centre region touches (the box scaled by
    `config.center_region`, moved to the mask's centre of mass), at most one step from the cell of
    the centre of mass, at most 3×3. Where instances compete for a cell it goes to one whose centre
    of mass lies in it, before one that merely reaches it; then to the smaller mask; then to the one
    that comes first. (Published: the cell answers for all of their masks, under the class of the
    last. There, too, an object outside of all ranges has no cell, and centres lie half a pixel
    further to the top left.)

    Args:
        masks: (N, h, w) bool at stride 4 of the network's padded input, on the CPU; an empty one
            gets no cell.
        labels: (N,) int64 in 0..K-1.
    """
    # a sum of bools would first make a copy of them in 32 bits
    columns, rows = _profiles(masks.contiguous().view(torch.uint8).numpy())
    grids = np.array(config.num_grids, dtype=np.int64)
    ranges = np.array(config.scale_ranges, dtype=np.float64)
    owners = _owners(columns, rows, grids, ranges, config.center_region)
    cells, levels, instances = torch.from_numpy(owners)
    count = sum(grid * grid for grid in config.num_grids)
    classes = torch.full((count,), num_classes, dtype=torch.int64)
    classes[cells] = labels[instances]
    return SoloTargets(cells, levels, instances, classes, instances.unique())


@njit(cache=True, nogil=True)
def _profiles(masks: npt.NDArray[np.uint8]) -> tuple[IntArray, IntArray]:
    """How much of each mask (N, h, w) lies in each column, and in each row: (N, w), (N, h).

    They say all that `assign` asks of a mask.
    """
    n, height, width = masks.shape
    columns = np.zeros((n, width), dtype=np.int32)
    rows = np.zeros((n, height), dtype=np.int32)
    for i in range(n):
        for y in range(height):
            total = np.int32(0)
            for x in range(width):
                total += masks[i, y, x]
            rows[i, y] = total
            if total:
                for x in range(width):
                    columns[i, x] += masks[i, y, x]
    return columns, rows


@njit(cache=True, nogil=True)
def _owners(
    columns: IntArray,
    rows: IntArray,
    grids: IndexArray,
    ranges: npt.NDArray[np.float64],
    region: float,
) -> IndexArray:
    """(3, P): cells, levels and instances, by the rule in `assign`.

    grids (L,), ranges (L, 2). A scale beyond all ranges counts as the nearest that is in one.
    """
    n = len(columns)
    ends = (grids * grids).cumsum()
    owner = np.full(ends[-1], -1, dtype=np.int64)
    reached = np.zeros(ends[-1], dtype=np.bool_)
    mass = np.zeros(n, dtype=np.int64)
    for i in range(n):
        mass[i], x, w = _extent(columns[i])
        if mass[i] == 0:
            continue
        _, y, h = _extent(rows[i])
        scale = MASK_STRIDE * math.sqrt(w * h)
        scale = min(max(scale, ranges.min()), ranges.max())
        for level in range(len(grids)):
            if not ranges[level, 0] <= scale <= ranges[level, 1]:
                continue
            grid, first = grids[level], ends[level] - grids[level] ** 2
            row, top, bottom = _span(y, 0.5 * region * h, rows.shape[1], grid)
            column, left, right = _span(x, 0.5 * region * w, columns.shape[1], grid)
            for r in range(top, bottom + 1):
                for c in range(left, right + 1):
                    cell, reaching = first + r * grid + c, r != row or c != column
                    other = owner[cell]
                    if (
                        other < 0
                        or reaching < reached[cell]
                        or (reaching == reached[cell] and mass[i] < mass[other])
                    ):
                        owner[cell], reached[cell] = i, reaching
    cells = np.nonzero(owner >= 0)[0]
    out = np.empty((3, len(cells)), dtype=np.int64)
    out[0], out[1], out[2] = cells, np.searchsorted(ends, cells, side="right"), owner[cells]
    return out


@njit(cache=True, nogil=True)
def _extent(profile: IntArray) -> tuple[int, float, int]:
    """Area, centre of mass and extent along an axis."""
    mass, moment, first, last = 0, 0.0, -1, -1
    for i in range(len(profile)):
        if profile[i] > 0:
            mass += profile[i]
            moment += profile[i] * i
            first = i if first < 0 else first
            last = i
    return mass, moment / max(mass, 1) + 0.5, last - first + 1


@njit(cache=True, nogil=True)
def _span(center: float, half: float, side: int, grid: int) -> tuple[int, int, int]:
    """The centre's cell, and the first and the last cell that the region touches near it."""
    middle = int(center / side * grid)
    first = max(int(max((center - half) / side * grid, 0.0)), middle - 1)
    last = min(int((center + half) / side * grid), grid - 1, middle + 1)
    return middle, first, last
