"""A step on a GPU: the host waits once, and the figures are the CPU's."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from sapnet.config.resolve import resolve_config
from sapnet.data.masks import encode_all as encode
from sapnet.data.sampler import Step
from sapnet.data.samples import Sample, make_record
from sapnet.proposals.bags import bag_of
from sapnet.segmenters.backbones import BackboneWithFpn
from sapnet.training.model import assemble
from sapnet.training.optim import make_optimizer
from sapnet.training.step import training_step
from sapnet.types import ImageInfo, PointAnnotation

from ..pretended_gpu import DEVICE, HostWaits, PretendedGpu, There

LATE = Step(index=90, total=100, per_epoch=10)  # every term has set in


def samples(count: int = 2) -> list[Sample]:
    """Noise with discs, each with a bag of five masks."""
    rng = np.random.default_rng(0)
    y, x = np.mgrid[:64, :96]
    made = []
    for image in range(count):
        points, bags = [], []
        for n in range(3 - image):
            cx, cy = rng.uniform(20, 76), rng.uniform(16, 48)
            masks = np.array([np.hypot(x - cx, y - cy) < radius for radius in (4, 7, 9, 11, 14)])
            points.append(PointAnnotation(n, image, n % 2, cx, cy))
            bags.append(bag_of(n, encode(masks), np.linspace(0.9, 0.5, 5), ["made"] * 5))
        info, labels = ImageInfo(image, "", 64, 96), {0: 0, 1: 1}
        record = make_record(info, Path(), points, bags, labels)
        pixels = torch.from_numpy(rng.normal(size=(3, 64, 96)).astype(np.float32))
        made.append(Sample(record, pixels, (1.0, 1.0), False))
    return made


def steps(tiny: dict[str, Any], method: str, gpu: PretendedGpu | None, count: int) -> Any:
    """What some steps say: losses, bags without a best, and the weights in the end."""
    config = resolve_config(method, "cpu", {**tiny, "data.max_proposals": 5}, body="mobilenet_v2")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        backbone = BackboneWithFpn(config.backbone, pretrained=True)
    model = assemble(config, 2, backbone, 0).train()
    if gpu:
        gpu.take(model)
    optimizer = make_optimizer(model, config.train)
    said = []
    for index in range(count):
        generators = [torch.Generator().manual_seed(10 * index + n) for n in range(2)]
        said.append(training_step(model, optimizer, samples(), LATE, generators))
    waits = gpu.waits if gpu else 0
    weights = [p.detach() for p in model.parameters()]
    return [one.read() for one in said], waits, weights


@pytest.mark.slow
@pytest.mark.parametrize(
    ("method", "times"), [("sapnet++", 1), ("sapnet", 1), ("consensus", 0), ("sam-top1", 0)]
)
def test_the_host_waits_once_a_step(tiny, monkeypatch, method, times):
    """For what MIL picked; what a rule picked it knows."""
    here, _, weights = steps(tiny, method, None, 2)
    with PretendedGpu(monkeypatch) as gpu:
        there, waits, same = steps(tiny, method, gpu, 2)
    assert waits == 2 * times
    for (losses, undecided), (expected, before) in zip(there, here, strict=True):
        assert losses == pytest.approx(expected, rel=1e-3, abs=1e-5)
        assert undecided == before
    for one, other in zip(weights, same, strict=True):
        torch.testing.assert_close(other.held, one, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize(
    "costly",
    [
        lambda x: x.sum().item(),
        lambda x: x.tolist(),
        lambda x: x.cpu(),
        lambda x: x[x > 0],
        lambda x: x.nonzero(),
        lambda x: bool(x.any()),
        lambda x: x + torch.ones(3),
        lambda x: torch.bincount(x.long()),
        lambda x: x.index_put((x > 0,), x[0]),
        lambda x: torch.ones(3).to(DEVICE),
        lambda x: x + torch.tensor([1.0], device=DEVICE),
    ],
)
def test_the_gpu_that_is_not_there_is_strict(monkeypatch, costly):
    with PretendedGpu(monkeypatch):
        x = torch.arange(3.0).to(DEVICE, non_blocking=True)
        assert isinstance(x + 1, There)
        with pytest.raises((HostWaits, RuntimeError)):
            costly(x)
