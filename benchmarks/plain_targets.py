"""SOLOv2's target assignment as the papers describe it: plain loops, a mask copied for each cell.

The peer in `make bench`, and the oracle of the tests.
"""

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from sapnet.config.schema import SoloConfig
from sapnet.segmenters.solov2.targets import MASK_STRIDE

Claims = dict[int, tuple[bool, int, int]]  # cell of a level: (only reached, area, instance)


def plain_assign(
    masks: Tensor, labels: Tensor, config: SoloConfig, num_classes: int
) -> tuple[list[Tensor], list[Tensor], list[Tensor]]:
    """Level by level, instance by instance, cell by cell (SOLO, section 3.3; SOLOv2, 3.3).

    -> per level the classes (S, S) int64, K where there is no object; the positive cells (P,),
    ascending, row by row; and their masks (P, h, w), a copy for each. Who wins a cell that several
    claim: see `sapnet.segmenters.solov2.assign`, whose arguments these are.
    """
    classes, cells, targets = [], [], []
    for grid, limits in zip(config.num_grids, config.scale_ranges, strict=True):
        claims: Claims = {}
        for n, mask in enumerate(masks.numpy()):
            if mask.any():
                _claim(claims, n, mask, grid, limits, config)
        level = torch.full((grid, grid), num_classes, dtype=torch.int64)
        picked = []
        for cell in sorted(claims):
            instance = claims[cell][2]
            level[cell // grid, cell % grid] = labels[instance]
            picked.append(masks[instance].clone())
        classes.append(level)
        cells.append(torch.tensor(sorted(claims), dtype=torch.int64))
        targets.append(torch.stack(picked) if picked else masks[:0])
    return classes, cells, targets


def _claim(
    claims: Claims,
    n: int,
    mask: npt.NDArray[np.bool_],
    grid: int,
    limits: tuple[float, float],
    config: SoloConfig,
) -> None:
    """The cells of one level that one instance asks for."""
    height, width = mask.shape
    ys, xs = np.nonzero(mask)
    box_h, box_w = int(ys.max() - ys.min()) + 1, int(xs.max() - xs.min()) + 1
    lowest, highest = config.scale_ranges[0][0], config.scale_ranges[-1][1]
    scale = min(max(MASK_STRIDE * (box_w * box_h) ** 0.5, lowest), highest)
    if not limits[0] <= scale <= limits[1]:
        return
    area = len(ys)
    cx, cy = float(xs.mean()) + 0.5, float(ys.mean()) + 0.5
    half_w, half_h = 0.5 * config.center_region * box_w, 0.5 * config.center_region * box_h
    row, column = int(cy / height * grid), int(cx / width * grid)
    top, left = (
        int(max((cy - half_h) / height * grid, 0)),
        int(max((cx - half_w) / width * grid, 0)),
    )
    bottom = min(int((cy + half_h) / height * grid), grid - 1)
    right = min(int((cx + half_w) / width * grid), grid - 1)
    for i in range(max(top, row - 1), min(bottom, row + 1) + 1):
        for j in range(max(left, column - 1), min(right, column + 1) + 1):
            claim = ((i, j) != (row, column), area, n)
            cell = i * grid + j
            claims[cell] = min(claims.get(cell, claim), claim)
