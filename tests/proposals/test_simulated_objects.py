"""Simulated bags of single objects, ordinary and odd, and the pieces that make them."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from pycocotools import mask as coco_mask
from simulated.distance_fields import View, placed
from simulated.generator import VARIANTS, Variant, make_simulated
from simulated.masks import bleeds, parts, wholes

from sapnet.data.masks import encode_all as encode
from sapnet.proposals.bags import near_point
from sapnet.types import Bag, ByteArray, Category, ImageInfo, PointAnnotation, PointSet

from .conftest import disc, iou, points

KINDS = {"whole", "part", "group", "bleed"}
Data = tuple[PointSet, dict[str, Any], Callable[[ImageInfo], ByteArray]]


def one_image(masks: list[np.ndarray], at: list[PointAnnotation]) -> Data:
    """A dataset of one grey image, with the true masks of its points."""
    height, width = masks[0].shape
    info = ImageInfo(1, "a.png", width, height)
    pixels = np.random.default_rng(0).integers(90, 120, (height, width, 3)).astype(np.uint8)
    truth = [
        {
            "id": a.id,
            "segmentation": rle,
            "bbox": coco_mask.toBbox(rle).tolist(),
            "iscrowd": 0,
        }
        for a, rle in zip(at, encode(np.stack(masks)), strict=True)
    ]
    point_set = PointSet((info,), tuple(at), (Category(1, "thing"),))
    return point_set, {"images": [], "annotations": truth, "categories": []}, lambda _: pixels


def holds(bag: Bag, annotation: PointAnnotation) -> bool:
    masks = coco_mask.decode(list(bag.masks)).transpose(2, 0, 1).astype(bool)
    return bool(near_point(masks, annotation.x, annotation.y).all() and masks.any((1, 2)).all())


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("place", [(0, 0), (20, 30), (39, 49)])
@pytest.mark.parametrize("side", [1, 2, 3, 5])
def test_a_few_pixels_are_an_object_too(
    variant: Variant, place: tuple[int, int], side: int
) -> None:
    mask = np.zeros((40, 50), bool)
    top, left = min(place[0], 40 - side), min(place[1], 50 - side)
    mask[top : top + side, left : left + side] = True
    at = points((left + side / 2, top + side / 2))
    [[bag]] = make_simulated(*one_image([mask], at), variant=variant).values()
    assert holds(bag, at[0])
    assert set(bag.sources) <= KINDS
    if side > 2:
        assert max(iou(coco_mask.decode(m).astype(bool), mask) for m in bag.masks) > 0.6


@pytest.mark.parametrize("share", [0.96, 1.0])
def test_an_object_that_fills_its_image(share: float) -> None:
    mask = np.zeros((50, 60), bool)
    mask[: round(50 * share)] = True
    at = points((30, 20))
    [[bag]] = make_simulated(*one_image([mask], at)).values()
    assert holds(bag, at[0])
    assert (coco_mask.area(list(bag.masks)) <= 0.95 * mask.size).all()
    one_pixel = one_image([np.ones((1, 1), bool)], points((0.5, 0.5)))
    [[bag]] = make_simulated(*one_pixel).values()
    assert coco_mask.decode(bag.masks[0]).tolist() == [[1]]


def test_a_point_outside_its_mask_is_still_held() -> None:
    ring = disc((80, 90), 40, 40, 25) & ~disc((80, 90), 40, 40, 14)
    at = points((40, 40), (89.9, 79.9))
    corner = disc((80, 90), 70, 20, 8)
    [bags] = make_simulated(*one_image([ring, corner], at)).values()
    assert all(holds(bag, annotation) for bag, annotation in zip(bags, at, strict=True))


def test_an_empty_true_mask_is_a_disc() -> None:
    empty, full = np.zeros((40, 50), bool), disc((40, 50), 30, 20, 9)
    [bags] = make_simulated(*one_image([empty, full], points((9, 9), (30, 20)))).values()
    assert bags[0].sources == ("disc",)
    assert "whole" in bags[1].sources
    assert "group" not in bags[1].sources


def test_groups_join_the_nearest_of_the_class_alone() -> None:
    size = (60, 200)
    masks = [disc(size, 30, 30, 12), disc(size, 56, 30, 12), disc(size, 180, 30, 12)]
    at = points((30, 30), (56, 30), (180, 30))
    [bags] = make_simulated(*one_image(masks, at)).values()
    groups = [m for m, kind in zip(bags[0].masks, bags[0].sources, strict=True) if kind == "group"]
    assert groups
    assert all(iou(coco_mask.decode(m) > 0, masks[0] | masks[1]) > 0.7 for m in groups)
    assert "group" not in bags[2].sources  # nobody is near
    data = one_image(masks, [at[0], replace(at[1], category_id=2), at[2]])
    [bags] = make_simulated(*data).values()
    assert all("group" not in bag.sources for bag in bags)


@pytest.mark.slow
def test_three_hundred_objects() -> None:
    size, masks, at = (150, 200), [], []
    for index in range(300):
        x, y = 10 * (index % 20) + 5, 10 * (index // 20) + 5
        masks.append(disc(size, x, y, 4.2))
        at += [PointAnnotation(index, 1, 1, float(x), float(y))]
    data = one_image(masks, at)
    bags = make_simulated(*data)
    assert len(bags[1]) == 300
    top = [
        coco_mask.iou([bag.masks[0]], [true["segmentation"]], [0])[0, 0]
        for bag, true in zip(bags[1], data[1]["annotations"], strict=True)
    ]
    assert np.mean(top) == pytest.approx(0.556, abs=0.02)


def test_wrong_variant_and_sizes_are_refused() -> None:
    data = one_image([disc((40, 50), 20, 20, 8)], points((20, 20)))
    with pytest.raises(ValueError, match="variant is 'huge'"):
        make_simulated(*data, variant="huge")
    small = np.zeros((40, 49, 3), np.uint8)
    with pytest.raises(ValueError, match="image 1 or its truth is not 50×40"):
        make_simulated(*data[:2], lambda _: small)


@pytest.mark.parametrize(
    "window", [(0, 0, 9, 7), (3, 2, 5, 4), (0, 3, 9, 4), (2, 0, 7, 1), (8, 6, 1, 1)]
)
def test_placed_is_what_pycocotools_encodes(window: tuple[int, int, int, int]) -> None:
    top, left, height, width = window
    rng = np.random.default_rng(1)
    for fill in (0.0, 0.3, 0.8, 1.0):
        whole = np.zeros((9, 7), bool)
        whole[top : top + height, left : left + width] = rng.random((height, width)) < fill
        inner = whole[top : top + height, left : left + width]
        assert placed(inner, top, left, (9, 7)) == encode(whole[None])[0]


def test_borders_are_moved_to_the_iou_wanted_and_smoothly() -> None:
    truth = disc((100, 100), 50, 50, 25)
    image = np.full((100, 100, 3), 128, np.uint8)
    view = View.of(image, truth, points((50, 50))[0])
    rng = np.random.default_rng(0)
    made = wholes(view, rng, 20)
    assert all(0.79 < iou(mask, view.truth) < 0.96 for mask in made)
    length = [np.count_nonzero(np.diff(m.astype(np.int8), axis=0)) for m in (*made, view.truth)]
    assert max(length[:-1]) < 1.7 * length[-1]  # white noise would make it many times longer
    grown = bleeds(view, rng, 10, (0.5, 0.5), alike=1.0)
    assert all(iou(mask, view.truth) == pytest.approx(0.5, abs=0.03) for mask in grown)
    for piece in parts(view, rng, 10, made):
        assert 0.15 <= piece.sum() / view.truth.sum() <= 0.65
