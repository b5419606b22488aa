"""The network and its teaching: what each head may see, seeds, and a planted world."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from sapnet.labelers.sapnet.teacher import (
    TeacherDataset,
    fit_teacher,
    network,
    score_proposals,
    teacher_steps,
)
from sapnet.labelers.sapnet.teacher.dataset import make_example
from sapnet.labelers.sapnet.teacher.network import Teacher

WHOLE, PART, BLEED = 0, 1, 2


@pytest.fixture
def example(plant, body, config):
    return make_example(body, plant(0, count=7).record, config)


@pytest.fixture
def teacher():
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return Teacher(in_channels=[4] * 4, channels=8, hidden=8).eval()


@torch.no_grad()
def test_object_knows_nothing_of_the_place(teacher, example, monkeypatch):
    rows = torch.arange(len(example))
    inside, mask = teacher(example, rows)
    assert inside.shape == mask.shape == (7, 16, 16)
    monkeypatch.setattr(network, "where", lambda offset: offset.new_ones(7, 6, 16, 16))
    elsewhere, other = teacher(example, rows)
    assert torch.equal(inside, elsewhere)
    assert not torch.allclose(mask, other, atol=1e-3)


@torch.no_grad()
def test_points_do_not_see_each_other(teacher, example):
    inside, mask = teacher(example, torch.arange(7))
    for n in range(7):
        alone = teacher(example, torch.tensor([n]))
        torch.testing.assert_close(alone[0][0], inside[n], atol=1e-4, rtol=1e-4)
        torch.testing.assert_close(alone[1][0], mask[n], atol=1e-4, rtol=1e-4)
    order = torch.tensor([4, 1, 6])
    torch.testing.assert_close(teacher(example, order)[1], mask[order], atol=1e-4, rtol=1e-4)


def test_where_is_relative_to_the_point():
    offset = torch.tensor([[[[0.0, 0.0], [24.0, -96.0]]]])
    got = network.where(offset)[0, :, 0].T
    far = np.sqrt(24**2 + 96**2 + 16)
    expected = [
        [0, 0, 0, 0, np.log(4 / 16), np.exp(-4 / 48)],
        [*np.tanh([1, -4, 0.25, -1]), np.log(far / 16), np.exp(-far / 48)],
    ]
    np.testing.assert_allclose(got.numpy(), expected, atol=1e-5)


def test_an_image_without_objects_has_no_judgements(teacher, own_record, body, config):
    assert score_proposals(teacher, make_example(body, own_record((48, 64), []), config)) == []


@pytest.mark.parametrize("lone", [True, False])
def test_images_without_objects_teach_nothing_and_stop_nothing(
    own_record, plant, body, config, lone
):
    config = replace(config, teacher=replace(config.teacher, min_steps=6, batch_size=1))
    records = [own_record((48, 64), [])] + ([] if lone else [plant(1, count=1).record])
    told = []
    fit_teacher(
        TeacherDataset(body, records, config),
        config.teacher,
        seed=1,
        report=lambda step, of, losses: told.append((step, of, set(losses))),
    )
    assert [(step, of) for step, of, _ in told] == [(n, 6) for n in range(1, 7)]
    taught = [bool(losses) for *_, losses in told]
    assert sum(taught) == (0 if lone else 3)
    assert all(losses in (set(), {"object", "mask"}) for *_, losses in told)


def test_steps(config):
    settings = replace(config.teacher, epochs=3, min_steps=10, batch_size=4)
    assert teacher_steps(1, settings) == 10
    assert teacher_steps(17, settings) == 15


@pytest.mark.slow
def test_the_seed_alone_decides(plant, body, config):
    config = replace(config, teacher=replace(config.teacher, min_steps=4, points_per_image=2))
    dataset = TeacherDataset(body, [plant(seed).record for seed in range(3)], config)
    torch.manual_seed(5)
    before = torch.get_rng_state()
    first = fit_teacher(dataset, config.teacher, seed=2).state_dict()
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(6)
    again = fit_teacher(dataset, config.teacher, seed=2).state_dict()
    other = fit_teacher(dataset, config.teacher, seed=3).state_dict()
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not all(torch.equal(first[name], other[name]) for name in first)


@pytest.mark.slow
def test_it_learns_what_is_object(plant, body, config):
    """Bags of a part, a whole and a bleed each: after forty steps the contrast, which sees no
    confidence, tells the whole from both; the overlap does where the whole is the surest."""
    records = [plant(seed, count=8).record for seed in range(4)]
    sure = np.full(3, 0.5, np.float32)
    sure[WHOLE] = 0.7
    records = [replace(r, bags=[replace(bag, confidence=sure) for bag in r.bags]) for r in records]
    config = replace(config, mil=replace(config.mil, prior_confidence=8.0))
    dataset = TeacherDataset(body, records, config)
    frozen = {name: value.clone() for name, value in body.state_dict().items()}
    losses = []
    teacher = fit_teacher(
        dataset, config.teacher, seed=0, report=lambda _step, _of, told: losses.append(told)
    )
    assert all(torch.equal(value, frozen[name]) for name, value in body.state_dict().items())
    assert not teacher.training
    assert losses[-1]["object"] < 0.5 * losses[0]["object"]
    assert losses[-1]["mask"] < 0.7 * losses[0]["mask"]
    found = [j for example in dataset for j in score_proposals(teacher, example)]
    contrast = np.stack([j.contrast for j in found])
    assert len(found) == 32
    assert (contrast[:, WHOLE] > contrast[:, BLEED]).mean() > 0.9
    assert (contrast[:, WHOLE] > contrast[:, PART]).mean() > 0.9
    for scores in found:
        assert (scores.contrast <= 0).all()
        assert ((scores.overlap >= 0) & (scores.overlap <= 1)).all()
    overlap = np.stack([j.overlap for j in found])
    assert (overlap[:, WHOLE] > overlap[:, BLEED]).mean() > 0.85
    assert (overlap[:, WHOLE] > overlap[:, PART]).mean() > 0.85
