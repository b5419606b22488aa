"""PNPG: Eq. 4 and Algorithm 1."""

import pytest
import torch

from sapnet.config.schema import MilConfig
from sapnet.labelers.sapnet.positive_negative_sampling import (
    background_boxes,
    draw_negatives,
    part_boxes,
    scaled_copies,
)


def test_scaled_copies(tools):
    """Eq. 4 box by box: w and h times 1 ± v / S_dis about the centre, clipped to the image."""
    bags = tools.make_bags(0, (6,))
    boxes, scales = bags.boxes[0], (0.05, 0.3, 0.9)
    distance = torch.tensor([1.0, 0.5, 0.8, 1.0, 0.9, 0.6])
    sizes = torch.tensor([[60, 50]] * 3 + [[96, 96]] * 3)
    got = scaled_copies(boxes, distance, scales, sizes)
    assert got.shape == (6, 6, 4)
    for n in range(6):
        x1, y1, x2, y2 = boxes[n].tolist()
        h, w = sizes[n].tolist()
        wanted = []
        for v in scales:
            for sign in (1, -1):
                f = max(1 + sign * v / float(distance[n]), 0.1)
                dx, dy = (x2 - x1) / 2 * f, (y2 - y1) / 2 * f
                cx, cy = (x1 + x2) / 2, (y1 + y2) / 2
                ends = ((cx - dx, w), (cy - dy, h), (cx + dx, w), (cy + dy, h))
                wanted.append([min(max(end, 0), limit) for end, limit in ends])
        torch.testing.assert_close(got[n], torch.tensor(wanted))


def test_scaled_copies_of_nothing():
    none = torch.zeros(0, 4)
    assert scaled_copies(none, none[:, 0], (0.1,), torch.zeros(0, 2)).shape == (0, 2, 4)
    assert scaled_copies(torch.ones(3, 4), torch.ones(3), (), torch.ones(3, 2)).shape == (3, 0, 4)


def test_background_boxes_keep_away_from_every_proposal(tools):
    own = tools.make_bags(1, (8, 8)).boxes.flatten(0, 1)
    size = (90, 120)
    every = background_boxes(300, size, own[:0], 0.3, torch.Generator().manual_seed(2))
    kept = background_boxes(300, size, own, 0.3, torch.Generator().manual_seed(2))
    assert len(every) == 300
    expected = [
        box for box in every.tolist() if all(tools.box_iou(box, o) < 0.3 for o in own.tolist())
    ]
    torch.testing.assert_close(kept, torch.tensor(expected))
    assert 0 < len(kept) < 300
    assert (every >= 0).all()
    assert (every[:, 2] <= 120 + 1e-3).all()
    assert (every[:, 3] <= 90 + 1e-3).all()
    assert (every[:, 2:] > every[:, :2]).all()


def test_background_may_find_no_room(tools):
    covering = torch.stack([torch.tensor([0.0, 0, 32, 32])] * 3)
    kept = background_boxes(50, (32, 32), covering, 1e-6, torch.Generator())
    assert kept.shape == (0, 4)
    assert background_boxes(0, (32, 32), covering, 0.3, torch.Generator()).shape == (0, 4)


@pytest.mark.parametrize("threshold", [0.1, 0.5])
def test_parts_lie_inside_and_below_the_threshold(tools, threshold):
    boxes = tools.make_bags(2, (8, 8)).boxes.flatten(0, 1)
    boxes[0] = torch.tensor([5.0, 5, 6, 6])  # one pixel
    draws = torch.rand(16, 20, 4, generator=torch.Generator().manual_seed(0))
    parts = part_boxes(boxes, draws, threshold)
    assert parts.shape == (16, 20, 4)
    for box, own in zip(boxes.tolist(), parts.tolist(), strict=True):
        for part in own:
            assert box[0] - 1e-3 <= part[0] < part[2] <= box[2] + 1e-3
            assert box[1] - 1e-3 <= part[1] < part[3] <= box[3] + 1e-3
            assert tools.box_iou(part, box) < threshold


def test_parts_are_of_many_shapes(tools):
    draws = torch.rand(1, 500, 4, generator=torch.Generator())
    parts = part_boxes(torch.tensor([[0.0, 0, 100, 100]]), draws, 0.5)[0]
    width, height = (parts[:, 2:] - parts[:, :2]).T
    assert (width > 2 * height).any()
    assert (height > 2 * width).any()
    assert (width * height > 4000).any()


def test_no_object_has_no_parts():
    assert part_boxes(torch.zeros(0, 4), torch.zeros(0, 6, 4), 0.5).shape == (0, 6, 4)


def test_the_generators_decide_and_the_global_one_is_left_alone(tools):
    before = torch.get_rng_state()
    bags, sizes = tools.make_bags(0, (3, 2, 4)), torch.full((2, 2), 96)
    config = MilConfig(background_negatives=9, part_negatives=5)

    def both(first, second):
        generators = [torch.Generator().manual_seed(seed) for seed in (first, second)]
        return draw_negatives(bags, sizes, generators, config)

    draws = both(4, 5)
    assert draws.parts.shape == (3, 5, 4)
    assert torch.equal(draws.parts, both(4, 5).parts)
    other = both(4, 6)  # an image's draws are its own generator's
    same = bags.image == 0
    assert torch.equal(draws.parts[same], other.parts[same])
    assert not torch.equal(draws.parts[~same], other.parts[~same])
    background, ours = draws.background, other.background
    assert torch.equal(background[background[:, 0] == 0], ours[ours[:, 0] == 0])
    assert not torch.equal(background[background[:, 0] == 1], ours[ours[:, 0] == 1])
    assert torch.equal(before, torch.get_rng_state())
    none = draw_negatives(bags, sizes, [], MilConfig(negatives=False))
    assert none.background.shape == (0, 5)
    assert none.parts.shape == (3, 0, 4)
