"""The medoid with exclusion, against a plain loop over pixels."""

import numpy as np
import pytest

from sapnet.labelers.consensus import consensus_pick
from sapnet.labelers.same_class_points import point_containment, same_class_points
from sapnet.types import Bag, PointAnnotation


def shuffled(bag: Bag, order) -> Bag:
    return Bag(
        bag.annotation_id,
        bag.boxes[order],
        tuple(bag.masks[i] for i in order),
        bag.confidence[order],
        tuple(bag.sources[i] for i in order),
        bag.overlaps[np.ix_(order, order)],
    )


@pytest.mark.parametrize("seed", range(8))
def test_foreign_points_against_pixels(tools, seed):
    world = tools.world(seed, images=1, objects=8)
    group = world.points.annotations
    for annotation in group:
        contains_other_point, holds = point_containment(
            world.bags[annotation.id], annotation, group
        )
        others = same_class_points(annotation, group)
        assert others == [
            a for a in group if a.category_id == annotation.category_id and a.id != annotation.id
        ]
        expected = [
            [bool(mask[int(r.y), int(r.x)]) for r in others] for mask in world.masks[annotation.id]
        ]
        assert holds.shape == (len(expected), len(others))
        assert holds.tolist() == expected
        assert contains_other_point.tolist() == [any(row) for row in expected]


def test_foreign_points_of_other_classes_do_not_count(tools):
    bag = tools.bag_of(1, [tools.block(0, 0, 10, 10)], [1.0])
    me, other = PointAnnotation(1, 0, 0, 1, 1), PointAnnotation(2, 0, 5, 2, 2)
    contains_other_point, holds = point_containment(bag, me, [me, other])
    assert holds.shape == (1, 0)
    assert contains_other_point.tolist() == [False]
    twin = PointAnnotation(3, 0, 0, 1, 1)  # the same point as mine
    assert point_containment(bag, me, [me, twin])[0].tolist() == [True]


def test_three_hundred_points_of_one_class(tools):
    bag = tools.bag_of(0, [tools.block(0, 0, 30, 1), tools.block(0, 0, 3, 3)], [0.9, 0.8])
    group = [PointAnnotation(n, 0, 0, n % 30, n // 30 * 2) for n in range(300)]
    _, holds = point_containment(bag, group[0], group)
    assert holds.sum(axis=1).tolist() == [29, 2 + 3]


def slow_pick(bag: Bag, contains_other_point) -> int:
    allowed = [m for m in range(len(bag)) if not contains_other_point[m]] or list(range(len(bag)))
    rest = [[bag.overlaps[m, j] for j in range(len(bag)) if j != m] for m in range(len(bag))]
    return max(allowed, key=lambda m: float(np.mean(rest[m])) if rest[m] else 0.0)


@pytest.mark.parametrize("seed", range(10))
def test_pick_against_a_loop_in_any_order(tools, seed):
    rng = np.random.default_rng(seed)
    for bag in tools.world(seed).bags.values():
        contains_other_point = rng.random(len(bag)) < 0.4
        picked = consensus_pick(bag, contains_other_point)
        assert picked == slow_pick(bag, contains_other_point)
        order = rng.permutation(len(bag))
        assert order[consensus_pick(shuffled(bag, order), contains_other_point[order])] == picked


def test_all_foreign_is_as_none_foreign(tools):
    for bag in tools.world(3).bags.values():
        everyone = np.ones(len(bag), dtype=bool)
        assert consensus_pick(bag, everyone) == consensus_pick(bag, ~everyone)


def test_a_bag_of_one(tools):
    bag = tools.bag_of(0, [tools.block(0, 0, 1, 1)], [0.0])
    assert consensus_pick(bag, np.array([False])) == 0
    assert consensus_pick(bag, np.array([True])) == 0


def test_ties_go_to_confidence_then_area_and_never_to_the_order(tools):
    small, large, far = (
        tools.block(0, 0, 2, 2),
        tools.block(5, 5, 9, 9),
        tools.block(20, 20, 24, 24),
    )
    none = np.zeros(3, dtype=bool)
    by_confidence = tools.bag_of(0, [small, large, far], [0.9, 0.5, 0.5])  # all disjoint: all tied
    assert consensus_pick(by_confidence, none) == 0
    by_area = tools.bag_of(0, [small, large, large & far | small], [0.5, 0.5, 0.4])
    assert consensus_pick(by_area, none) == 0  # agreement comes before area
    equal = tools.bag_of(0, [small, large, far], [0.5, 0.5, 0.5])
    picked = consensus_pick(equal, none)
    assert picked in (1, 2)  # the larger two
    for order in ([2, 1, 0], [1, 0, 2], [0, 2, 1]):
        assert order[consensus_pick(shuffled(equal, order), none)] == picked
