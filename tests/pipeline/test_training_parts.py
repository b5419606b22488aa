"""The loop's parts: checkpoints, schedule, optimizer, order of draws."""

import pytest
import torch
from torch import nn

from sapnet.config.schema import TrainConfig
from sapnet.data.sampler import Step
from sapnet.training.checkpoint import load_checkpoint, save_checkpoint
from sapnet.training.optim import make_optimizer, set_learning_rate
from sapnet.utils.resources import ProgressTimer


def small_model(seed=0):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Linear(4, 1))


def some_steps(model, optimizer, count):
    set_learning_rate(optimizer, TrainConfig(warmup_steps=0), Step(0, 10, 5))
    generator = torch.Generator().manual_seed(count)
    for _ in range(count):
        optimizer.zero_grad()
        model(torch.randn(8, 3, generator=generator)).square().mean().backward()
        optimizer.step()


@pytest.mark.parametrize("kind", ["sgd", "adamw"])
def test_a_checkpoint_holds_all_that_goes_on(tmp_path, kind):
    config = TrainConfig(optimizer=kind)
    model = small_model()
    optimizer = make_optimizer(model, config)
    some_steps(model, optimizer, 3)
    path = tmp_path / "deep" / "checkpoint.pt"
    save_checkpoint(path, model, optimizer, 3, 17, 4)
    assert [p.name for p in path.parent.iterdir()] == ["checkpoint.pt"]
    other = small_model(1)
    fresh = make_optimizer(other, config)
    assert load_checkpoint(path, other, fresh) == (3, 17, 4)
    some_steps(model, optimizer, 2)
    some_steps(other, fresh, 2)
    for name, value in model.state_dict().items():
        assert torch.equal(value, other.state_dict()[name]), name


@pytest.mark.parametrize("kind", ["sgd", "adamw"])
def test_a_checkpoint_of_another_memory_layout(tmp_path, generator, kind):
    """Fused optimizers go through memory, not through indices."""
    config, path = TrainConfig(optimizer=kind, learning_rate=0.1), tmp_path / "checkpoint.pt"
    images = torch.randn(4, 2, 6, 6, generator=generator)

    def convolution(layout):
        torch.manual_seed(0)
        model = nn.Conv2d(2, 3, 3).to(memory_format=layout)
        optimizer = make_optimizer(model, config)
        set_learning_rate(optimizer, config, Step(9, 10, 5))
        return model, optimizer

    def step(model, optimizer):
        optimizer.zero_grad()
        model(images).square().mean().backward()
        optimizer.step()

    plain = convolution(torch.contiguous_format)
    step(*plain)
    save_checkpoint(path, *plain, 1, 0, 4)
    other = convolution(torch.channels_last)
    load_checkpoint(path, *other)
    for _ in range(3):
        step(*plain)
        step(*other)
    assert torch.allclose(plain[0].weight, other[0].weight, rtol=1e-4, atol=1e-6)


def test_what_a_killed_writer_leaves_is_ignored_and_overwritten(tmp_path):
    model, path = small_model(), tmp_path / "checkpoint.pt"
    optimizer = make_optimizer(model, TrainConfig())
    path.with_suffix(".tmp").write_bytes(b"half a checkpo")
    assert load_checkpoint(path, model, optimizer) == (0, 0, 0)
    save_checkpoint(path, model, optimizer, 4, 0, 4)
    path.with_suffix(".tmp").write_bytes(b"half of the next")
    assert load_checkpoint(path, model, optimizer) == (4, 0, 4)


def test_another_releases_checkpoint_begins_again(tmp_path):
    """Its parts have other names: the user is told, and nothing of it is taken."""
    model, path, told = small_model(), tmp_path / "checkpoint.pt", []
    optimizer = make_optimizer(model, TrainConfig())
    before = {name: value.clone() for name, value in model.state_dict().items()}
    other = {f"solo.{name}": value + 1 for name, value in before.items()}
    torch.save({"model": other, "optimizer": {}, "step": 9, "undecided": 1}, path)
    assert load_checkpoint(path, model, optimizer, told.append) == (0, 0, 0)
    assert len(told) == 1
    assert "begins again" in told[0]
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_a_writer_that_fails_leaves_the_last_one_whole(tmp_path, monkeypatch):
    model, path = small_model(), tmp_path / "checkpoint.pt"
    optimizer = make_optimizer(model, TrainConfig())
    save_checkpoint(path, model, optimizer, 4, 0, 4)

    def full(_state, file):
        file.write(b"the beginning")
        raise OSError("no space left on device")

    monkeypatch.setattr(torch, "save", full)
    with pytest.raises(OSError, match="no space"):
        save_checkpoint(path, model, optimizer, 5, 0, 4)
    assert load_checkpoint(path, model, optimizer) == (4, 0, 4)


def test_norms_and_biases_are_not_decayed_under_adamw():
    model = small_model()
    model[0].weight.requires_grad_(False)
    groups = make_optimizer(model, TrainConfig(optimizer="adamw", weight_decay=0.3)).param_groups
    decayed = {id(p) for g in groups if g["weight_decay"] > 0 for p in g["params"]}
    plain = {id(p) for g in groups if g["weight_decay"] == 0 for p in g["params"]}
    assert decayed == {id(model[2].weight)}
    assert plain == {id(p) for p in model.parameters() if p.ndim == 1}
    (group,) = make_optimizer(model, TrainConfig(optimizer="sgd")).param_groups
    assert len(group["params"]) == len(decayed | plain)
    assert group["momentum"] == 0.9


def rates(config, total):
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=0.0)
    out = []
    for index in range(total):
        set_learning_rate(optimizer, config, Step(index, total, 10))
        out.append(optimizer.param_groups[0]["lr"])
    return out


def test_schedule():
    """Linear warm-up from above zero, a tenth at each drop, in proportion to the batch."""
    config = TrainConfig(
        learning_rate=0.02, batch_size=8, reference_batch=32, warmup_steps=4, drops=(0.5, 0.75)
    )
    got = rates(config, 40)
    expected = [0.005 * (i + 1) / 5 for i in range(4)]
    expected += [0.005] * 16 + [0.0005] * 10 + [0.00005] * 10
    assert got == pytest.approx(expected)


def test_a_short_run_is_not_all_warm_up():
    got = rates(TrainConfig(warmup_steps=500, drops=()), 8)
    assert got[2:] == [got[-1]] * 6
    assert 0 < got[0] < got[1] < got[2]
    assert rates(TrainConfig(warmup_steps=0), 1) == [0.02 * 4 / 32]


def test_eta_counts_this_process_alone(monkeypatch):
    now = [100.0]
    monkeypatch.setattr("sapnet.utils.resources.time.monotonic", lambda: now[0])
    eta = ProgressTimer()
    now[0] = 102.0
    assert eta(51, 100) == pytest.approx(2 * 49)  # the first one done here
    now[0] = 106.0
    assert eta(53, 100) == pytest.approx(6 / 3 * 47)
    assert eta(100, 100) == 0
