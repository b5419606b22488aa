"""Small planted worlds: bright discs on dim ground, with bags of parts, wholes and bleeds."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from pycocotools import mask as coco_mask
from torch import Tensor, nn
from torch.nn import functional as F

from sapnet.config.schema import Config, DataConfig, TeacherConfig
from sapnet.data.masks import mask_iou, tight_boxes
from sapnet.data.samples import ImageRecord, make_record
from sapnet.types import Bag, ImageInfo, PointAnnotation

WHOLE, PART, BLEED = 0, 1, 2


class Body(nn.Module):
    """A frozen body of few numbers: colours, mixed and averaged, at the four strides."""

    def __init__(self) -> None:
        super().__init__()
        self.mix = nn.Conv2d(3, 4, 1)
        with torch.no_grad():
            self.mix.weight.copy_(torch.linspace(-1, 1, 12).view(4, 3, 1, 1))
            self.mix.bias.zero_()

    def forward(self, images: Tensor) -> list[Tensor]:
        return [F.avg_pool2d(self.mix(images), stride) for stride in (4, 8, 16, 32)]


def encode(mask: np.ndarray) -> Any:
    rle = coco_mask.encode(np.asfortranarray(mask, dtype=np.uint8))
    return {"size": [int(side) for side in rle["size"]], "counts": rle["counts"].decode()}


def bag_of(annotation_id: int, masks: Sequence[np.ndarray]) -> Bag:
    rles = tuple(encode(mask) for mask in masks)
    confidence = np.full(len(masks), 0.5, np.float32)
    return Bag(
        annotation_id, tight_boxes(rles), rles, confidence, ("test",) * len(masks), mask_iou(rles)
    )


def planted(folder: Path, seed: int, count: int = 4, size: tuple[int, int] = (96, 112)) -> Any:
    """An image of `count` discs of one class, each with a whole, its part, and a bleed; record and
    the masks as arrays."""
    rng = np.random.default_rng(seed)
    pixels = rng.integers(20, 60, (*size, 3))
    y, x = np.mgrid[: size[0], : size[1]] + 0.5
    bags, annotations, arrays = [], [], []
    for n in range(count):
        cx, cy = 16 + 26 * (n % 4) + rng.integers(-3, 4), 20 + 28 * (n // 4) + rng.integers(-3, 4)
        whole = (x - cx) ** 2 + (y - cy) ** 2 <= 64
        pixels[whole] += np.array([150, 120, 30])
        part = whole & (x <= cx + 3) & (y <= cy + 3)
        dx, dy = [(0, 9), (9, 0), (0, -9), (-9, 0)][int(rng.integers(4))]
        bleed = whole | ((np.abs(x - cx - dx) <= 7) & (np.abs(y - cy - dy) <= 7))
        arrays.append([whole, part, bleed])
        bags.append(bag_of(n, arrays[-1]))
        annotations.append(PointAnnotation(n, seed, 3, float(cx), float(cy)))
    path = folder / f"{seed}.png"
    Image.fromarray(pixels.astype(np.uint8)).save(path)
    info = ImageInfo(seed, path.name, size[1], size[0])
    record = make_record(info, path, annotations, bags, {3: 0})
    return SimpleNamespace(record=record, masks=arrays)


@pytest.fixture
def config() -> Config:
    return replace(
        Config(),
        data=DataConfig(short_sides=(96,), max_long_side=160),
        teacher=TeacherConfig(enabled=True, epochs=1, min_steps=40, cells=16, channels=8, hidden=8),
    )


@pytest.fixture
def body() -> Body:
    return Body()


@pytest.fixture
def plant(tmp_path: Path) -> Callable[..., Any]:
    """plant(seed, count, size): see `planted`."""
    return lambda *args, **more: planted(tmp_path, *args, **more)


@pytest.fixture
def own_record(tmp_path: Path) -> Callable[..., ImageRecord]:
    """own_record(size, [(x, y, class, masks), ...]): noise, and just these bags."""

    def make(
        size: tuple[int, int], objects: Sequence[tuple[float, float, int, list[np.ndarray]]]
    ) -> ImageRecord:
        path = tmp_path / "own.png"
        noise = np.random.default_rng(1).integers(0, 256, (*size, 3), dtype=np.uint8)
        Image.fromarray(noise).save(path)
        annotations = [PointAnnotation(n, 1, c, x, y) for n, (x, y, c, _) in enumerate(objects)]
        bags = [bag_of(n, masks) for n, (_, _, _, masks) in enumerate(objects)]
        info = ImageInfo(1, path.name, size[1], size[0])
        return make_record(info, path, annotations, bags, {3: 0, 7: 1})

    return make
