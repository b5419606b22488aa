"""SOLOv2's output to RLEs: 500 candidates of 128 objects at 800×1333 become 100 instances."""

import time

import torch
from comparison import Row, compare, threads
from plain_decode import plain_decode
from torch import Tensor

from sapnet.config.schema import SoloConfig
from sapnet.segmenters.solov2 import SoloOutput, decode


def scene(
    size: tuple[int, int], objects: int, candidates: int, config: SoloConfig, classes: int = 80
) -> SoloOutput:
    """An output whose candidates draw soft ellipses, several of them each, over a padded image.

    size: (h, w) of the padded input, multiples of 4. candidates: so many cells speak, for one class
    each, none beside another. The same every time.
    """
    draw = torch.Generator().manual_seed(0)
    shapes = _ellipses(objects, size[0] // 4, size[1] // 4, draw)
    width = config.mask_channels
    mix, _ = torch.linalg.qr(torch.randn(width, width, generator=draw))
    features = torch.einsum("en,nhw->ehw", mix[:, :objects], shapes)
    logits, kernels = [], []
    for grid in config.num_grids:
        logits.append(torch.full((1, classes, grid, grid), -9.0))
        kernels.append(torch.zeros(1, width, grid, grid))
    cells = [
        (level, row, column)
        for level, grid in enumerate(config.num_grids)
        for row in range(0, grid, 2)
        for column in range(0, grid, 2)
    ]
    for n, pick in enumerate(torch.randperm(len(cells), generator=draw)[:candidates].tolist()):
        level, row, column = cells[pick]
        which = n % objects
        score, strength = torch.rand(2, generator=draw).tolist()
        logits[level][0, which % classes, row, column] = 4 * score - 2
        vague = torch.randn(objects, generator=draw) * 0.02
        vague[which] = 1
        kernels[level][0, :, row, column] = mix[:, :objects] @ vague * (1 + strength)
    return SoloOutput(logits, kernels, features[None])


def _ellipses(count: int, height: int, width: int, draw: torch.Generator) -> Tensor:
    """(count, height, width): logits, above 0 inside, from -8 to 8; of all sizes, as in COCO."""
    y, x = torch.arange(height)[:, None] + 0.5, torch.arange(width) + 0.5
    cy, cx = (torch.rand(count, 1, 1, generator=draw) * side for side in (height, width))
    size = torch.exp(torch.rand(count, 1, 1, generator=draw) * 3) * height / 60
    stretch = torch.exp(torch.rand(count, 1, 1, generator=draw) - 0.5)
    angle = torch.rand(count, 1, 1, generator=draw) * 3.1416
    u = (x - cx) * angle.cos() + (y - cy) * angle.sin()
    v = (y - cy) * angle.cos() - (x - cx) * angle.sin()
    radius = ((u / stretch) ** 2 + (v * stretch) ** 2).sqrt()
    wave = 1 + 0.15 * torch.sin(5 * torch.atan2(v, u))
    return (2 * (size * wave - radius)).clamp(-8, 8)


def measure(small: bool) -> list[Row]:
    """One thread: what is compared is work, not how it is spread."""
    size, content = ((192, 320), (187, 317)) if small else ((800, 1344), (800, 1333))
    config = SoloConfig()
    output = scene(size, 32 if small else 128, 60 if small else 500, config)
    with threads(1):
        (ours,) = decode(output, [content], [content], config)
        _, _, masks = plain_decode(output, content, content, config)
        assert ours.masks == masks  # to the letter
        return [
            compare(
                f"post-processing, {60 if small else 500} candidates to {len(ours)} RLEs",
                lambda: decode(output, [content], [content], config),
                lambda: plain_decode(output, content, content, config),
                against="the documented order in plain torch and pycocotools",
                goal=5,
                rounds=1 if small else 7,
                sample=0,
                clock=time.process_time,
            )
        ]
