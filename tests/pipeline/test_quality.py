"""The quality of a pseudo-mask: what it is made of, against plain references."""

import math

import numpy as np
import pytest
from msgspec.structs import replace
from pycocotools import mask as coco_mask

from sapnet.data.masks import area, encode, mask_iou, tight_box, tight_boxes
from sapnet.labelers.quality import (
    EXPLANATIONS,
    WEIGHTS,
    assign_quality,
    compute_mask_features,
    explain_low_quality,
    probability,
    quality_signals,
    usual_quality_signals,
)
from sapnet.types import CONFIRMED, Bag, PointAnnotation, ProposalScores, PseudoMask

SIZE = (40, 50)


def block(left, top, right, bottom):
    mask = np.zeros(SIZE, np.uint8)
    mask[top:bottom, left:right] = 1
    return encode(mask)


def point(id_, x, y, kind=1):
    return PointAnnotation(id_, 1, kind, x, y)


def bag_of(*masks):
    confidence = np.linspace(0.9, 0.1, len(masks)).astype(np.float32)
    return Bag(1, tight_boxes(masks), masks, confidence, ("",) * len(masks), mask_iou(masks))


def row_of(id_, mask, image=1, kind=1, **features):
    return PseudoMask(
        id=id_,
        image_id=image,
        category_id=kind,
        segmentation=mask,
        bbox=tight_box(mask),
        area=area(mask),
        source="refined",
        selected=mask,
        refined=mask,
        mask_features={"support": 0.5, **features},
    )


def test_what_the_bag_tells_against_pixels():
    draw = np.random.default_rng(0)
    for _ in range(20):
        ends = np.sort(draw.integers(0, 40, (5, 2)), axis=1) + np.array([0, 1])
        masks = [block(a, a // 2, b, b // 2 + 2) for a, b in ends.tolist()]
        bag, posterior = bag_of(*masks), draw.dirichlet(np.ones(5)).astype(np.float32)
        found = compute_mask_features(
            masks[1], point(1, 20, 20), [], bag, 1, np.append(posterior, 0.7)
        )
        pixels = np.stack([coco_mask.decode(m) for m in masks]).astype(float)
        ious = [(pixels[1] * p).sum() / (pixels[1] + p - pixels[1] * p).sum() for p in pixels]
        expected = (posterior[:, None, None] * pixels).sum(0)
        both = (expected * pixels[1]).sum()
        assert found["support"] == pytest.approx(np.mean(ious), abs=1e-6)
        assert found["consensus"] == pytest.approx(posterior @ ious, abs=1e-6)
        soft = both / (expected.sum() + pixels[1].sum() - both)
        assert found["expected"] == pytest.approx(soft, abs=1e-5)
        gray = (expected * (1 - expected)).sum() / expected.sum()
        assert found["spread"] == pytest.approx(gray, abs=1e-5)
        entropy = -(posterior * np.log(posterior)).sum() / math.log(5)
        assert found["decided"] == pytest.approx(1 - entropy, abs=1e-5)
        assert found["confidence"] == bag.confidence[1]


def test_a_bag_of_one_is_sure_of_itself():
    mask = block(5, 5, 15, 15)
    found = compute_mask_features(
        mask, point(1, 10, 10), [], bag_of(mask), 0, np.ones(1, np.float32)
    )
    assert [found[n] for n in ("support", "consensus", "expected", "decided")] == [1] * 4
    assert found["spread"] == pytest.approx(0)
    assert found["reach"] is None
    assert (found["contrast"], found["overlap"]) == (None, None)


def test_points_of_others():
    mask = block(5, 5, 25, 25)
    me = point(1, 10, 10)
    others = [me, point(2, 20, 20), point(3, 21, 21, kind=2), point(4, 30, 30)]
    found = compute_mask_features(mask, me, others, bag_of(mask), 0, np.ones(1, np.float32))
    assert (found["rivals"], found["others"]) == (1, 1)
    nearest = math.hypot(10, 10)
    assert found["reach"] == pytest.approx(math.log2(math.sqrt(400 / math.pi) / nearest))


def test_shape_of_a_block_in_the_corner():
    mask = block(0, 0, 10, 10)
    found = compute_mask_features(
        mask, point(1, 2.5, 4.5), [], bag_of(mask), 0, np.ones(1, np.float32)
    )
    radius = math.sqrt(100 / math.pi)
    assert found["depth"] == pytest.approx(3 / radius)  # to the pixel beyond the left side
    assert found["off"] == pytest.approx(math.hypot(4.5 - 2, 4.5 - 4) / radius)
    assert found["fill"] == 1
    assert found["cut"] == 2
    assert found["round"] == pytest.approx(2 * math.sqrt(math.pi * 100) / 36)


@pytest.mark.parametrize(("x", "y"), [(30, 30), (49.5, 0.5), (12.5, 3)])
def test_a_point_outside_has_no_depth(x, y):
    mask = block(10, 5, 20, 15)
    found = compute_mask_features(mask, point(1, x, y), [], bag_of(mask), 0, np.ones(1, np.float32))
    assert found["depth"] == 0


def test_one_pixel_and_the_whole_image():
    for mask in (block(7, 7, 8, 8), block(0, 0, 50, 40)):
        scores = ProposalScores(np.array([-1.0], np.float32), np.array([0.5], np.float32))
        one = np.ones(1, np.float32)
        found = compute_mask_features(mask, point(1, 7.5, 7.5), [], bag_of(mask), 0, one, scores)
        assert all(v is None or math.isfinite(v) for v in found.values())
        assert (found["contrast"], found["overlap"]) == (-1, 0.5)
        assert 0 < probability(found) < 1


def test_what_only_all_masks_tell():
    rows = [
        row_of(1, block(0, 0, 10, 10)),
        row_of(2, block(5, 0, 15, 10)),
        row_of(3, block(30, 30, 35, 35), kind=2),
        row_of(4, block(0, 0, 20, 20), image=2),
        row_of(5, block(0, 0, 10, 10), image=2, kind=2),
    ]
    rows = assign_quality(rows)
    features = [row.mask_features for row in rows]
    assert [d["claimed"] for d in features] == [0.5, 0.5, 0, 0.25, 1]
    assert [d["size"] for d in features] == pytest.approx(
        [0, 0, math.log2(25 / 62.5), 2, math.log2(100 / 62.5)], abs=1e-4
    )
    assert [d["size_here"] for d in features] == [0, 0, 0, 0, 0]
    assert all(0 < row.quality < 1 for row in rows)


def test_what_is_confirmed_is_certain():
    rows = [row_of(1, block(0, 0, 9, 9)), row_of(2, block(0, 0, 9, 9))]
    rows[0] = replace(rows[0], source=CONFIRMED)
    rows = assign_quality(rows)
    assert (rows[0].quality, rows[0].mask_features) == (1.0, {})
    assert rows[1].mask_features["claimed"] == 1


def test_the_order_of_the_masks_does_not_matter():
    draw = np.random.default_rng(1)
    corners = draw.integers(0, 30, (12, 2)).tolist()
    rows = [row_of(n, block(x, y, x + 9, y + 8), image=n % 3) for n, (x, y) in enumerate(corners)]
    again = [row_of(n, block(x, y, x + 9, y + 8), image=n % 3) for n, (x, y) in enumerate(corners)]
    again.reverse()
    assert assign_quality(rows) == assign_quality(again)[::-1]


def test_none_at_all():
    assert assign_quality([]) == []


def test_what_speaks_against_a_mask():
    rows = [row_of(n, block(n, 0, n + 9, 9), support=s) for n, s in enumerate((0.9, 0.9, 0.1))]
    rows = assign_quality(rows)
    usual = usual_quality_signals(rows)
    assert usual["support"] == 0.9
    assert explain_low_quality(rows[0].mask_features, usual) == []
    assert explain_low_quality(rows[2].mask_features, usual) == [EXPLANATIONS["support"]]
    assert set(EXPLANATIONS) == set(WEIGHTS)
    assert usual_quality_signals([]) == quality_signals({})


def test_more_trust_never_lowers_it():
    """No weight is negative, and every signal has one."""
    assert set(quality_signals({})) == set(WEIGHTS)
    assert all(weight > 0 for weight in WEIGHTS.values())
    assert 0 < probability({}) < 1
