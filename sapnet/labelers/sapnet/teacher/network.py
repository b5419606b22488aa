"""The teacher's network: a window's cells against what the point looks like."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from sapnet.labelers.sapnet.teacher.dataset import TeacherExample

_POINT_CHANNELS = 48
_REACHES = (24.0, 96.0)  # pixels of the input


class Teacher(nn.Module):
    """Two logits a cell: `object` knows looks alone, `mask` also where the point is.

    The first must not see the place: told that cells near the point are object and far ones are
    not, it would learn the radius in between and say nothing of a proposal.
    """

    def __init__(self, *, in_channels: Sequence[int], channels: int, hidden: int) -> None:
        super().__init__()
        self.lateral = nn.ModuleList(nn.Conv2d(c, channels, 1) for c in in_channels)
        self.mixed, self.smoothed = nn.GroupNorm(4, channels), nn.GroupNorm(4, channels)
        self.smooth = nn.Conv2d(channels, channels, 3, padding=1)
        self.at_point = nn.ModuleList(nn.Linear(c, _POINT_CHANNELS) for c in in_channels)
        looks, place = 2 * channels + 6, 6
        self.object = Reader(looks, hidden)
        self.mask = Reader(looks + place, hidden)
        self.condition = nn.Sequential(
            nn.Linear(_POINT_CHANNELS * len(in_channels) + 3, 128),
            nn.ReLU(),
            nn.Linear(128, 2 * (2 * hidden + 1)),
        )

    def forward(self, example: TeacherExample, rows: Tensor) -> tuple[Tensor, Tensor]:
        """The logits of `object` and of `mask`, each (R, G, G). rows: (R,) int64, which points."""
        points, windows = example.points[rows], example.windows[rows]
        maps = [feature.float()[None] for feature in example.features]
        size = maps[0].shape[-2:]
        extent = points.new_tensor([size[1], size[0]]) * 4
        fused = self.fuse(maps)
        side = example.colours.shape[-1]
        x, y = centres(windows, side)
        grid = torch.stack([x[:, None].expand(-1, side, -1), y[..., None].expand(-1, -1, side)], -1)
        # all windows as one tall grid: as many maps as rows would be filled in the backward pass
        tall = sample(fused, (grid / extent).reshape(1, -1, side, 2))[0]
        windowed = tall.unflatten(1, (len(rows), side)).transpose(0, 1)
        own = sample_points(fused, points / extent)
        colours = example.colours[rows].float()
        inside = (points - windows[:, :2]) / (windows[:, 2:] - windows[:, :2])
        colour = sample(F.avg_pool2d(colours, 3, 1, 1), inside[:, None, None])[..., 0, 0]
        looks = torch.cat(
            [
                windowed,
                (windowed - own[..., None, None]).abs(),
                colours,
                (colours - colour[..., None, None]).abs(),
            ],
            dim=1,
        )
        features = [
            F.relu(layer(sample_points(level, points / extent)))
            for layer, level in zip(self.at_point, maps, strict=True)
        ]
        one, two = self.condition(torch.cat([*features, colour], 1)).chunk(2, dim=1)
        place = where(grid - points[:, None, None])
        return self.object(looks, one), self.mask(torch.cat([looks, place], 1), two)

    def fuse(self, maps: list[Tensor]) -> Tensor:
        """All levels as one map at stride 4, (1, channels, h, w)."""
        size = maps[0].shape[-2:]
        total = sum(
            F.interpolate(layer(level * 0.5), size=size, mode="bilinear")
            for layer, level in zip(self.lateral, maps, strict=True)
        )
        mixed = F.relu(self.mixed(total))
        return mixed + F.relu(self.smoothed(self.smooth(mixed)))


class Reader(nn.Module):
    """Cells to one logit each: two layers, the first scaled and shifted by the point's features."""

    def __init__(self, channels: int, hidden: int) -> None:
        super().__init__()
        self.enter = nn.Conv2d(channels, hidden, 1)
        self.look = nn.Conv2d(hidden, hidden, 3, padding=1)
        self.answer = nn.Conv2d(hidden, 1, 1)

    def forward(self, cells: Tensor, condition: Tensor) -> Tensor:
        """Logits (R, G, G) of cells (R, channels, G, G). condition: (R, 2 · hidden + 1)."""
        width = self.enter.out_channels
        scale, shift, bias = condition[..., None, None].split([width, width, 1], dim=1)
        x = F.relu(self.enter(cells) * (1 + scale) + shift)
        x = F.relu(x + self.look(x))
        return (self.answer(x) + bias)[:, 0]


def centres(windows: Tensor, side: int) -> tuple[Tensor, Tensor]:
    """Return x and y of the cells' centres, each (R, side), in the windows' unit."""
    steps = (torch.arange(side, device=windows.device) + 0.5) / side
    extent = windows[:, 2:] - windows[:, :2]
    x = windows[:, :1] + extent[:, :1] * steps
    y = windows[:, 1:2] + extent[:, 1:] * steps
    return x, y


def sample(maps: Tensor, grid: Tensor) -> Tensor:
    """Sample maps (R, C, h, w) at grid (R, a, b, 2), xy in shares of the map: (R, C, a, b)."""
    return F.grid_sample(maps, grid * 2 - 1, padding_mode="border", align_corners=False)


def sample_points(maps: Tensor, points: Tensor) -> Tensor:
    """Sample maps (1, C, h, w) at points (R, 2), xy in shares of the map: (R, C)."""
    return sample(maps, points[None, :, None])[0, :, :, 0].T


def where(offset: Tensor) -> Tensor:
    """Offsets from the point (R, G, G, 2), pixels of the input, as channels: (R, 6, G, G)."""
    near, far = (torch.tanh(offset / reach) for reach in _REACHES)
    distance = (offset.square().sum(-1, keepdim=True) + 16).sqrt()
    channels = [near, far, (distance / 16).log(), torch.exp(-distance / 48)]
    return torch.cat(channels, dim=-1).movedim(-1, 1)
