"""Small images with known objects, and plain helpers."""

from collections.abc import Iterator, Sequence
from functools import partial

import numpy as np
import pytest
import torch
from segment_anything.modeling import (
    ImageEncoderViT,
    MaskDecoder,
    PromptEncoder,
    Sam,
    TwoWayTransformer,
)

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


@pytest.fixture(scope="session")
def model() -> Sam:
    """SAM's architecture, small, with seeded random weights."""
    torch.manual_seed(4)
    side, dim = 128, 32
    grid = (side // 16, side // 16)
    return Sam(
        image_encoder=ImageEncoderViT(
            img_size=side,
            embed_dim=32,
            depth=2,
            num_heads=2,
            out_chans=dim,
            norm_layer=partial(torch.nn.LayerNorm, eps=1e-6),
            use_rel_pos=True,
            window_size=4,
            global_attn_indexes=(1,),
        ),
        prompt_encoder=PromptEncoder(
            embed_dim=dim, image_embedding_size=grid, input_image_size=(side, side), mask_in_chans=8
        ),
        mask_decoder=MaskDecoder(
            num_multimask_outputs=3,
            transformer=TwoWayTransformer(depth=2, embedding_dim=dim, mlp_dim=64, num_heads=2),
            transformer_dim=dim,
            iou_head_hidden_dim=32,
        ),
    ).eval()
