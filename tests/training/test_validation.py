"""When a training is validated, which weights are kept, and when it ends."""

import pytest
import torch
from torch import nn

from sapnet.config.schema import TrainConfig
from sapnet.data.sampler import Step
from sapnet.training.averaging import WeightAverage
from sapnet.training.validation import Validation


def run(path, figures, *, per_epoch=1, total=None, validations=100, patience=0.0, begin=0, load=()):
    """Steps of a model whose one weight is the step's number; returns it in the end."""
    model = nn.Linear(1, 1, bias=False)
    seen = []

    def validate(asked, step, of):
        assert not asked.training
        seen.append((step, of))
        return figures[step - 1]

    config = TrainConfig(validations=validations, patience=patience)
    validation, average = Validation(validate, config, path), WeightAverage(model, 0.0)
    validation.load(list(load))
    total = total or len(figures)
    done = begin
    while done < total and not validation.over:
        nn.init.constant_(model.weight, done + 1.0)
        validation(model, Step(done, total, per_epoch), average)
        done += 1
    assert model.training
    validation.take_best(model)
    return model.weight.item(), seen, validation


def test_the_best_weights_are_taken(tmp_path):
    weight, seen, validation = run(tmp_path / "best.pt", [0.1, 0.5, 0.3, 0.2])
    assert (weight, validation.best) == (2, 0.5)
    assert seen == [(1, 4), (2, 4), (3, 4), (4, 4)]
    assert validation.history == [(0.25, 0.1), (0.5, 0.5), (0.75, 0.3), (1.0, 0.2)]


def test_of_equal_ones_the_latest_but_no_slow_descent(tmp_path):
    assert run(tmp_path / "a.pt", [0.1, 0.5, 0.495, 0.2])[0] == 3
    assert run(tmp_path / "b.pt", [0.5, 0.495, 0.488, 0.481])[0] == 2
    assert run(tmp_path / "c.pt", [0.0, 0.0, 0.0])[0] == 3


def test_it_ends_when_nothing_gets_better(tmp_path):
    figures = [0.1, 0.5] + [0.4] * 8
    assert len(run(tmp_path / "a.pt", figures, patience=0.3)[1]) == 5
    assert len(run(tmp_path / "b.pt", figures, patience=0.0)[1]) == 10
    weight, seen, _ = run(tmp_path / "c.pt", [*figures[:4], 0.6, *figures[5:]], patience=0.3)
    assert (weight, len(seen)) == (5, 8)


def test_a_resumed_run_does_as_the_unbroken_one(tmp_path):
    figures = [0.1, 0.5, 0.3, 0.2, 0.1, 0.1, 0.1, 0.1, 0.1, 0.1]
    whole = run(tmp_path / "a.pt", figures, patience=0.4)
    stopped = run(tmp_path / "b.pt", figures[:3], total=3)[2]
    history = [(share * 3 / 10, figure) for share, figure in stopped.history]
    resumed = run(tmp_path / "b.pt", figures, patience=0.4, begin=3, load=history)
    assert resumed[0] == whole[0] == 2
    for one, other in zip(resumed[2].history, whole[2].history, strict=True):
        assert one == pytest.approx(other)
    over = run(tmp_path / "b.pt", figures, patience=0.4, begin=6, load=whole[2].history)
    assert over[1] == []


@pytest.mark.parametrize(
    ("per_epoch", "total", "most", "expected"),
    [(3, 12, 20, [3, 6, 9, 12]), (3, 12, 2, [6, 12]), (3, 10, 3, [6, 10]), (20, 10, 5, [10])],
)
def test_it_is_validated_at_ends_of_epochs(tmp_path, per_epoch, total, most, expected):
    _, seen, _ = run(tmp_path / "best.pt", [0.1] * total, per_epoch=per_epoch, validations=most)
    assert [step for step, _ in seen] == expected


def test_the_averaged_weights_are_measured_and_kept(tmp_path):
    model = nn.Linear(1, 1, bias=False)
    measured = []

    def validate(asked, step, of):
        measured.append(asked.weight.item())
        return 1.0 / step

    average = WeightAverage(model, 1.0)
    validation = Validation(validate, TrainConfig(validations=9), tmp_path / "best.pt")
    for index, value in enumerate((2.0, 4.0, 9.0)):
        nn.init.constant_(model.weight, value)
        average.update(Step(index, 3, 1))
        validation(model, Step(index, 3, 1), average)
        assert model.weight.item() == value
    average.take()
    validation.take_best(model)
    assert measured == [2, 3, 5]
    assert model.weight.item() == 2
    assert torch.load(tmp_path / "best.pt", weights_only=True)["weight"].item() == 2


def test_without_a_measure_nothing_is_validated(tmp_path):
    validation = Validation(None, TrainConfig(patience=0.1), tmp_path / "best.pt")
    model = nn.Linear(1, 1)
    validation(model, Step(0, 1, 1), WeightAverage(model, 0.0))
    assert not validation.history
    assert not validation.over
    assert not (tmp_path / "best.pt").exists()
