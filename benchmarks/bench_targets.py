"""Target assignment: an image's masks to the cells that answer for them, as training does it."""

import time

import torch
from comparison import Row, compare, threads
from plain_targets import plain_assign
from torch import Tensor

from sapnet.config.schema import SoloConfig
from sapnet.segmenters.solov2 import assign


def ellipses(count: int, height: int, width: int) -> Tensor:
    """(count, height, width) bool, from specks to half of the image, the same every time."""
    draw = torch.Generator().manual_seed(0)
    y, x = torch.arange(height)[:, None] + 0.5, torch.arange(width) + 0.5
    cy, cx = (torch.rand(count, 1, 1, generator=draw) * side for side in (height, width))
    size = torch.exp(torch.rand(count, 1, 1, generator=draw) * 4) * height / 200
    stretch = torch.exp(torch.rand(count, 1, 1, generator=draw) - 0.5)
    return ((y - cy) / (size * stretch)) ** 2 + ((x - cx) / (size / stretch)) ** 2 <= 1


def measure(small: bool) -> list[Row]:
    """An image of a training step (512 pixels, 15 objects), and one that is as full as COCO's."""
    config, rows = SoloConfig(), []
    for name, count, size in (("512², 15", 15, (128, 128)), ("800×1333, 60", 60, (200, 336))):
        masks, labels = ellipses(count, *size), torch.arange(count) % 80
        with threads(1):
            rows.append(
                compare(
                    f"target assignment, {name} objects",
                    lambda m=masks, c=labels: assign(m, c, config, 80),
                    lambda m=masks, c=labels: plain_assign(m, c, config, 80),
                    against="plain loops, a mask copied a cell",
                    goal=20,
                    clock=time.process_time,
                    rounds=3 if small else 15,
                    sample=0 if small else 0.02,
                )
            )
    return rows
