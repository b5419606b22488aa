"""The masks of a bag that are offered in place of the one that was picked."""

import numpy as np

from sapnet.data.masks import encode, mask_iou, tight_boxes
from sapnet.labelers.delivery import ALIKE, MOST_ALTERNATIVES, alternatives
from sapnet.types import Bag


def stripe(start, stop):
    mask = np.zeros((4, 200), np.uint8)
    mask[:, start:stop] = 1
    return encode(mask)


def bag_of(*masks):
    confidence = np.full(len(masks), 0.5, np.float32)
    return Bag(1, tight_boxes(masks), masks, confidence, ("",) * len(masks), mask_iou(masks))


def test_the_likeliest_first_and_none_twice():
    masks = (stripe(0, 100), stripe(0, 50), stripe(0, 20), stripe(0, 96), stripe(0, 51))
    found = alternatives(bag_of(*masks), 0, np.array([0.4, 0.1, 0.2, 0.25, 0.05, 0.9]))
    assert [a.segmentation for a in found] == [masks[2], masks[1]]  # the fourth is the first's
    assert [a.index for a in found] == [0, 1]
    assert [a.probability for a in found] == [0.2, 0.1]


def test_a_bag_of_one_has_none():
    assert alternatives(bag_of(stripe(0, 10)), 0, np.ones(3)) == []


def test_against_a_plain_reference():
    draw = np.random.default_rng(0)
    for _ in range(30):
        ends = np.sort(draw.integers(1, 200, (12, 2)), axis=1) + np.array([0, 1])
        masks = [stripe(a, b) for a, b in ends.tolist()]
        bag = bag_of(*masks)
        posterior = draw.dirichlet(np.ones(12))
        picked = int(draw.integers(12))
        wanted = []
        for m in sorted(range(12), key=lambda m: -posterior[m]):
            if m != picked and all(bag.overlaps[m, k] <= ALIKE for k in [picked, *wanted]):
                wanted.append(m)
        found = alternatives(bag, picked, posterior)
        assert [a.segmentation for a in found] == [masks[m] for m in wanted[:MOST_ALTERNATIVES]]
