"""SAM's logits to RLEs, against torch's own two resizes and pycocotools."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from pycocotools import mask as coco_mask

from sapnet.data.masks import encode_all as encode
from sapnet.proposals.sam.masks import Frame, distinct, rles_of

FRAME, CELLS = 128, 32
SIZES = [
    ((60, 90), (85, 128)),
    ((90, 60), (128, 85)),
    ((128, 128), (128, 128)),
    ((400, 250), (128, 80)),
    ((1, 1), (128, 128)),
    ((3, 500), (1, 128)),
    ((500, 3), (128, 1)),
]


def plain(logits: np.ndarray, content: tuple[int, int], size: tuple[int, int]) -> np.ndarray:
    """As SAM itself enlarges: to its frame, without the padding, to the image."""
    whole = F.interpolate(torch.from_numpy(logits)[None].double(), (FRAME, FRAME), mode="bilinear")
    return F.interpolate(whole[..., : content[0], : content[1]], size, mode="bilinear")[0].numpy()


def drawn(kind: str) -> np.ndarray:
    """Four masks: smooth blobs, noise, all one, all zero."""
    rng = np.random.default_rng(3)
    noise = rng.normal(size=(4, CELLS, CELLS))
    if kind == "blobs":
        noise = F.interpolate(torch.from_numpy(noise[:, :5, :5])[None], CELLS, mode="bicubic")[0]
        noise = noise.numpy()
    if kind == "flat":
        noise[:2], noise[2:] = 1.0, -1.0
        noise[1, 7, 9] = noise[1, 0, 0] = -9.0
        noise[3, 12, 3] = noise[3, 31, 31] = 9.0
    return noise.astype(np.float32)


@pytest.mark.parametrize("kind", ["blobs", "noise", "flat"])
@pytest.mark.parametrize(("size", "content"), SIZES)
def test_they_are_those_of_two_resizes(
    kind: str, size: tuple[int, int], content: tuple[int, int]
) -> None:
    logits = drawn(kind)
    values = plain(logits, content, size)
    frame = Frame(content, CELLS, FRAME, content)
    got = rles_of(logits, frame, size, 0.0)
    masks = np.moveaxis(coco_mask.decode(got), 2, 0).astype(bool)
    assert masks.shape == values.shape
    sure = np.abs(values) > 1e-5  # single precision decides the rest
    assert (masks == (values > 0))[sure].all()
    assert sure.mean() > 0.99
    assert got == encode(masks)  # to the letter, as pycocotools writes it
    rows, columns = frame.reach
    assert rles_of(logits[:, :rows, :columns], frame, size, 0.0) == got


@pytest.mark.parametrize("kind", ["blobs", "noise", "flat"])
@pytest.mark.parametrize("size", [size for size, _ in SIZES])
def test_squashed_images_are_resized_once(kind: str, size: tuple[int, int]) -> None:
    """As SAM 2 sees and draws them."""
    logits = drawn(kind)
    values = F.interpolate(torch.from_numpy(logits)[None].double(), size, mode="bilinear")[0]
    frame = Frame((FRAME, FRAME), CELLS, CELLS, (CELLS, CELLS))
    assert frame.used == frame.reach == (CELLS, CELLS)
    got = rles_of(logits, frame, size, 0.0)
    sure = values.abs().numpy() > 1e-5
    masks = np.moveaxis(coco_mask.decode(got), 2, 0).astype(bool)
    assert (masks == (values > 0).numpy())[sure].all()
    assert sure.mean() > 0.99


def test_a_level_of_its_own() -> None:
    logits = drawn("blobs")
    values = plain(logits, (128, 128), (200, 200))
    got = coco_mask.decode(
        rles_of(logits, Frame((128, 128), CELLS, FRAME, (128, 128)), (200, 200), 0.5)
    )
    assert (np.moveaxis(got, 2, 0) == (values > 0.5)).mean() > 0.9999


def test_doubles_go_and_the_more_confident_stays() -> None:
    one = np.zeros((40, 40), bool)
    one[5:35, 5:35] = True
    almost, other = one.copy(), np.zeros_like(one)
    almost[5, 5:25] = False
    other[:10, :10] = True
    masks = np.stack([almost, other, one, one & ~one])
    assert distinct(masks, np.array([0.5, 0.1, 0.9, 0.2], np.float32)) == [1, 2, 3]
    assert distinct(masks, np.array([0.9, 0.1, 0.5, 0.2], np.float32)) == [0, 1, 3]
    assert distinct(masks[:1], np.array([0.3], np.float32)) == [0]
