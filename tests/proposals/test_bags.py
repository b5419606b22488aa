import numpy as np
import pytest
from pycocotools import mask as coco_mask

from sapnet.proposals.bags import DUPLICATE_IOU, make_bags, near_point, near_point_rle, safety_disc
from sapnet.types import Bag, ImageInfo, RawProposals

from .conftest import Fixed, disc, iou, points

SIZE = (40, 50)
INFO = ImageInfo(1, "a.png", SIZE[1], SIZE[0])
IMAGE = np.zeros((*SIZE, 3), np.uint8)


def bag_of(masks: list[np.ndarray], confidence: list[float], **keywords: int) -> Bag:
    stacked = np.array(masks, bool).reshape(-1, *SIZE)
    tags = tuple(f"tag{i}" for i in range(len(masks)))
    raw = RawProposals(stacked, np.array(confidence, np.float32), tags)
    (bag,) = make_bags(Fixed(raw), IMAGE, INFO, points((20.5, 20.5)), **keywords)
    return bag


def plain_near(mask: np.ndarray, x: float, y: float, radius: float) -> bool:
    height, width = mask.shape
    own = min(max(int(y), 0), height - 1), min(max(int(x), 0), width - 1)
    return any(
        (r, c) == own or (c + 0.5 - x) ** 2 + (r + 0.5 - y) ** 2 <= radius**2
        for r, c in zip(*np.nonzero(mask), strict=True)
    )


def test_near_point_against_every_pixel() -> None:
    rng = np.random.default_rng(1)
    masks = rng.random((40, 9, 12)) < 0.05
    for x, y in [(0.0, 0.0), (12.0, 9.0), (5.5, 4.5), (0.5, 8.5), (11.2, 3.7)]:
        expected = [plain_near(mask, x, y, 2.0) for mask in masks]
        assert near_point(masks, x, y).tolist() == expected
        around = coco_mask.decode(near_point_rle(x, y, (9, 12))).astype(bool)
        assert (masks & around).any((1, 2)).tolist() == expected
        assert 0 < sum(expected) < len(expected)


def test_a_mask_two_pixels_away_stays_and_three_goes() -> None:
    two, three = np.zeros(SIZE, bool), np.zeros(SIZE, bool)
    two[20, 22:30], three[20, 23:30] = True, True
    assert bag_of([two, three], [0.5, 0.9]).sources == ("tag0",)


def test_rules_and_order() -> None:
    inner, outer = disc(SIZE, 20.5, 20.5, 5), disc(SIZE, 20.5, 20.5, 10)
    nearly = outer.copy()
    nearly[tuple(np.argwhere(outer)[0])] = False
    empty, everything = np.zeros(SIZE, bool), np.ones(SIZE, bool)
    bag = bag_of([inner, empty, nearly, everything, outer], [0.4, 1.0, 0.6, 0.99, 0.7])
    assert bag.sources == ("tag4", "tag0")
    assert bag.annotation_id == 100
    np.testing.assert_allclose(bag.confidence, [0.7, 0.4])
    decoded = [coco_mask.decode(m).astype(bool) for m in bag.masks]
    assert (decoded[0] == outer).all()
    assert (decoded[1] == inner).all()


def test_boxes_and_overlaps_against_pixels() -> None:
    rng = np.random.default_rng(2)
    masks = [disc(SIZE, *rng.uniform(12, 28, 2), rng.uniform(9, 20)) for _ in range(12)]
    bag = bag_of(masks, rng.random(12).tolist())
    decoded = [coco_mask.decode(m).astype(bool) for m in bag.masks]
    assert len(bag) > 4
    for i, one in enumerate(decoded):
        rows, columns = np.nonzero(one)
        tight = [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
        assert bag.boxes[i].tolist() == tight
        for j, two in enumerate(decoded):
            assert bag.overlaps[i, j] == pytest.approx(iou(one, two), abs=1e-6)
            assert i == j or bag.overlaps[i, j] <= DUPLICATE_IOU
    assert (np.diff(bag.confidence) <= 0).all()


def test_arrival_never_decides() -> None:
    rng = np.random.default_rng(3)
    masks = np.array([disc(SIZE, 20.5, 20.5, r) for r in (3, 4, 5, 6, 8, 8.2, 11, 14)])
    confidence = np.array([0.5, 0.5, 0.7, 0.5, 0.5, 0.5, 0.2, 0.5], np.float32)
    first = None
    for _ in range(6):
        order = rng.permutation(len(masks))
        raw = RawProposals(masks[order], confidence[order], ("same",) * len(masks))
        (bag,) = make_bags(Fixed(raw), IMAGE, INFO, points((20.5, 20.5)), max_proposals=4)
        first = first or bag
        assert bag.masks == first.masks
        assert len(bag) == 4


def test_an_empty_bag_becomes_a_disc() -> None:
    bag = bag_of([], [])
    assert bag.sources == ("disc",)
    assert bag.confidence.tolist() == [0.0]
    assert coco_mask.decode(bag.masks[0])[20, 20] == 1
    assert bag.overlaps.tolist() == [[1.0]]


def test_disc_of_one_pixel_and_of_a_close_neighbour() -> None:
    assert safety_disc(np.array([[0.5, 0.5]]), 0, (1, 1)).all()
    at_border = safety_disc(np.array([[10.0, 8.0]]), 0, (8, 10))
    assert at_border[7, 9]
    pair = np.array([[5.5, 5.5], [6.5, 5.5], [5.5, 5.5]])
    one = safety_disc(pair, 0, (12, 12))
    assert one[5, 5]
    assert not one[5, 6]


def test_wrong_size_and_wrong_limit_are_refused() -> None:
    with pytest.raises(ValueError, match=r"image 1 is \(40, 50, 3\)"):
        make_bags(Fixed(), IMAGE, ImageInfo(1, "a.png", 40, 50), [])
    with pytest.raises(ValueError, match="max_proposals is 0"):
        make_bags(Fixed(), IMAGE, INFO, [], max_proposals=0)
    assert make_bags(Fixed(), IMAGE, INFO, []) == []


def test_a_generator_that_loses_an_annotation_is_found_out() -> None:
    with pytest.raises(ValueError, match="shorter"):
        make_bags(Fixed(), IMAGE, INFO, points((3, 3)))
