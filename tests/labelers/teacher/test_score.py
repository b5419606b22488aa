"""Figures of a proposal, against plain loops over cells."""

import math

import numpy as np
import pytest
import torch

from sapnet.config.schema import TeacherConfig
from sapnet.labelers.sapnet.teacher import read_proposal_scores, write_proposal_scores
from sapnet.labelers.sapnet.teacher.score import contrast_of, overlap_of
from sapnet.labelers.sapnet.teacher.train import agreed_loss, dice
from sapnet.types import ProposalScores

SIDE = 9


@pytest.fixture
def soft():
    generator = torch.Generator().manual_seed(4)
    masks = (torch.rand(4, SIDE, SIDE, generator=generator) * 4).round() / 4
    masks[1] = 0
    masks[1, 0, 8] = 1  # one cell, in the corner
    masks[2, :5] = 0
    masks[3] = 0
    masks[3, 2:6, 3:7] = 1
    return torch.randn(SIDE, SIDE, generator=generator) * 4, masks


def log_sigmoid(value):
    return -math.log1p(math.exp(-value))


def test_contrast_against_a_loop(soft):
    logits, masks = soft
    for got, mask in zip(contrast_of(logits, masks).tolist(), masks.tolist(), strict=True):
        inside = around = held = ring = 0.0
        for y in range(SIDE):
            for x in range(SIDE):
                near = max(
                    mask[v][u]
                    for v in range(max(y - 3, 0), min(y + 4, SIDE))
                    for u in range(max(x - 3, 0), min(x + 4, SIDE))
                )
                logit = min(max(float(logits[y, x]), -6.0), 6.0)
                inside += mask[y][x] * log_sigmoid(logit)
                held += mask[y][x]
                around += (near - mask[y][x]) * log_sigmoid(-logit)
                ring += near - mask[y][x]
        assert got == pytest.approx(inside / (held + 1e-3) + around / (ring + 1e-3), rel=1e-4)
        assert got < 0


def test_overlap_and_dice_against_a_loop(soft):
    logits, masks = soft
    probs = logits.sigmoid()
    cells = [(y, x) for y in range(SIDE) for x in range(SIDE)]
    for n, got in enumerate(overlap_of(probs, masks).tolist()):
        pairs = [(float(probs[c]), float(masks[n][c])) for c in cells]
        shared = sum(p * m for p, m in pairs)
        union = sum(p + m - p * m for p, m in pairs)
        assert got == pytest.approx(shared / union, rel=1e-4)
        squares = sum(p * p + m * m for p, m in pairs)
        assert float(dice(probs, masks[n])) == pytest.approx(1 - 2 * shared / squares, abs=1e-4)
    assert overlap_of(probs * 0, masks).tolist() == [0, 0, 0, 0]
    assert float(overlap_of(masks[3], masks)[3]) == pytest.approx(1, abs=1e-4)


@pytest.mark.parametrize("held", [0.8, 0.4])
def test_agreed_loss_against_a_loop(soft, held):
    logits, masks = soft
    masks = torch.cat([masks[2:], masks[3:]])  # some cells held by all but one, some by none
    inside, outside = [], []
    votes = [[sum(float(m[y, x]) for m in masks) / 3 for x in range(SIDE)] for y in range(SIDE)]
    threshold = min(held, max(map(max, votes)) - 1e-3)
    for y in range(SIDE):
        for x in range(SIDE):
            logit = float(logits[y, x])
            if votes[y][x] >= threshold:
                inside.append(-log_sigmoid(logit))
            if votes[y][x] <= 0.05:
                outside.append(-log_sigmoid(-logit))
    assert inside
    assert outside
    got = float(agreed_loss(logits, masks, TeacherConfig(held=held, free=0.05)))
    expected = sum(inside) / len(inside) + sum(outside) / len(outside)
    assert got == pytest.approx(expected, rel=1e-4)


def test_agreed_loss_of_a_bag_that_agrees_on_nothing(soft):
    """No cell is in more than one: then all of these count as held, and the loss is a number."""
    logits, _ = soft
    masks = torch.zeros(4, SIDE, SIDE)
    for n in range(4):
        masks[n, n, n] = 1
    got = float(agreed_loss(logits, masks, TeacherConfig()))
    held = [-log_sigmoid(float(logits[n, n])) for n in range(4)]
    free = [
        -log_sigmoid(-float(v)) for i, v in enumerate(logits.flatten()) if i not in (0, 10, 20, 30)
    ]
    assert got == pytest.approx(sum(held) / 4 + sum(free) / len(free), rel=1e-4)


def test_judgements_come_back(tmp_path):
    rng = np.random.default_rng(0)
    found = {
        index: ProposalScores(*(rng.random(length).astype(np.float32) for _ in range(2)))
        for index, length in ((7, 3), (2, 1), (40, 5))
    }
    write_proposal_scores(tmp_path / "new" / "t.npz", found)
    back = read_proposal_scores(tmp_path / "new" / "t.npz")
    assert list(back) == [7, 2, 40]
    for index, one in found.items():
        for name in ("contrast", "overlap"):
            np.testing.assert_array_equal(getattr(back[index], name), getattr(one, name))
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["t.npz"]
