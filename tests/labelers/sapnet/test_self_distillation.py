"""SASD, Eqs 9 to 13, against loops."""

import math

import pytest
import torch

from sapnet.labelers.sapnet.self_distillation import (
    CompletenessHead,
    distillation_loss,
    factor,
    target,
)


@pytest.mark.parametrize("top_k", [1, 3, 20])
def test_context_of_the_best(tools, draw, top_k):
    """Eq. 9: F* = F + mean of the features of the top k, which padding is never among."""
    bags = tools.make_bags(3)
    features, scores = draw(4, 8, 5).float(), torch.rand(4, 8, generator=torch.manual_seed(0))
    features[~bags.valid] = 1e3
    scores[~bags.valid] = 9.0
    head = CompletenessHead(channels=5, top_k=top_k)
    got = head(features, scores, bags.valid)
    weight, bias = head.fc.weight[0].tolist(), float(head.fc.bias.detach())
    for n in range(4):
        inside = [m for m in range(8) if bags.valid[n, m]]
        best = sorted(inside, key=lambda m: -float(scores[n, m]))[:top_k]
        for m in inside:
            total = bias
            for d in range(5):
                context = sum(float(features[n, b, d]) for b in best) / len(best)
                total += weight[d] * (float(features[n, m, d]) + context)
            assert got[n, m].item() == pytest.approx(math.tanh(total), abs=1e-5)


def test_the_scores_that_rank_take_no_gradient(tools, draw):
    scores = draw(4, 8).requires_grad_()
    features = draw(4, 8, 5).float().requires_grad_()
    CompletenessHead(channels=5)(features, scores, tools.make_bags(3).valid).sum().backward()
    assert scores.grad is None
    assert features.grad is not None


def test_target(tools):
    """Eq. 11: T' = 2 IoU(b_m, b*) - 1; the pick itself is 1."""
    bags = tools.make_bags(4)
    bags.boxes.requires_grad_()
    picked = torch.tensor([2, 0, 7, 1])
    got = target(bags, picked)
    assert not got.requires_grad
    for n in range(4):
        best = bags.boxes[n, picked[n]].tolist()
        for m in range(8):
            if bags.valid[n, m]:
                expected = 2 * tools.box_iou(bags.boxes[n, m].tolist(), best) - 1
                assert float(got[n, m]) == pytest.approx(expected, abs=1e-6)
        assert float(got[n, picked[n]]) == pytest.approx(1)


def test_smooth_l1_over_the_valid(tools, draw):
    valid = tools.make_bags(3).valid
    a, b = 2 * draw(4, 8), 2 * draw(4, 8)
    total = 0.0
    for x, y, use in zip(a.flatten(), b.flatten(), valid.flatten(), strict=True):
        gap = abs(float(x - y))
        total += (0.5 * gap**2 if gap < 1 else gap - 0.5) if use else 0.0
    assert float(distillation_loss(a, b, valid)) == pytest.approx(total / int(valid.sum()))


@pytest.mark.parametrize("floor", [0.0, 0.25])
def test_factor(floor):
    """Eq. 12; a tanh that saturates at -1 leaves the floor, never a dead bag."""
    s = torch.tensor([-1.0, -0.3, 0.0, 1.0])
    expected = [floor + (1 - floor) * (v + 1) / 2 for v in s.tolist()]
    assert factor(s, floor).tolist() == pytest.approx(expected)
    assert factor(s, floor)[0] == floor


def test_no_bags():
    none = torch.zeros(0, 3, dtype=torch.bool)
    got = CompletenessHead(channels=5)(torch.zeros(0, 3, 5), torch.zeros(0, 3), none)
    assert got.shape == (0, 3)
    assert distillation_loss(got, got, none).item() == 0
