"""Square windows of an image: what the decoder sees of features, colours and prompts."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor
from torchvision.ops import roi_align

GRID = 32  # cells a side of the decoder's features
FINE = 64  # cells a side of its masks
_CELLS = 4.0  # pixels: the least cell of a window, and of each coarser level twice as many


@dataclass(frozen=True, slots=True)
class Prompts:
    """The prompts for the object of each of N windows, in pixels of the working image.

    Args:
        positive: N tensors (P, 2) xy on the object; at least one each.
        negative: N tensors (Q, 2) xy that are not on it.
        others: N tensors (R, 2) xy on other objects (which may hold this one, or lie in it).
        mask: (N, FINE, FINE) probability of the present mask in the window, or None.
    """

    positive: list[Tensor]
    negative: list[Tensor]
    others: list[Tensor]
    mask: Tensor | None = None


def boxes_of(centres: Tensor, sides: Tensor) -> Tensor:
    """(N, 2) xy and (N,) pixels -> (N, 4) xyxy."""
    half = sides[:, None] / 2
    return torch.cat([centres - half, centres + half], 1)


def level_of(sides: Tensor, levels: int) -> Tensor:
    """(N,) int64, the index of the pyramid level (strides 4, 8, …) that windows are read from."""
    cells = sides / GRID
    return torch.clamp(torch.floor(torch.log2(cells / _CELLS)), 0, levels - 1).long()


def sample(
    level: Tensor, stride: int, images: Tensor, boxes: Tensor, cells: int, shift: float = 0.0
) -> Tensor:
    """(N, C, cells, cells) of one feature map, read at the centres of the cells; 0 outside.

    Args:
        level: (B, C, h, w) float32.
        images: (N,) index into B.
        boxes: (N, 4) xyxy in pixels of the working image.
        shift: pixels by which the map's cells lie right of and below their nominal centres.
    """
    rois = torch.cat([images[:, None].to(boxes.dtype), boxes - shift], 1)
    out: Tensor = roi_align(level, rois, cells, 1.0 / stride, sampling_ratio=1, aligned=True)
    return out


def sample_pyramid(levels: list[Tensor], images: Tensor, boxes: Tensor) -> Tensor:
    """(N, C, GRID, GRID), each window from the level that suits its size.

    Args:
        levels: (B, C, h, w) float32 at strides 4, 8 and so on.
    """
    sides = boxes[:, 2] - boxes[:, 0]
    chosen = level_of(sides, len(levels))
    out = levels[0].new_zeros(len(boxes), levels[0].shape[1], GRID, GRID)
    for index, level in enumerate(levels):
        members = torch.nonzero(chosen == index)[:, 0]
        if len(members):
            stride = 4 * 2**index
            read = sample(level, stride, images[members], boxes[members], GRID, (stride - 1) / 2)
            out = out.index_copy(0, members, read)
    return out


def read_points(
    levels: list[Tensor], images: Tensor, sides: Tensor, points: list[Tensor]
) -> Tensor:
    """(N, C) mean feature at each window's points, from the level that the window is read from.

    Args:
        sides: (N,) pixels of the windows.
        points: N tensors (P, 2) xy, P at least 1.
    """
    counts = [len(p) for p in points]
    owner = torch.repeat_interleave(torch.arange(len(points)), torch.tensor(counts))
    centres = torch.cat(points)
    chosen = level_of(sides, len(levels))[owner]
    size = torch.clamp(sides[owner] / GRID, min=1.0)
    boxes = boxes_of(centres, size)
    read = levels[0].new_zeros(len(owner), levels[0].shape[1])
    for index, level in enumerate(levels):
        members = torch.nonzero(chosen == index)[:, 0]
        if len(members):
            stride = 4 * 2**index
            values = sample(
                level, stride, images[owner[members]], boxes[members], 1, (stride - 1) / 2
            )
            read = read.index_copy(0, members, values[:, :, 0, 0])
    total = levels[0].new_zeros(len(points), read.shape[1]).index_add(0, owner, read)
    return total / torch.tensor(counts, dtype=total.dtype)[:, None]


def cell_centres(boxes: Tensor, cells: int) -> tuple[Tensor, Tensor]:
    """Return x and y of the centres of each window's columns and rows, both (N, cells)."""
    steps = (torch.arange(cells, dtype=boxes.dtype) + 0.5) / cells
    sides = (boxes[:, 2] - boxes[:, 0])[:, None]
    return boxes[:, 0:1] + steps * sides, boxes[:, 1:2] + steps * sides


def bumps(boxes: Tensor, points: list[Tensor], cells: int, radii: tuple[float, ...]) -> Tensor:
    """(N, len(radii), cells, cells): Gaussian bumps at points, the largest where several overlap.

    Args:
        points: N tensors (P, 2) xy; may be empty.
        radii: standard deviations in 32nds of the window.
    """
    out = boxes.new_zeros(len(boxes), len(radii), cells, cells)
    owner = [i for i, p in enumerate(points) for _ in range(len(p))]
    if not owner:
        return out
    index = torch.tensor(owner)
    centres = torch.cat([p for p in points if len(p)])
    xs, ys = cell_centres(boxes[index], cells)
    unit = ((boxes[:, 2] - boxes[:, 0]) / GRID)[index, None]
    dx = ((xs - centres[:, 0:1]) / unit) ** 2
    dy = ((ys - centres[:, 1:2]) / unit) ** 2
    for k, radius in enumerate(radii):
        gx, gy = (torch.exp(-d / (2 * radius**2)) for d in (dx, dy))
        maps = gy[:, :, None] * gx[:, None, :]
        spread = index[:, None, None].expand_as(maps)
        out[:, k] = out[:, k].scatter_reduce(0, spread, maps, "amax")
    return out


def inside(boxes: Tensor, images: Tensor, sizes: Tensor, cells: int) -> Tensor:
    """(N, cells, cells): 1 where a cell's centre is in its image.

    Args:
        sizes: (B, 2) height, width.
    """
    xs, ys = cell_centres(boxes, cells)
    height, width = sizes[images, 0:1], sizes[images, 1:2]
    x_in = (xs >= 0) & (xs < width)
    y_in = (ys >= 0) & (ys < height)
    return (y_in[:, :, None] & x_in[:, None, :]).to(boxes.dtype)


def log_side(sides: Tensor) -> Tensor:
    """(N,) pixels of the working image -> how large windows are, as a logarithm near 0."""
    return torch.log(sides / 160) / math.log(4.0)
