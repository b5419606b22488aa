"""Dice, focal and their sum over a batch against plain loops."""

import pytest
import torch

from sapnet.segmenters.solov2 import assign, instance_probs, solo_loss
from sapnet.segmenters.solov2.dice import dice_loss
from sapnet.utils.losses import focal_loss


def plain_dice(p, t):
    return 1 - 2 * (p * t).sum() / ((p * p).sum() + 1e-3 + (t * t).sum() + 1e-3)


def plain_focal(logits, classes, gamma, alpha):
    total = 0.0
    for row, label in zip(logits.tolist(), classes.tolist(), strict=True):
        for k, value in enumerate(row):
            p = torch.tensor(value, dtype=torch.float64).sigmoid()
            pt, a = (p, alpha) if k == label else (1 - p, 1 - alpha)
            total += float(-a * (1 - pt) ** gamma * pt.log())
    return total


def test_dice_against_plain(generator):
    probs = torch.rand(6, 50, generator=generator)
    soft = torch.rand(3, 50, generator=generator)
    of = torch.tensor([0, 2, 1, 1, 0, 2])
    for targets in (soft, soft > 0.5, torch.zeros(3, 50, dtype=torch.bool)):
        got = dice_loss(probs, targets, of)
        for g, p, i in zip(got, probs, of, strict=True):
            torch.testing.assert_close(g, plain_dice(p, targets[i].float()))


def test_dice_of_a_perfect_and_of_a_disjoint_mask():
    mask = torch.zeros(2, 100)
    mask[0, :50], mask[1, 50:] = 1, 1
    got = dice_loss(mask, mask.bool(), torch.tensor([0, 0]))
    assert got[0] < 1e-3
    assert got[1] == 1


def test_dice_passes_the_gradient_check(generator):
    logits = torch.randn(3, 7, generator=generator, requires_grad=True)
    targets = torch.rand(2, 7, generator=generator)
    of = torch.tensor([1, 0, 1])
    (got,) = torch.autograd.grad(dice_loss(logits.sigmoid(), targets, of).sum(), logits)
    plain = sum(
        plain_dice(p, targets[i]) for p, i in zip(logits.sigmoid(), of.tolist(), strict=True)
    )
    (expected,) = torch.autograd.grad(plain, logits)
    torch.testing.assert_close(got, expected)


@pytest.mark.parametrize("classes", [1, 4])
@pytest.mark.parametrize("cells", [0, 1, 9])
def test_focal_against_plain(generator, classes, cells):
    logits = 3 * torch.randn(cells, classes, generator=generator)
    labels = torch.randint(0, classes + 1, (cells,), generator=generator)
    expected = plain_focal(logits, labels, 2.0, 0.25)
    assert float(focal_loss(logits, labels)) == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize("classes", [1, 4])
@pytest.mark.parametrize("counts", [(3, 0, 9), (1,), (0, 0)])
def test_a_batch_against_plain(make_output, make_masks, small, classes, counts):
    output = make_output(len(counts), classes)
    masks = [make_masks(n) for n in counts]
    targets = [assign(m, torch.arange(len(m)) % classes, small, classes) for m in masks]
    losses, predicted = solo_loss(output, targets, masks, small)

    dice, focal = [], 0.0
    for i, (target, mask) in enumerate(zip(targets, masks, strict=True)):
        by_instance = [[] for _ in mask]
        flat = torch.cat([k[i].flatten(1) for k in output.kernels], 1)
        for cell, n in zip(target.cells.tolist(), target.instances.tolist(), strict=True):
            prob = sum(flat[e, cell] * output.mask_features[i, e] for e in range(4)).sigmoid()
            by_instance[n].append(prob)
            dice.append(plain_dice(prob, mask[n].float()))
        logits = torch.cat([c[i].flatten(1) for c in output.cls_logits], 1).T
        focal += plain_focal(logits.detach(), target.classes, 2.0, 0.25)
        assert target.answered.tolist() == [n for n, probs in enumerate(by_instance) if probs]
        for n, probs in enumerate(by_instance):
            mean = sum(probs) / len(probs) if probs else torch.zeros(mask.shape[1:])
            torch.testing.assert_close(predicted[i][n], mean)
        again = instance_probs(output, i, target, len(mask))
        assert torch.equal(again, predicted[i])
    expected = 3.0 * sum(dice) / len(dice) if dice else torch.tensor(0.0)
    torch.testing.assert_close(losses["mask"], expected)
    assert losses["cls"].item() == pytest.approx(focal / (len(dice) + 1), rel=1e-4)


def test_further_masks_cell_by_cell(make_output, make_masks, small):
    """Eq. 11 of SAPNet's supplement: the mean over those that are there, a quarter of it."""
    output, masks = make_output(1, 2), make_masks(5)
    further = torch.stack([make_masks(5) for _ in range(3)], dim=1)
    further[0, 1:], further[3] = False, False  # one has one, one has none
    target = assign(masks, torch.arange(5) % 2, small, 2)
    losses, _ = solo_loss(output, [target], [masks], small, further=[further], further_weight=0.25)
    plain, _ = solo_loss(output, [target], [masks], small)
    flat = torch.cat([k[0].flatten(1) for k in output.kernels], 1)
    terms = []
    for cell, n in zip(target.cells.tolist(), target.instances.tolist(), strict=True):
        prob = torch.einsum("e,ehw->hw", flat[:, cell], output.mask_features[0]).sigmoid()
        others = [plain_dice(prob, mask.float()) for mask in further[n] if mask.any()]
        terms.append(sum(others) / len(others) if others else torch.tensor(0.0))
    assert len({int(n) for n in target.instances}) > 2
    torch.testing.assert_close(
        losses["mask"] - plain["mask"], 3.0 * 0.25 * torch.stack(terms).mean()
    )
    assert losses["cls"] == plain["cls"]


def test_without_objects_the_loss_is_zero_and_has_a_graph(make_output, make_masks, small):
    output = make_output(2, 3)
    masks = [make_masks(0), make_masks(0)]
    targets = [assign(m, torch.zeros(0, dtype=torch.int64), small, 3) for m in masks]
    losses, predicted = solo_loss(output, targets, masks, small)
    assert losses["mask"] == 0
    assert [p.shape for p in predicted] == [(0, 16, 16), (0, 16, 16)]
    (losses["mask"] + losses["cls"] + sum(p.sum() for p in predicted)).backward()
    for tensor in (*output.kernels, output.mask_features):
        assert tensor.grad is not None
        assert not tensor.grad.any()
    assert all(level.grad.abs().sum() > 0 for level in output.cls_logits)


def test_a_batch_of_one_gives_what_the_batch_gives(make_output, make_masks, small):
    output = make_output(2, 3)
    masks = [make_masks(4), make_masks(2)]
    targets = [assign(m, torch.arange(len(m)) % 3, small, 3) for m in masks]
    both, _ = solo_loss(output, targets, masks, small)
    total = sum(len(t) for t in targets)
    apart = 0.0
    for i in range(2):
        one = type(output)(
            [c[i : i + 1] for c in output.cls_logits],
            [k[i : i + 1] for k in output.kernels],
            output.mask_features[i : i + 1],
        )
        losses, _ = solo_loss(one, targets[i : i + 1], masks[i : i + 1], small)
        apart += losses["mask"].item() * len(targets[i]) / total
    assert both["mask"].item() == pytest.approx(apart, rel=1e-5)
