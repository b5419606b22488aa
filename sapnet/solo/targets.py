"""Which grid cell answers for which instance: SOLOv2's targets, all levels at once, as indices."""

from dataclasses import dataclass

import torch
from torch import Tensor

from sapnet.config import SoloConfig
from sapnet.resize import MASK_STRIDE


@dataclass(frozen=True)
class SoloTargets:
    """One image's targets. A cell answers for one instance at most, an instance may have many.

    cells: (P,) int64, ascending, the positive cells, in the order of `SoloOutput`'s flat cells.
    levels: (P,) int64, 0..4. instances: (P,) int64, 0..N-1. classes: (C,) int64 of all cells, K is
    background.
    """

    cells: Tensor
    levels: Tensor
    instances: Tensor
    classes: Tensor

    def __len__(self) -> int:
        return len(self.cells)


def assign(masks: Tensor, labels: Tensor, config: SoloConfig, num_classes: int) -> SoloTargets:
    """Positive cells of each instance, from its mask alone.

    An instance is on every level whose scale range holds sqrt(w·h) of its mask's box. There, the
    positive cells are those that its centre region touches (the box scaled by
    `config.center_region`, moved to the mask's centre of mass), at most one step from the cell of
    the centre of mass, at most 3×3. Where instances compete for a cell it goes to one whose centre
    of mass lies in it, before one that merely reaches it; then to the smaller mask; then to the
    one that comes first. (Published: the cell answers for all of their masks, under the class of
    the last. There, too, an object outside of all ranges has no cell, and centres lie half a pixel
    further to the top left.)

    masks: (N, h, w) bool at stride 4 of the network's padded input; an empty
    one gets no cell. labels: (N,) int64 in 0..K-1.
    """
    device = masks.device
    grids = torch.tensor(config.num_grids, device=device)
    ends = grids.square().cumsum(0)
    classes = torch.full((int(ends[-1]),), num_classes, dtype=torch.int64, device=device)
    if len(masks) == 0:
        none = classes.new_zeros(0)
        return SoloTargets(none, none, none, classes)

    center, size, mass = _centers_and_sizes(masks)
    on_level = _on_level(size, mass, config)  # (L, N)
    frame = size.new_tensor([masks.shape[2], masks.shape[1]])
    center, half = center / frame, size / frame * (0.5 * config.center_region)  # of the image
    g = grids[:, None, None]  # cells below are (L, N, 2), x before y
    middle = (center * g).floor()
    low = ((center - half) * g).floor()
    high = torch.minimum(((center + half) * g).floor(), g - 1)
    step = torch.arange(-1, 2, device=device)
    tried = middle[..., None] + step  # (L, N, 2, 3)
    ok = (tried >= low.clamp(min=0)[..., None]) & (tried <= high[..., None])
    xs, ys = tried[:, :, 0, None, :], tried[:, :, 1, :, None]
    positive = ok[:, :, 0, None, :] & ok[:, :, 1, :, None] & on_level[..., None, None]
    index = (ends - grids.square())[:, None, None, None] + ys.long() * g[..., None] + xs.long()
    level, instance, row, column = positive.nonzero(as_tuple=True)
    keep, cells = _winners(index[positive], (row != 1) | (column != 1), instance, mass)
    instances = instance[keep]
    classes[cells] = labels[instances]
    return SoloTargets(cells, level[keep], instances, classes)


def _centers_and_sizes(masks: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """masks (N, h, w) -> centres of mass (N, 2) xy, box sizes (N, 2) wh, areas (N,)."""
    mass = masks.flatten(1).sum(1)
    centers, sizes = [], []
    for profile in (masks.sum(1), masks.sum(2)):  # along x, along y
        at = torch.arange(profile.shape[1], device=masks.device) + 0.5
        centers.append((profile * at).sum(1) / mass.clamp(min=1))
        on = (profile > 0).to(torch.uint8)
        sizes.append(profile.shape[1] - on.argmax(1) - on.flip(1).argmax(1))
    return torch.stack(centers, 1), torch.stack(sizes, 1).float(), mass


def _on_level(size: Tensor, mass: Tensor, config: SoloConfig) -> Tensor:
    """(L, N) bool; a scale beyond all ranges counts as the nearest that is in one."""
    ranges = size.new_tensor(config.scale_ranges)
    scale = size.prod(1).sqrt() * MASK_STRIDE
    scale = scale.clamp(float(ranges.min()), float(ranges.max()))
    return (scale >= ranges[:, :1]) & (scale <= ranges[:, 1:]) & (mass > 0)


def _winners(
    cells: Tensor, reaching: Tensor, instances: Tensor, mass: Tensor
) -> tuple[Tensor, Tensor]:
    """One claim per cell, by the rule in `assign`. -> (indices of the claims, their cells)."""
    n = len(mass)
    rank = torch.empty_like(mass)
    rank[mass.argsort(stable=True)] = torch.arange(n, device=mass.device)
    order = ((cells * 2 + reaching) * n + rank[instances]).argsort()
    ordered = cells[order]
    first = torch.ones_like(ordered, dtype=torch.bool)
    first[1:] = ordered[1:] != ordered[:-1]
    return order[first], ordered[first]
