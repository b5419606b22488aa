import io

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from sapnet.proposals.prompter import weights
from sapnet.proposals.prompter.body import Lite0, folded

# kernel, stride, expansion, channels in, channels out, repeats: EfficientNet-Lite0 as published
STAGES = [
    (3, 1, 1, 32, 16, 1),
    (3, 2, 6, 16, 24, 2),
    (5, 2, 6, 24, 40, 2),
    (3, 2, 6, 40, 80, 3),
    (5, 1, 6, 80, 112, 3),
    (5, 2, 6, 112, 192, 4),
    (3, 1, 6, 192, 320, 1),
]


def same(x: Tensor, weight: Tensor, stride: int, groups: int = 1) -> Tensor:
    """TensorFlow's "same": what is odd of the padding goes below and to the right."""
    kernel = weight.shape[-1]
    pads = []
    for length in (x.shape[-1], x.shape[-2]):
        total = max((-(-length // stride) - 1) * stride + kernel - length, 0)
        pads += [total // 2, total - total // 2]
    return F.conv2d(F.pad(x, pads), weight, stride=stride, groups=groups)


def plain(state: dict[str, Tensor], x: Tensor) -> list[Tensor]:
    """The network as the package's weights name it, one operation after another."""

    def norm(name: str, y: Tensor) -> Tensor:
        values = (state[f"{name}.{k}"] for k in ("running_mean", "running_var", "weight", "bias"))
        return F.batch_norm(y, *values, eps=1e-3)

    y = F.relu6(norm("_bn0", same(x, state["_conv_stem.weight"], 2)))
    outs, number = {}, 0
    for kernel, stride, expansion, inputs, outputs, repeats in STAGES:
        for index in range(repeats):
            name, z = f"_blocks.{number}", y
            if expansion != 1:
                z = F.relu6(norm(f"{name}._bn0", same(z, state[f"{name}._expand_conv.weight"], 1)))
            weight = state[f"{name}._depthwise_conv.weight"]
            assert weight.shape[-1] == kernel
            step = stride if index == 0 else 1
            z = F.relu6(norm(f"{name}._bn1", same(z, weight, step, z.shape[1])))
            z = norm(f"{name}._bn2", same(z, state[f"{name}._project_conv.weight"], 1))
            y = z if step != 1 or (index == 0 and inputs != outputs) else y + z
            number += 1
        outs[x.shape[-1] // y.shape[-1]] = y
    return [outs[stride] for stride in (4, 8, 16, 32)]


def package_state() -> dict[str, Tensor]:
    content = weights.checked(weights.lite0_path(), weights.LITE0_SHA256)
    return torch.load(io.BytesIO(content), weights_only=True)


@pytest.mark.slow
def test_equals_a_plain_network_with_the_packages_weights() -> None:
    state = package_state()
    body = Lite0()
    body.load_state_dict(folded(state))
    x = torch.randn(2, 3, 96, 64, generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        found, wanted = body(x), plain(state, x)
    for one, two, channels in zip(found, wanted, Lite0.channels, strict=True):
        assert one.shape[1] == channels
        torch.testing.assert_close(one, two, rtol=1e-3, atol=1e-3)


def test_a_state_that_lacks_a_layer_is_refused() -> None:
    state = package_state()
    del state["_blocks.3._bn1.running_var"]
    with pytest.raises(KeyError):
        folded(state)


def test_frozen_stages_keep_no_gradient() -> None:
    body = Lite0()
    sum(f.sum() for f in body(torch.randn(1, 3, 32, 32), frozen=3)).backward()
    assert all(p.grad is None for p in body.stem.parameters())
    assert all(p.grad is None for s in body.stages[:3] for p in s.parameters())
    assert all(p.grad is not None for s in body.stages[3:] for p in s.parameters())
