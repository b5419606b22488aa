"""Clicks that refine a mask: they are honoured, and the mask comes nearer to the truth."""

import time

import numpy as np
import pytest
from scipy.ndimage import distance_transform_edt

from sapnet.data.synthetic import draw_scene
from sapnet.proposals.hierarchy.generator import HierarchyGenerator
from sapnet.proposals.interactive.click_refine import suggest
from sapnet.proposals.interactive.clicks import Click
from sapnet.types import ImageInfo, PointAnnotation


def iou(one, two):
    return (one & two).sum() / max((one | two).sum(), 1)


def centre_of_error(mask, truth):
    """A click where the largest part that is wrong is deepest; None where nothing is wrong."""
    depths = {
        positive: distance_transform_edt(np.pad(wrong, 1))[1:-1, 1:-1]
        for positive, wrong in ((True, truth & ~mask), (False, mask & ~truth))
    }
    positive = bool(depths[True].max() >= depths[False].max())
    depth = depths[positive]
    if not depth.max():
        return None
    y, x = np.unravel_index(int(depth.argmax()), depth.shape)
    return Click(x + 0.5, y + 0.5, positive)


def starts(scenes, low=0.3, high=0.7):
    """(image, truth, mask, candidates, point): an object, and a middling proposal of its point."""
    for scene in range(scenes):
        image, _, masks = draw_scene((160, 160), np.random.default_rng([5, scene]))
        masks = [m for m in masks if m.sum() > 60]
        centres = [centre_of_error(np.zeros_like(m), m) for m in masks]
        points = [PointAnnotation(i, 1, 1, c.x, c.y) for i, c in enumerate(centres)]
        raws = HierarchyGenerator().propose(image, ImageInfo(1, "", 160, 160), points)
        for truth, raw, point in zip(masks, raws, centres, strict=True):
            fits = np.array([iou(m, truth) for m in raw.masks])
            middling = np.flatnonzero((fits >= low) & (fits <= high))
            if len(middling):
                first = middling[0]
                yield image, truth, raw.masks[first], np.delete(raw.masks, first, axis=0)[:6], point


def honoured(mask, clicks):
    return all(mask[int(c.y), int(c.x)] == c.positive for c in clicks)


@pytest.mark.slow
def test_each_click_brings_it_nearer_to_the_truth():
    """Middling masks: one click where it is most wrong, then three more."""
    table = []
    for image, truth, mask, candidates, point in starts(6):
        row, clicks = [iou(mask, truth)], [point]
        for _ in range(4):
            click = centre_of_error(mask, truth)
            if click is not None:
                clicks.append(click)
                mask = suggest(image, clicks, mask, list(candidates))
                assert honoured(mask, clicks)
            row.append(iou(mask, truth))
        table.append(row)
    means = np.mean(table, axis=0)
    assert len(table) >= 8
    assert means[1] > means[0] + 0.12, means
    assert means[4] > 0.75, means
    assert means[4] > means[1], means


def drawn():
    """A light square on dark ground, another one beside it, both a little noisy."""
    noise = np.random.default_rng(0).integers(0, 12, (80, 120, 3), np.uint8)
    image = 40 + noise
    left, right = np.zeros((80, 120), bool), np.zeros((80, 120), bool)
    left[20:60, 10:50], right[20:60, 70:110] = True, True
    image[left | right] += 140
    return image, left, right


@pytest.mark.slow
def test_what_is_clicked_is_added_and_taken_away():
    image, left, right = drawn()
    half = left.copy()
    half[:, 30:] = False
    assert iou(suggest(image, [Click(40.5, 40.5, True)], half), left) > 0.9
    both = left | right
    assert iou(suggest(image, [Click(90.5, 40.5, False)], both), left) > 0.95
    assert iou(suggest(image, [Click(90.5, 40.5, True)], left), both) > 0.95


def test_from_nothing():
    image, left, _ = drawn()
    click = [Click(30.5, 40.5, True)]
    assert iou(suggest(image, click), left) > 0.9
    assert iou(suggest(image, click, np.zeros_like(left)), left) > 0.9
    with pytest.raises(ValueError, match="neither a mask nor a positive click"):
        suggest(image, [Click(30.5, 40.5, False)])


def test_a_mask_that_honours_its_clicks_is_left_alone():
    image, left, _ = drawn()
    clicks = [Click(30.5, 40.5, True), Click(60.5, 40.5, False)]
    found = suggest(image, clicks, left)
    assert (found == left).all()
    assert found is not left
    assert (suggest(image, [], left) == left).all()


@pytest.mark.slow
def test_clicks_are_honoured_whatever_the_image():
    """Noise, tiny and long images, clicks on the border, side by side and in one corner."""
    draw = np.random.default_rng(0)
    for height, width in ((1, 1), (1, 9), (2, 2), (7, 3), (40, 40), (9, 300)):
        image = draw.integers(0, 256, (height, width, 3), np.uint8)
        for _ in range(3):
            mask = draw.random((height, width)) < 0.5
            if draw.random() < 0.5:
                mask[:] = draw.random() < 0.5
            pixels = {(0, 0), (height - 1, width - 1)} | {
                (int(draw.integers(height)), int(draw.integers(width))) for _ in range(3)
            }
            clicks = [
                Click(x + 0.5, y + 0.5, i == 0 or bool(draw.random() < 0.5))
                for i, (y, x) in enumerate(sorted(pixels))
            ]
            others = [draw.random((height, width)) < 0.5, np.ones((height, width), bool)]
            before = mask.copy()
            assert honoured(suggest(image, clicks, mask, others), clicks)
            assert (mask == before).all()


def test_what_is_far_from_the_click_stays():
    image, left, right = drawn()
    mask = left | right
    mask[25:35, 10:20] = False  # a flaw that nobody points at
    found = suggest(image, [Click(90.5, 40.5, False)], mask)
    assert (found[:, :60] == mask[:, :60]).all()


@pytest.mark.parametrize(
    ("clicks", "words"),
    [
        ([Click(120.5, 1, True)], "outside"),
        ([Click(-0.1, 1, True)], "outside"),
        ([Click(5, 5, True), Click(5.4, 5.4, False)], "both ways"),
    ],
)
def test_what_makes_no_sense(clicks, words):
    image, left, _ = drawn()
    with pytest.raises(ValueError, match=words):
        suggest(image, clicks, left)


def test_a_mask_of_another_size():
    image, left, _ = drawn()
    with pytest.raises(ValueError, match="not of the image's size"):
        suggest(image, [Click(5, 5, True)], left.T)
    with pytest.raises(ValueError, match="not of the image's size"):
        suggest(image, [Click(5, 5, True)], left, [left.T])


@pytest.mark.slow
def test_it_takes_a_fraction_of_a_second():
    image, truth, _ = drawn()
    image = np.kron(image, np.ones((8, 5, 1), np.uint8))
    mask = np.kron(truth, np.ones((8, 5), bool))
    assert mask.shape == (640, 600)
    clicks = [Click(450.5, 320.5, True)]
    suggest(image, clicks, mask)  # kernels are compiled
    took = []
    for _ in range(5):
        began = time.process_time()
        suggest(image, clicks, mask)
        took.append(time.process_time() - began)
    assert min(took) < 1.0  # 0.4 s on an idle core
