"""The average of the weights: its mathematics, and a run that is resumed with it."""

import pytest
import torch
from torch import nn

from sapnet.data.sampler import Step
from sapnet.segmenters.checkpoint import load_predictor
from sapnet.training.averaging import WeightAverage

from ..pipeline.conftest import go


def run(share, values):
    """The averages of one weight that has these values after each step."""
    model = nn.Linear(1, 1, bias=False)
    average = WeightAverage(model, share)
    found = []
    for index, value in enumerate(values):
        nn.init.constant_(model.weight, value)
        average.update(Step(index, len(values), 2))
        with average.applied():
            found.append(model.weight.item())
        assert model.weight.item() == value
    average.take()
    assert model.weight.item() == (found[-1] if share else values[-1])
    return found


def test_it_is_the_mean_until_the_horizon_and_exponential_from_there():
    values = [3.0, 1.0, 8.0, -2.0, 5.0, 5.0, 0.0, 4.0]
    expected = [3.0, 2.0]  # a quarter of eight steps
    for value in values[2:]:
        expected.append((expected[-1] + value) / 2)
    assert run(0.25, values) == pytest.approx(expected)
    assert run(1.0, values)[-1] == pytest.approx(sum(values) / 8)


@pytest.mark.parametrize("share", [0.0, 0.01])
def test_a_horizon_of_a_step_or_none_gives_the_weights_themselves(share):
    assert run(share, [3.0, 1.0, 8.0]) == [3.0, 1.0, 8.0]


def test_running_statistics_are_averaged_and_frozen_weights_are_not():
    model = nn.Sequential(nn.Linear(2, 2, bias=False), nn.BatchNorm1d(2)).train()
    model[0].weight.requires_grad_(False)
    average = WeightAverage(model, 1.0)
    seen = []
    for index in range(3):
        model(torch.randn(4, 2, generator=torch.Generator().manual_seed(index)) + index)
        nn.init.constant_(model[0].weight, index + 1.0)
        seen.append(model[1].running_mean.clone())
        average.update(Step(index, 3, 1))
    average.take()
    torch.testing.assert_close(model[1].running_mean, torch.stack(seen).mean(0))
    assert model[1].num_batches_tracked == 3
    assert (model[0].weight == 3).all()


def test_another_runs_state_is_not_taken():
    average = WeightAverage(nn.Linear(3, 2), 0.5)
    before = [value.clone() for value in average.state()]
    average.load([torch.ones(7)])
    assert all(torch.equal(a, b) for a, b in zip(average.state(), before, strict=True))


@pytest.mark.slow
def test_a_resumed_run_delivers_the_average_of_the_unbroken_one(make_spec, tmp_path):
    settings = {"overrides": {"train.average": 0.5}}
    whole = go(make_spec(tmp_path / "whole", **settings))
    stopping = make_spec(tmp_path / "stopped", **settings)
    assert go(stopping, lambda event: event.get("step") == 4 and event["stage"] == "train").error
    resumed = go(stopping)
    assert whole.steps[6] == resumed.steps[6]

    def weights(outcome):
        path = outcome.spec.workdir / "result" / "model.pt"
        return load_predictor(path, "cpu", ready=False).segmenter.state_dict()

    ours, again = weights(whole), weights(resumed)
    for name, value in ours.items():
        torch.testing.assert_close(value, again[name], rtol=0, atol=0)
    path = whole.spec.workdir / "train" / "checkpoint.pt"
    last = torch.load(path, weights_only=True)["model"]
    assert any(not torch.equal(value, last[f"segmenter.{n}"]) for n, value in ours.items())
