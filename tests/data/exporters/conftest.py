"""Sources of masks that need no service."""

import io
import zipfile
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as coco

from sapnet.data.exporters import Instance, Options, export
from sapnet.types import Category, ImageInfo


def rle(mask: np.ndarray) -> dict[str, Any]:
    found = coco.encode(np.asfortranarray(mask, dtype=np.uint8))
    return {"size": [int(n) for n in found["size"]], "counts": found["counts"].decode()}


@dataclass
class Memory:
    """A source of arrays. masks: image id -> (H, W) bool, one an instance; ids are 10·image + n."""

    masks: dict[int, list[np.ndarray]]
    categories: list[Category] = field(
        default_factory=lambda: [Category(7, 'a <cell> & "co"'), Category(2, "Kerne, groß")]
    )
    names: dict[int, str] = field(default_factory=dict)
    folder: Path | None = None
    quality: Callable[[int], float] = lambda id_: 0.5
    read: int = 0

    @property
    def images(self) -> list[ImageInfo]:
        found = []
        for id_, masks in self.masks.items():
            height, width = masks[0].shape if masks else (30, 40)
            found.append(ImageInfo(id_, self.names.get(id_, f"{id_}.png"), width, height))
        return found

    def instances(self, image: ImageInfo) -> Iterable[Instance]:
        for number, mask in enumerate(self.masks[image.id]):
            self.read += 1
            id_ = 10 * image.id + number
            category = self.categories[number % len(self.categories)].id
            yield Instance(id_, category, rle(mask), self.quality(id_), point=(1.5, 2.5))

    def file(self, image: ImageInfo) -> Path | None:
        if self.folder is None:
            return None
        path = self.folder / f"image-{image.id}.png"
        Image.new("RGB", (image.width, image.height)).save(path)
        return path


@pytest.fixture
def scene() -> Memory:
    """Masks that are hard: with holes, in parts, of one pixel, of all of them, at the border."""
    ring = np.zeros((30, 40), bool)
    ring[3:25, 4:30] = True
    ring[8:12, 8:20] = False
    ring[15:20, 10:12] = False
    split = np.zeros((30, 40), bool)
    split[26:30, :10] = split[0:2, 33:] = split[27, 20:39] = True
    dot = np.zeros((30, 40), bool)
    dot[29, 39] = True
    whole = np.ones((17, 23), bool)
    comb = np.zeros((17, 23), bool)
    comb[2:15, 1::3] = comb[14, :] = True
    return Memory({3: [ring, split, dot], 1: [whole, comb], 8: []})


@dataclass
class Exported:
    report: dict[str, Any]
    path: Path

    def names(self) -> list[str]:
        with zipfile.ZipFile(self.path) as archive:
            return archive.namelist()

    def read(self, name: str) -> bytes:
        with zipfile.ZipFile(self.path) as archive:
            return archive.read(name)

    def array(self, name: str) -> np.ndarray:
        return np.array(Image.open(io.BytesIO(self.read(name))))

    def unpacked(self) -> Path:
        folder = self.path.with_name("unpacked")
        with zipfile.ZipFile(self.path) as archive:
            archive.extractall(folder)
        return folder


@pytest.fixture
def exported(tmp_path: Path) -> Callable[..., Exported]:
    def run(source: Memory, format: str, **options: Any) -> Exported:
        path = tmp_path / f"{format}.export"
        return Exported(export(source, format, path, Options(**options)), path)

    return run


@pytest.fixture
def memory() -> type[Memory]:
    return Memory
