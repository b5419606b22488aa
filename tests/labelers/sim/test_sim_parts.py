"""SIM's equations against loops: low-level cues, Sinkhorn, prototypes, pseudo-masks."""

import math
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from skimage.color import rgb2lab
from torch import nn

from sapnet.config.schema import Config
from sapnet.data.batch import Candidates
from sapnet.data.sampler import Step
from sapnet.data.samples import IMAGE_MEAN, IMAGE_STD
from sapnet.labelers.sim.labeler import Given, SimLabeler, filled_boxes
from sapnet.labelers.sim.low_level import color_edges, pairwise_loss, projection_loss
from sapnet.labelers.sim.momentum import decay, follow, momentum_copy, take
from sapnet.labelers.sim.prototypes import Prototypes, semantic_map, sinkhorn, unit
from sapnet.labelers.sim.pseudo_masks import (
    PseudoTargets,
    instance_map,
    pseudo_loss,
    pseudo_targets,
)

NEIGHBOURS = ((0, 1), (1, 0), (1, 1), (1, -1))


@pytest.fixture
def draw():
    generator = torch.Generator().manual_seed(3)
    return lambda *shape: torch.rand(*shape, generator=generator, dtype=torch.float64)


def random_boxes(draw, count, shape):
    boxes = torch.zeros(count, *shape, dtype=torch.bool)
    for box in boxes:
        y, x = (int(draw(1) * (side - 3)) for side in shape)
        box[y : y + 2 + int(draw(1) * 4), x : x + 2 + int(draw(1) * 5)] = True
    return boxes


def plain_dice(a, b):
    return 1 - 2 * float((a * b).sum()) / (float((a**2).sum()) + float((b**2).sum()) + 2e-3)


def test_projection_against_loops(draw):
    probs, boxes = draw(3, 6, 8), random_boxes(draw, 3, (6, 8))
    got = projection_loss(probs, boxes)
    for n in range(3):
        wanted = 0.0
        for lines in (range(6), range(8)):
            rows = len(lines) == 6
            a = torch.stack([probs[n, i].max() if rows else probs[n, :, i].max() for i in lines])
            b = torch.stack([boxes[n, i].any() if rows else boxes[n, :, i].any() for i in lines])
            wanted += plain_dice(a, b.double())
        assert float(got[n]) == pytest.approx(wanted, rel=1e-6)


@pytest.mark.parametrize("dilation", [1, 2])
def test_pairwise_against_loops(draw, dilation):
    probs, boxes = draw(2, 6, 7), random_boxes(draw, 2, (6, 7))
    edges = draw(4, 6, 7) < 0.6
    got = pairwise_loss(probs, boxes, edges, dilation)
    for n in range(2):
        terms = []
        for k, (dy, dx) in enumerate(NEIGHBOURS):
            for y in range(6):
                for x in range(7):
                    b, a = y + dy * dilation, x + dx * dilation
                    if not (0 <= b < 6 and 0 <= a < 7):
                        continue
                    if edges[k, y, x] and (boxes[n, y, x] or boxes[n, b, a]):
                        p, q = float(probs[n, y, x]), float(probs[n, b, a])
                        terms.append(-math.log(p * q + (1 - p) * (1 - q)))
        beyond = [
            (k, y, x)
            for k, (dy, dx) in enumerate(NEIGHBOURS)
            for y in range(6)
            for x in range(7)
            if not (0 <= y + dy * dilation < 6 and 0 <= x + dx * dilation < 7)
        ]
        assert beyond
        inner = edges.clone()
        for place in beyond:
            inner[place] = False
        inner_loss = pairwise_loss(probs, boxes, inner, dilation)[n]
        assert float(inner_loss) == pytest.approx(np.mean(terms), rel=1e-6)
    assert not pairwise_loss(probs, boxes, torch.zeros_like(edges), dilation).any()
    assert got.isfinite().all()


def test_gradients_of_the_low_level_losses(draw):
    probs = (draw(2, 4, 5) * 0.8 + 0.1).requires_grad_()
    boxes, edges = random_boxes(draw, 2, (4, 5)), draw(4, 4, 5) < 0.7
    assert torch.autograd.gradcheck(lambda p: pairwise_loss(p, boxes, edges, 1), probs)
    assert torch.autograd.gradcheck(lambda p: projection_loss(p, boxes), probs)


def test_edges_are_between_like_colours_of_the_image(draw):
    """Against each pair of the shrunk image; never into the padding or beyond it."""
    mean, std = (torch.tensor(v).view(3, 1, 1) for v in (IMAGE_MEAN, IMAGE_STD))
    cells = (draw(3, 5, 6).float() * 0.1 + 0.4).round(decimals=2)
    pixels = cells.repeat_interleave(4, 1).repeat_interleave(4, 2)
    image = torch.zeros(3, 32, 32)
    image[:, :20, :24] = (pixels - mean) / std
    got = color_edges(image, (20, 24), 2, 0.3)
    lab = rgb2lab(cells.permute(1, 2, 0).numpy())
    count = 0
    for k, (dy, dx) in enumerate(NEIGHBOURS):
        for y in range(8):
            for x in range(8):
                b, a = y + 2 * dy, x + 2 * dx
                inside = y < 5 and x < 6 and 0 <= b < 5 and 0 <= a < 6
                wanted = inside and math.exp(-np.linalg.norm(lab[y, x] - lab[b, a]) / 2) >= 0.3
                assert bool(got[k, y, x]) is bool(wanted)
                count += wanted
    assert count > 0


def test_sinkhorn_has_equal_shares_and_is_the_dense_one(draw):
    scores = draw(4, 30) * 2 - 1
    got = sinkhorn(scores, 0.05, 3).exp()
    torch.testing.assert_close(got.sum(0), torch.full((30,), 1 / 30, dtype=torch.float64))
    plan = np.exp(scores.numpy() / 0.05)
    for _ in range(1000):
        plan *= (1 / 4) / plan.sum(1, keepdims=True)
        plan *= (1 / 30) / plan.sum(0, keepdims=True)
    many = sinkhorn(scores, 0.05, 1000).exp()
    np.testing.assert_allclose(many.numpy(), plan, atol=1e-9)
    np.testing.assert_allclose(many.sum(1).numpy(), np.full(4, 0.25), atol=1e-6)


def test_no_share_underflows():
    scores = torch.tensor([[1.0, 0.99, 1.0], [-1.0, -1.0, -1.0]])
    assert sinkhorn(scores, 0.002, 3).isfinite().all()


def test_prototypes_follow_their_pixels(draw):
    held = Prototypes(3, 4, 5)
    held.counts[1] = 2
    before = held.vectors.clone()
    held.update(1, torch.zeros(0, 5), 0.5, 0.05, 3)
    assert torch.equal(held.vectors, before)
    assert not held.ready(1)
    expected = None
    for step in range(1, 5):
        pixels = unit(draw(12, 5).float())
        if expected is None:
            expected = pixels[[0, 6]].clone()
        assigned = sinkhorn(expected @ pixels.T, 0.05, 3).argmax(0)
        fraction = step / 80
        momentum = min((step - 1) / step, 1 - 1 / max(0.1 * (step - 1) / fraction, 1))
        momentum = momentum if step > 1 else 0.0
        for place in range(2):
            own = pixels[assigned == place]
            if len(own):
                moved = momentum * expected[place] + (1 - momentum) * own.mean(0)
                expected[place] = moved / moved.norm()
        held.update(1, pixels, fraction, 0.05, 3)
        torch.testing.assert_close(held.of(1), expected)
    assert held.updates.tolist() == [0, 4, 0]
    assert not held.vectors[[0, 2]].any()


@pytest.mark.parametrize("ground", [False, True])
def test_semantic_map_pixel_by_pixel(draw, ground):
    features = unit(draw(4, 3, 5), 0)
    own, other = unit(draw(3, 4)), unit(draw(2, 4)) if ground else None
    got = semantic_map(features, own, other, 0.3)
    for y in range(3):
        for x in range(5):
            score = max(float(p @ features[:, y, x]) for p in own)
            if other is not None:
                score -= max(float(p @ features[:, y, x]) for p in other)
            assert float(got[y, x]) == pytest.approx(1 / (1 + math.exp(-score / 0.3)), rel=1e-6)
    if not ground:
        assert (got >= 0.5).all()  # why ground has prototypes


def test_instance_map_against_loops(draw):
    logits = (draw(7, 5, 6) * 8 - 4).float()
    logits[3] = -9.0  # its mask is empty
    objects = torch.tensor([0, 0, 0, 1, 1, 3, 3])
    boxes = torch.tensor([[0.0, 0, 4, 3], [1, 1, 5, 5], [0, 0, 1, 1], [2, 0, 6, 2]])
    got = instance_map(Candidates(logits, objects), boxes, 5.0)
    assert not got[2].any()
    for n in (0, 1, 3):
        total, weights = torch.zeros(5, 6), 0.0
        for p in (objects == n).nonzero().flatten().tolist():
            mask = logits[p].sigmoid()
            rows, columns = np.nonzero((mask > 0.5).numpy())
            iou = 0.0
            if len(rows):
                x1, y1, x2, y2 = columns.min(), rows.min(), columns.max() + 1, rows.max() + 1
                b = boxes[n].tolist()
                shared = max(min(x2, b[2]) - max(x1, b[0]), 0) * max(
                    min(y2, b[3]) - max(y1, b[1]), 0
                )
                iou = shared / ((x2 - x1) * (y2 - y1) + (b[2] - b[0]) * (b[3] - b[1]) - shared)
            total += math.exp(5 * iou) * mask
            weights += math.exp(5 * iou)
        torch.testing.assert_close(got[n], total / weights)


def test_a_leaking_candidate_weighs_less():
    """Cut to the box both would be the box."""
    logits = torch.full((2, 6, 8), -8.0)
    logits[0, 1:4, 1:4] = logits[1, 1:4, 1:8] = 8.0
    got = instance_map(Candidates(logits, torch.tensor([0, 0])), torch.tensor([[1.0, 1, 4, 4]]), 5)
    assert float(got[0, 2, 6]) < 0.1


@pytest.mark.parametrize("alpha", [0.0, 0.3, 1.0])
def test_pseudo_targets_pixel_by_pixel(draw, alpha):
    semantic, instance = draw(3, 5, 6), draw(3, 5, 6)
    semantic[2], instance[2] = 0.6, 0.6  # nothing is above the upper threshold
    inside = random_boxes(draw, 3, (5, 6))
    got = pseudo_targets(semantic, instance, inside, alpha, 0.7, 0.3)
    for n in range(3):
        value = (1 - alpha) * semantic[n] + alpha * instance[n]
        for y in range(5):
            for x in range(6):
                within, p = bool(inside[n, y, x]), float(value[y, x])
                some = any(
                    inside[n, b, a] and value[b, a] > 0.7 for b in range(5) for a in range(6)
                )
                assert bool(got.masks[n, y, x]) is (within and p > 0.7)
                wanted = 1 if not within else float(some and (p > 0.7 or p < 0.3))
                assert float(got.weights[n, y, x]) == wanted


def test_pseudo_loss_against_loops(draw, monkeypatch):
    logits, objects = (draw(4, 3, 5) * 6 - 3).requires_grad_(), torch.tensor([0, 2, 2, 1])
    inside = random_boxes(draw, 3, (3, 5))
    targets = pseudo_targets(draw(3, 3, 5), draw(3, 3, 5), inside, 0.5, 0.6, 0.4)
    got = pseudo_loss(Candidates(logits, objects), targets)
    for p in range(4):
        n, terms, dots, sizes, total = int(objects[p]), 0.0, 0.0, 2e-3, 0.0
        for y in range(3):
            for x in range(5):
                w, t = float(targets.weights[n, y, x]), float(targets.masks[n, y, x])
                m = 1 / (1 + math.exp(-float(logits[p, y, x].detach())))
                terms += w * -(t * math.log(m) + (1 - t) * math.log(1 - m))
                dots, sizes, total = dots + w * m * t, sizes + w * (m * m + t * t), total + w
        wanted = terms / max(total, 1) + 1 - 2 * dots / sizes if total else 0.0
        assert float(got[p].detach()) == pytest.approx(wanted, rel=1e-4)
    monkeypatch.setattr("sapnet.labelers.sim.pseudo_masks.MOST_VALUES", 15)
    torch.testing.assert_close(pseudo_loss(Candidates(logits, objects), targets), got)


def test_filled_boxes():
    boxes = torch.tensor([[4.0, 0, 13, 8], [5, 5, 6, 6], [50, 50, 70, 70]])
    got = filled_boxes(boxes, (4, 5))
    for n, (x1, y1, x2, y2) in enumerate(boxes.tolist()):
        centre = min(int((y1 + y2) / 8), 3), min(int((x1 + x2) / 8), 4)
        for y in range(4):
            for x in range(5):
                rows = y1 <= 4 * y + 2 < y2 or y == centre[0]
                columns = x1 <= 4 * x + 2 < x2 or x == centre[1]
                assert bool(got[n, y, x]) is (rows and columns)


def test_objects_without_a_weight_shape_no_prototype(draw):
    """Nor do they count as ground: their boxes may hold anything."""
    labeler = SimLabeler(Config(), num_classes=2, in_channels=8, strides=(4, 8, 16, 32, 64))
    filled = torch.zeros(2, 6, 8, dtype=torch.bool)
    filled[0, :3], filled[1, 3:5] = True, True
    weights = torch.tensor([1.0, 0.0])
    confirmed = torch.zeros(2, dtype=torch.bool)
    given = Given(torch.zeros(2, 4), filled, confirmed, filled, weights)
    target = PseudoTargets(filled, torch.ones(2, 6, 8), filled.float())
    features = torch.arange(48.0).reshape(1, 6, 8)
    batch = SimpleNamespace(generators=[torch.Generator().manual_seed(0)])
    found = labeler.pixels(features, target, torch.tensor([0, 1]), given, (6, 8), batch, 0)
    pixels = {group: set(rows.flatten().int().tolist()) for group, rows in found.items()}
    assert pixels == {0: {*range(24)}, labeler.rare: {*range(24)}, labeler.ground: {*range(40, 48)}}


def test_the_copy_follows_and_is_given_back():
    network = nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 1))
    network[0].requires_grad_(False)
    copied = momentum_copy(network)
    assert copied[0].weight is network[0].weight
    assert not any(p.requires_grad for p in copied.parameters())
    assert decay(Step(0, 100, 5), 0.11) == 0
    assert decay(Step(20, 1000, 5), 0.11) == pytest.approx(21 / 30)
    assert decay(Step(90, 100, 5), 0.11) == pytest.approx(1 - 1 / 11)
    old, keep = copied[1].weight.clone(), 0.75
    with torch.no_grad():
        network[1].weight += 1
    follow(network, copied, keep)
    torch.testing.assert_close(copied[1].weight, keep * old + 0.25 * network[1].weight.detach())
    take(copied, network)
    assert torch.equal(network[1].weight, copied[1].weight)
