"""What is refined: M_srm, with each prediction as far as it agrees with it."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from sapnet.pseudo import blended
from sapnet.types import Judgement

SIZE, GRID = (96, 112), (48, 56)


def by_area(mask):
    """(96, 112) to (48, 56): the share of each cell."""
    cells = mask.astype(float).reshape(48, 2, 56, 2)
    return torch.from_numpy(cells.mean(axis=(1, 3))).float()


def soft_iou(a, b):
    shared = float((a * b).sum())
    return shared / (float(a.sum()) + float(b.sum()) - shared)


@pytest.fixture
def world(plant):
    return plant(0, count=3)


def test_without_a_prediction_it_is_what_was_selected(world):
    selected = np.array([0, 2, 1])
    got = blended(world.record, selected, torch.zeros(0, *GRID), [])
    for n, index in enumerate(selected):
        torch.testing.assert_close(got[n], by_area(world.masks[n][index]))


def test_an_empty_prediction_weighs_nothing(world):
    selected = np.array([0, 0, 0])
    got = blended(world.record, selected, torch.zeros(3, *GRID), [0, 1, 2])
    none = blended(world.record, selected, torch.zeros(0, *GRID), [])
    torch.testing.assert_close(got, none)


def test_against_the_formula(world):
    """Object 0 has both predictions, 1 the teacher's alone; the teacher's is a plain half."""
    frame = np.array([0, 0, SIZE[1], SIZE[0]], np.float32)
    figure = np.zeros(3, np.float32)
    half = Judgement(figure, figure, frame, np.full((8, 8), 0.5, np.float32))
    away = Judgement(figure, figure, np.array([-9, -9, -5, -5], np.float32), half.probs)
    record = replace(world.record, judgements=(half, half, away))
    selected = np.array([0, 1, 2])
    predicted = torch.rand(1, *GRID, generator=torch.Generator().manual_seed(0))
    got = blended(record, selected, predicted, [0])
    chosen = [by_area(world.masks[n][index]) for n, index in enumerate(selected)]
    inner = (slice(4, -4), slice(4, -4))  # half a cell in from its window the teacher fades
    middle = torch.zeros(GRID)
    middle[inner] = 0.5
    a, b = soft_iou(predicted[0], chosen[0]), soft_iou(torch.full(GRID, 0.5), chosen[0])
    expected = (chosen[0] + a * predicted[0] + b * middle) / (1 + a + b)
    torch.testing.assert_close(got[0][inner], expected[inner], atol=2e-3, rtol=0)
    b = soft_iou(torch.full(GRID, 0.5), chosen[1])
    expected = (chosen[1] + b * middle) / (1 + b)
    torch.testing.assert_close(got[1][inner], expected[inner], atol=2e-3, rtol=0)
    torch.testing.assert_close(got[2], chosen[2])


def test_no_object(own_record):
    record = own_record((32, 32), [])
    none = np.zeros(0, np.int64)
    assert blended(record, none, torch.zeros(0, 16, 16), []).shape == (0, 16, 16)
