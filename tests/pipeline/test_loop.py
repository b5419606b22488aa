"""The loop on a GPU: a step's losses are read in the next, and before anything is kept."""

from types import SimpleNamespace

import pytest
import torch
from torch import nn

from sapnet.config.resolve import resolve_config
from sapnet.data.sampler import Step
from sapnet.errors import NonFiniteLoss, Stopped
from sapnet.segmenters.backbones import BackboneWithFpn
from sapnet.segmenters.solov2 import SoloHead, SoloV2
from sapnet.training import loop as engine
from sapnet.training.loop import compiled
from sapnet.training.step import StepMetrics


class FiveSteps:
    """`BatchLoader` of an epoch of three."""

    total = 5

    def __init__(self, *_):
        pass

    def step(self, index):
        return Step(index, self.total, 3)

    def __call__(self, step):
        return [], []


@pytest.fixture(name="run")
def _run(monkeypatch, tmp_path):
    """run(device, losses, stop_after): the order in which steps are launched, told of and kept."""

    def run(device, losses=(1.0,) * 5, stop_after=9):
        order = []

        def training_step(_model, _optimizer, _samples, step, _generators):
            order.append(f"launched {step.index + 1}")
            return StepMetrics(step, ("mask",), lambda: [torch.tensor([losses[step.index], 1.0])])

        monkeypatch.setattr(engine, "BatchLoader", FiveSteps)
        monkeypatch.setattr(engine, "training_step", training_step)
        monkeypatch.setattr(engine, "make_optimizer", lambda *_: None)
        monkeypatch.setattr(
            engine, "save_checkpoint", lambda *asked: order.append(f"kept {asked[3:5]}")
        )
        model = nn.Linear(1, 1, device=device)
        model.device = torch.device(device)
        model.segmenter = nn.Identity()
        model.labeler = SimpleNamespace(conclude=lambda _segmenter: None)
        model.config = resolve_config(overrides={"train.checkpoint_every": 1000})

        def should_stop():
            return sum(line.startswith("launched") for line in order) >= stop_after

        try:
            order.append(
                engine.train(
                    model,
                    [],
                    seed=0,
                    checkpoint=tmp_path / "none.pt",
                    report=lambda step, of, _losses: order.append(f"told {step} of {of}"),
                    should_stop=should_stop,
                )
            )
        except (NonFiniteLoss, Stopped) as error:
            order.append(type(error).__name__)
        return order

    return run


def test_losses_are_read_while_the_next_step_runs(run):
    assert run("meta") == [
        *("launched 1", "launched 2", "told 1 of 5", "launched 3", "told 2 of 5", "told 3 of 5"),
        *("kept (3, 3)", "launched 4", "launched 5", "told 4 of 5", "told 5 of 5", "kept (5, 5)"),
        5,
    ]


def test_on_a_cpu_at_once(run):
    assert run("cpu")[:5] == [
        "launched 1",
        "told 1 of 5",
        "launched 2",
        "told 2 of 5",
        "launched 3",
    ]


def test_nothing_is_kept_of_what_is_no_number(run):
    order = run("meta", (1.0, 1.0, float("nan"), 1.0, 1.0))
    assert order[-3:] == ["launched 3", "told 2 of 5", "NonFiniteLoss"]


def test_a_stop_keeps_all_that_was_done(run):
    assert run("meta", stop_after=2)[-3:] == ["told 2 of 5", "kept (2, 2)", "Stopped"]


@pytest.mark.slow
def test_the_segmenter_is_compiled_once_for_all_sizes(tiny):
    config = resolve_config(overrides=tiny)
    backbone = BackboneWithFpn(config.backbone, pretrained=True)
    model = SoloV2(backbone, SoloHead(2, 16, config.solo)).train()
    torch._dynamo.reset()
    run = torch.compile(model.forward, backend="eager", dynamic=True, fullgraph=True)
    with torch._dynamo.config.patch(error_on_recompile=True):
        for size in ((128, 192), (192, 128), (256, 384)):
            images = torch.randn(2, 3, *size)
            found, expected = run(images)[1], model(images)[1]
            torch.testing.assert_close(found.mask_features, expected.mask_features)


@pytest.mark.slow
def test_without_a_gpu_nothing_is_compiled():
    said = []
    config = resolve_config(overrides={"train.compile": True})
    model = nn.Module()
    model.segmenter = nn.Linear(1, 1)
    model.config, model.device = config, torch.device("cpu")
    forward = model.segmenter.forward
    with compiled(model, said.append):
        assert model.segmenter.forward == forward
    assert said == ["train.compile is left out: there is no GPU"]
    model.device = torch.device("meta")
    with compiled(model, said.append):
        assert model.segmenter.forward != forward
    assert "forward" not in vars(model.segmenter)
