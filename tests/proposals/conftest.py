"""Small images with known objects, and plain helpers."""

from collections.abc import Iterator, Sequence

import numpy as np
import pytest
import torch
from segment_anything.modeling import Sam

from sapnet.proposals.sam.architecture import Architecture, Vit
from sapnet.proposals.sam.load import build_sam
from sapnet.types import ByteArray, ImageInfo, PointAnnotation, RawProposals


class Fixed:
    """A generator that hands out what it was given."""

    name = "fixed"
    calibrated = False

    def __init__(self, *raws: RawProposals) -> None:
        self.raws = raws

    def fingerprint(self) -> str:
        return "0" * 64

    def propose(
        self, image: ByteArray, info: ImageInfo, annotations: Sequence[PointAnnotation]
    ) -> Iterator[RawProposals]:
        yield from self.raws


def points(*xy: tuple[float, float]) -> list[PointAnnotation]:
    return [PointAnnotation(100 + i, 1, 1, float(x), float(y)) for i, (x, y) in enumerate(xy)]


def info_of(image: np.ndarray) -> ImageInfo:
    return ImageInfo(1, "a.png", image.shape[1], image.shape[0])


def disc(size: tuple[int, int], x: float, y: float, radius: float) -> np.ndarray:
    rows, columns = np.mgrid[: size[0], : size[1]] + 0.5
    return np.hypot(rows - y, columns - x) <= radius


def iou(one: np.ndarray, two: np.ndarray) -> float:
    return float((one & two).sum() / max((one | two).sum(), 1))


@pytest.fixture
def blobs() -> tuple[ByteArray, list[np.ndarray], list[PointAnnotation]]:
    """Four discs on a noisy ground: two that touch, one alone, one at the border."""
    size = (96, 128)
    places = [(40.5, 40.5, 14.0), (66.5, 42.5, 13.0), (104.5, 70.5, 9.0), (8.5, 88.5, 12.0)]
    masks = [disc(size, *place) for place in places]
    masks[1] &= ~masks[0]
    image = np.full((*size, 3), (60, 90, 70), np.int16)
    for mask in masks:
        image[mask] = (190, 120, 80)
    image += np.random.default_rng(0).integers(-8, 9, image.shape, dtype=np.int16)
    return image.astype(np.uint8), masks, points(*[(x, y) for x, y, _ in places])


TINY_VIT = Vit(
    image_side=128,
    patch_side=16,
    width=32,
    heads=2,
    mlp_width=128,
    window=4,
    global_blocks=(1,),
    depth=2,
)
TINY = Architecture(
    encoder=TINY_VIT,
    channels=32,
    mask_channels=8,
    decoder_depth=2,
    decoder_mlp_width=64,
    masks=3,
    iou_depth=3,
    iou_width=32,
)


@pytest.fixture(scope="session")
def model() -> Sam:
    """SAM's architecture, small, with seeded random weights."""
    torch.manual_seed(4)
    return build_sam(TINY)
