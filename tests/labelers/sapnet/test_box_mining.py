"""Algorithm 2 as a loop over objects, thresholds anew for each."""

import pytest
import torch

from sapnet.labelers.sapnet.box_mining import area, contains, mine_boxes, nearest_mask, paired_iou


def slow_mine(tools, bags, scores, selected, allowed, k=3, first=0.6, second=0.3):
    result = []
    for n in range(len(bags)):
        chosen = bags.boxes[n, selected[n]].tolist()
        t1, t2, count, out = first, second, 0, chosen
        for m in tools.ranking(bags, scores, allowed, n)[:k]:
            box = bags.boxes[n, m].tolist()
            if tools.box_area(box) <= tools.box_area(chosen):
                continue
            iou = tools.box_iou(box, chosen)
            inside = all(
                box[i] <= chosen[i] + 2 and box[i + 2] >= chosen[i + 2] - 2 for i in (0, 1)
            )
            if iou > t1:
                out = [(b + iou * c) / (iou + 1) for b, c in zip(box, chosen, strict=True)]
                t1, count = iou, count + 1
            elif count == 0 and inside and iou > t2:
                out = [(b * iou + c) / (iou + 1) for b, c in zip(box, chosen, strict=True)]
                t2 = iou
        result.append(out)
    return torch.tensor(result)


def nested(tools, seed, lengths=(8, 8, 1, 5, 8, 8)):
    """Bags whose boxes grow around a common centre, so that mining finds work."""
    bags = tools.make_bags(seed, lengths)
    generator = torch.Generator().manual_seed(seed)
    middle = 40 + 8 * torch.rand(len(bags), 1, 2, generator=generator)
    half = 6 + 18 * torch.rand(*bags.valid.shape, 2, generator=generator)
    shift = 4 * torch.rand(*bags.valid.shape, 2, generator=generator)
    bags.boxes[:] = torch.cat([middle - half + shift, middle + half + shift], -1).round()
    scores = torch.rand(bags.valid.shape, generator=generator) * bags.valid
    return bags, scores


@pytest.mark.parametrize("seed", range(40))
def test_against_the_loop(tools, seed):
    bags, scores = nested(tools, seed)
    scores = (scores * 6).round() / 6  # ties
    allowed = bags.allowed(exclude_foreign=seed % 2 == 0)
    selected = torch.tensor([tools.ranking(bags, scores, allowed, n)[0] for n in range(len(bags))])
    got = mine_boxes(scores, bags, selected, allowed)
    torch.testing.assert_close(got, slow_mine(tools, bags, scores, selected, allowed))


@pytest.mark.slow
def test_the_seeds_above_mine_in_both_ways(tools):
    """Else the comparison would show little."""
    moved = 0
    for seed in range(40):
        bags, scores = nested(tools, seed)
        selected = torch.tensor([tools.ranking(bags, scores, bags.valid, n)[0] for n in range(6)])
        got = mine_boxes(scores, bags, selected, bags.valid)
        near_only = mine_boxes(scores, bags, selected, bags.valid, min_containing_iou=2.0)
        moved += int((near_only != bags.boxes[torch.arange(6), selected]).any())
        moved += 1000 * int((got != near_only).any())
    assert moved > 5000
    assert moved % 1000 > 5


def one_bag(tools, boxes, scores):
    bags = tools.make_bags(0, (len(boxes),))
    bags.boxes[0] = torch.tensor(boxes)
    return bags, torch.tensor([scores])


def test_thresholds_start_anew_for_every_object(tools):
    """The printed algorithm lets one object's merge raise the next one's threshold."""
    chosen, near, far = [10.0, 10, 30, 30], [9.0, 9, 31, 31], [8.0, 8, 33, 33]
    bags = tools.make_bags(0, (2, 2))
    bags.boxes[0], bags.boxes[1] = torch.tensor([chosen, near]), torch.tensor([chosen, far])
    scores = torch.tensor([[0.9, 0.5], [0.9, 0.5]])
    both = mine_boxes(scores, bags, torch.tensor([0, 0]), bags.valid)
    alone, score = one_bag(tools, [chosen, far], [0.9, 0.5])
    torch.testing.assert_close(both[1:], mine_boxes(score, alone, torch.tensor([0]), alone.valid))
    assert (both[1] != torch.tensor(chosen)).any()


def test_only_the_top_k_pull(tools):
    boxes = [[10.0, 10, 30, 30], [0.0, 0, 5, 5], [50.0, 50, 55, 55], [9.0, 9, 31, 31]]
    bags, scores = one_bag(tools, boxes, [0.9, 0.8, 0.7, 0.6])
    assert mine_boxes(scores, bags, torch.tensor([0]), bags.valid, top_k=3).tolist() == [boxes[0]]
    assert mine_boxes(scores, bags, torch.tensor([0]), bags.valid, top_k=4).tolist() != [boxes[0]]


@pytest.mark.parametrize(("slack", "inside"), [(0.0, True), (2.0, True), (2.5, False)])
def test_containment_has_two_pixels_of_slack(slack, inside):
    outer = torch.tensor([10.0 + slack, 0, 40, 40])
    assert bool(contains(outer, torch.tensor([10.0, 5, 20, 20]))) is inside
    outer = torch.tensor([0.0, 0, 40, 20 - slack])
    assert bool(contains(outer, torch.tensor([10.0, 5, 20, 20]))) is inside


def test_what_is_not_allowed_pulls_nothing(tools):
    bags, scores = one_bag(tools, [[10.0, 10, 30, 30], [9.0, 9, 31, 31]], [0.5, 0.9])
    allowed = torch.tensor([[True, False]])
    assert mine_boxes(scores, bags, torch.tensor([0]), allowed).tolist() == [[10, 10, 30, 30]]


def test_no_bags_and_bags_of_one(tools):
    none = tools.make_bags(0, ())
    index = torch.zeros(0, dtype=torch.int64)
    assert mine_boxes(none.medoid, none, index, none.valid).shape == (0, 4)
    assert nearest_mask(torch.zeros(0, 4), none, none.medoid, none.valid).shape == (0,)
    one = tools.make_bags(0, (1, 1))
    torch.testing.assert_close(
        mine_boxes(one.medoid, one, torch.zeros(2, dtype=torch.int64), one.valid), one.boxes[:, 0]
    )


@pytest.mark.parametrize("seed", range(10))
def test_nearest_mask(tools, seed):
    """The allowed proposal of highest box IoU; ties (masks of one box) by score and its rule."""
    bags = tools.make_bags(seed)
    generator = torch.Generator().manual_seed(seed)
    scores = (torch.rand(bags.valid.shape, generator=generator) * 3).round() / 3
    allowed = bags.allowed(True)
    box = bags.boxes[:, 0] + torch.rand(4, 4, generator=generator).round()
    got = nearest_mask(box, bags, scores, allowed).tolist()
    for n in range(len(bags)):
        inside = [m for m in range(8) if allowed[n, m]]
        ious = {m: tools.box_iou(bags.boxes[n, m].tolist(), box[n].tolist()) for m in inside}
        tied = allowed.clone()
        tied[n] = torch.tensor([abs(ious.get(m, -1) - max(ious.values())) < 1e-6 for m in range(8)])
        assert got[n] == tools.ranking(bags, scores, tied, n)[0]


def test_paired_iou_and_area(tools):
    bags = tools.make_bags(5, (6, 6))
    a, b = bags.boxes
    expected = [[tools.box_iou(p, q) for q in b.tolist()] for p in a.tolist()]
    torch.testing.assert_close(paired_iou(a[:, None], b[None]), torch.tensor(expected))
    assert area(a).tolist() == [tools.box_area(p) for p in a.tolist()]
    empty = torch.zeros(4)  # a padded one
    assert float(paired_iou(empty, a[0])) == 0 == float(paired_iou(empty, empty))
