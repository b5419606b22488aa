"""Bags of objects with a box: cut to it, held against slow plain rules."""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pytest

from sapnet.data.box_masks import box_mask, ellipse_mask
from sapnet.data.masks import decode, encode, encode_all
from sapnet.proposals.bags import make_bags
from sapnet.proposals.box_rules import grown
from sapnet.proposals.store import key_of
from sapnet.types import Bag, Box, ByteArray, ImageInfo, PointAnnotation, RawProposals

SIZE = HEIGHT, WIDTH = 40, 60
INFO = ImageInfo(1, "a.png", WIDTH, HEIGHT)
IMAGE = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
BOXES: list[Box] = [
    (10, 8, 30, 24),
    (10.4, 8.6, 30.2, 24.9),
    (0, 0, WIDTH, HEIGHT),
    (57.5, 38, WIDTH, HEIGHT),
    (20, 20, 22, 22),
    (20.6, 20.6, 20.9, 20.9),
    (3.2, 0, 4.1, HEIGHT),
]


class Fixed:
    name = "fixed"
    calibrated = True

    def __init__(self, masks: np.ndarray, confidence: Sequence[float]) -> None:
        self.masks, self.confidence = masks, np.array(confidence, np.float32)

    def fingerprint(self) -> str:
        return "0" * 64

    def propose(
        self, image: ByteArray, info: ImageInfo, annotations: Sequence[PointAnnotation]
    ) -> Iterator[RawProposals]:
        for _ in annotations:
            yield RawProposals(self.masks, self.confidence, ("fixed",) * len(self.masks))


def thing(box: Box | None, point: tuple[float, float] | None = None) -> PointAnnotation:
    assert box is not None or point is not None
    x, y = point or ((box[0] + box[2]) / 2, (box[1] + box[3]) / 2)  # type: ignore[index]
    return PointAnnotation(7, 1, 1, x, y, box=box, pointed=point is not None)


def rectangle(left: int, top: int, right: int, bottom: int) -> np.ndarray:
    mask = np.zeros(SIZE, bool)
    mask[top:bottom, left:right] = True
    return mask


def bag(annotation: PointAnnotation, *masks: np.ndarray, most: int = 16) -> Bag:
    stacked = np.stack(masks) if masks else np.zeros((0, *SIZE), bool)
    confidence = np.linspace(0.9, 0.7, len(masks))
    (made,) = make_bags(Fixed(stacked, confidence), IMAGE, INFO, [annotation], max_proposals=most)
    return made


@pytest.mark.parametrize("box", BOXES)
def test_boxes_and_ellipses_pixel_by_pixel(box: Box) -> None:
    filled, round_ = decode(box_mask(box, SIZE)), decode(ellipse_mask(box, SIZE))
    inside, oval = np.zeros(SIZE, bool), np.zeros(SIZE, bool)
    for row in range(HEIGHT):
        for column in range(WIDTH):
            x, y = column + 0.5, row + 0.5
            inside[row, column] = box[0] <= x < box[2] and box[1] <= y < box[3]
            dx, dy = (2 * x - box[0] - box[2]) / (box[2] - box[0]), 2 * y - box[1] - box[3]
            oval[row, column] = dx**2 + (dy / (box[3] - box[1])) ** 2 <= 1
    if inside.any():
        assert np.array_equal(filled, inside)
    assert filled.sum() == max(inside.sum(), 1)
    assert round_.any()
    assert not (round_ & ~filled).any()
    if oval.any():
        assert np.array_equal(round_, oval & filled)


@pytest.mark.parametrize("box", BOXES)
@pytest.mark.parametrize("pointed", [False, True])
def test_masks_are_cut_and_those_of_others_go(box: Box, pointed: bool) -> None:
    draw = np.random.default_rng(3)
    masks = []
    for _ in range(30):
        x, y = draw.integers(0, WIDTH - 8), draw.integers(0, HEIGHT - 8)
        masks.append(rectangle(x, y, x + draw.integers(3, 30), y + draw.integers(3, 30)))
    point = (box[0], box[1]) if pointed else None
    found = bag(thing(box, point), *masks, most=99)
    left, top, right, bottom = grown(box)
    wide, high = box[2] - box[0], box[3] - box[1]
    assert left == pytest.approx(box[0] - max(2, 0.03 * wide))
    assert bottom == pytest.approx(box[3] + max(2, 0.03 * high))
    rows, columns = np.mgrid[:HEIGHT, :WIDTH] + 0.5
    window = (columns >= left) & (columns < right) & (rows >= top) & (rows < bottom)
    expected = {ellipse_mask(box, SIZE)["counts"]: "ellipse"}
    for mask in masks:
        part = mask & window
        near = (np.hypot(columns - box[0], rows - box[1]) <= 2) & part
        if 2 * part.sum() >= mask.sum() and (not pointed or near.any()):
            expected[encode(part)["counts"]] = "fixed"
    assert found.sources.count("ellipse") == 1
    assert set(zip([m["counts"] for m in found.masks], found.sources, strict=True)) <= set(
        expected.items()
    )
    alike = np.stack([decode(m) for m in found.masks])
    for counts in expected:
        mask = decode({"size": [*SIZE], "counts": counts})
        ious = (alike & mask).sum((1, 2)) / (alike | mask).sum((1, 2))
        assert ious.max() > 0.95  # itself, or what it is a duplicate of


def test_the_ellipse_is_always_one() -> None:
    box = BOXES[0]
    oval = decode(ellipse_mask(box, SIZE))
    for masks in ([], [oval], [oval, rectangle(10, 8, 30, 24), rectangle(11, 9, 22, 20)]):
        for most in (1, 2, 16):
            found = bag(thing(box), *masks, most=most)
            assert found.sources.count("ellipse") == 1
            assert len(found) <= most
    (alone,) = bag(thing(box), oval).sources
    assert alone == "ellipse"


def test_without_a_box_nothing_changes() -> None:
    masks = [rectangle(10, 8, 30, 24), rectangle(0, 0, WIDTH, HEIGHT), rectangle(40, 8, 50, 20)]
    found = bag(thing(None, (20, 16)), *masks)
    assert list(found.masks) == encode_all(np.stack(masks[:1]))


def test_boxes_are_of_the_key_only_where_there_are_some() -> None:
    known: Any = [PointAnnotation(1, 1, 1, 5.5, 6.5), PointAnnotation(2, 1, 1, 20, 20)]
    old = "50b50df4"  # of releases that knew no boxes
    key = key_of("ab" * 32, known, "cd" * 32)
    boxed = [known[0], thing(BOXES[0], (20, 20))]
    keys = {key_of("ab" * 32, [known[0], a], "cd" * 32) for a in (boxed[1], thing(BOXES[0]))}
    assert len(keys | {key}) == 3
    assert key[:8] == old
