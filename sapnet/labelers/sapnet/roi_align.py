"""RoIAlign (He et al., ICCV 2017) over a whole pyramid as one weighted sum of pixels a cell."""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from sapnet.utils.device import to_device


class Pyramid:
    """The pixels of all levels as the rows of one table, to take RoIs from."""

    def __init__(self, levels: Sequence[Tensor], strides: Sequence[int]) -> None:
        """Join the levels into one table.

        Args:
            levels: (B, C, h, w) each, finest first; bfloat16 becomes float32, so that the weights
                of a cell sum to 1.
            strides: pixels of the input to one of each level.
        """
        rows = [level.permute(0, 2, 3, 1).flatten(0, 2) for level in levels]
        pixels = torch.cat(rows)
        self.pixels = pixels.to(torch.promote_types(pixels.dtype, torch.float32))
        shapes = [level.shape[2:] for level in levels]
        first = torch.tensor([0, *(len(row) for row in rows)]).cumsum(0)[:-1]
        columns = [first, *torch.tensor(shapes).T, torch.tensor(strides)]
        self._about = to_device(torch.stack(columns, dim=1), self.pixels.device)  # (L, 4)

    def roi_align(self, rois: Tensor, which: Tensor, resolution: int, sampling: int) -> Tensor:
        """As `torchvision.ops.roi_align` with `aligned=True` on each RoI's level, up to rounding.

        On a CPU torchvision goes through channel after channel, and its backward takes seven times
        as long as its forward; a bag of rows is five times as fast over both. On any device one
        call for all levels needs no list of the RoIs of each, for which a GPU's host would wait.

        Args:
            rois: (R, 5), batch index and xyxy in pixels of the input, without gradient.
            which: (R,) int64, the level of each.
            resolution: cells a side.
            sampling: samples a cell and side, >= 1.

        Returns:
            (R, C, resolution, resolution).
        """
        channels = self.pixels.shape[1]
        if not len(rois) or not len(self.pixels):
            return rois.new_zeros(len(rois), channels, resolution, resolution) + 0 * (
                self.pixels.sum()
            )
        first, height, width, stride = self._about[which].unbind(1)
        x1, y1, x2, y2 = (rois[:, 1:] / stride[:, None] - 0.5).unbind(1)
        rows, row_weights = _taps(y1, y2, resolution, sampling, height)
        columns, column_weights = _taps(x1, x2, resolution, sampling, width)
        start = first + rois[:, 0].long() * (height * width)
        rows = start[:, None, None] + rows * width[:, None, None]
        places = rows[:, :, None, :, None] + columns[:, None, :, None, :]
        weights = row_weights[:, :, None, :, None] * column_weights[:, None, :, None, :]
        cells = F.embedding_bag(
            places.flatten(0, 2).flatten(1),
            self.pixels,
            mode="sum",
            per_sample_weights=weights.flatten(0, 2).flatten(1).to(self.pixels.dtype),
        )
        return cells.reshape(len(rois), resolution, resolution, channels).permute(0, 3, 1, 2)


def _taps(
    low: Tensor, high: Tensor, resolution: int, sampling: int, size: Tensor
) -> tuple[Tensor, Tensor]:
    """The pixels that each cell reads along one axis and their weights: two a sample.

    low, high: (R,) ends of the boxes, in pixels of the level whose centres are whole numbers. size:
    (R,) of the levels. Returns (R, resolution, 2 · sampling) int64, and float. Samples more than a
    pixel outside of the level weigh nothing; nearer ones read its border.
    """
    steps = torch.arange(resolution * sampling, device=low.device, dtype=low.dtype)
    steps = (steps + 0.5) / (resolution * sampling)
    positions = low[:, None] + (high - low)[:, None] * steps
    size = size[:, None].to(positions.dtype)
    weight = ((positions >= -1) & (positions <= size)).to(positions) / sampling
    last = size - 1
    positions = torch.minimum(positions.clamp(min=0), last)
    first = positions.floor()
    share = positions - first
    index = torch.stack([first, torch.minimum(first + 1, last)], dim=-1).long()
    weights = torch.stack([(1 - share) * weight, share * weight], dim=-1)
    shape = (len(low), resolution, 2 * sampling)
    return index.reshape(shape), weights.reshape(shape)
