"""Winograd's convolution against the plain one: values, gradients, several maps at once."""

import copy

import pytest
import torch
from torch import nn

from sapnet.segmenters.winograd import conv as winograd
from sapnet.segmenters.winograd.conv import (
    LearningWinogradConv2d,
    WinogradConv2d,
    multiply_less,
    of_all,
)

SIZES = [(1, 1), (4, 4), (5, 3), (9, 30), (70, 13)]


@pytest.fixture(params=[1, 2])
def threads(request):
    before = torch.get_num_threads()
    torch.set_num_threads(request.param)
    yield
    torch.set_num_threads(before)


def near(got, expected, share):
    """Within a share of the largest value."""
    assert got.shape == expected.shape
    return (got - expected).abs().max() <= share * expected.abs().max()


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize(("inputs", "outputs", "bias"), [(3, 5, True), (130, 129, False)])
@pytest.mark.usefixtures("threads")
def test_winograd_is_a_convolution(generator, size, inputs, outputs, bias):
    conv = nn.Conv2d(inputs, outputs, 3, padding=1, bias=bias)
    for parameter in conv.parameters():
        parameter.data.normal_(generator=generator)
    x = torch.randn(2, inputs, *size, generator=generator)
    with torch.inference_mode():
        expected, got = conv(x), WinogradConv2d(conv)(x)
    assert got.is_contiguous(memory_format=torch.channels_last)
    assert near(got, expected, 5e-5)


@pytest.mark.parametrize(
    "conv",
    [
        nn.Conv2d(8, 8, 3, stride=2, padding=1),
        nn.Conv2d(8, 8, 1),
        nn.Conv2d(8, 8, 3),
        nn.Conv2d(8, 8, 3, padding=1, padding_mode="reflect"),
    ],
)
def test_winograd_refuses_what_it_cannot_do(conv):
    with pytest.raises(ValueError, match="3×3"):
        WinogradConv2d(conv)
    with pytest.raises(ValueError, match="3×3"):
        LearningWinogradConv2d(conv)


def gradients(conv, xs, grads):
    """Outputs of all maps, and the gradients of weight, bias and maps."""
    xs = [x.clone().requires_grad_() for x in xs]
    conv.zero_grad()
    outs = of_all(conv, xs)
    torch.autograd.backward(outs, grads)
    ours = [p.grad for p in conv.parameters()]
    return [*(out.detach() for out in outs), *ours, *(x.grad for x in xs)]


@pytest.mark.usefixtures("threads")
@pytest.mark.parametrize(("inputs", "outputs", "bias"), [(3, 5, True), (100, 129, False)])
def test_gradients_are_those_of_a_convolution(generator, inputs, outputs, bias):
    conv = nn.Conv2d(inputs, outputs, 3, padding=1, bias=bias)
    for parameter in conv.parameters():
        parameter.data.normal_(generator=generator)
    xs = [torch.randn(2, inputs, *size, generator=generator) for size in SIZES]
    grads = [torch.randn(2, outputs, *size, generator=generator) for size in SIZES]
    fast = LearningWinogradConv2d(conv)
    assert list(fast.state_dict()) == list(conv.state_dict())
    expected = [x.clone() for x in gradients(conv, xs, grads)]
    for got, wanted in zip(gradients(fast, xs, grads), expected, strict=True):
        assert near(got, wanted, 5e-5)


def test_only_what_is_asked_for(generator):
    """Of a frozen layer, and of the first one, whose input learns nothing."""
    conv = LearningWinogradConv2d(nn.Conv2d(4, 6, 3, padding=1))
    x = torch.randn(1, 4, 5, 7, generator=generator)
    conv(x).sum().backward()
    assert conv.weight.grad is not None
    conv.zero_grad()
    frozen = conv.requires_grad_(False)
    x.requires_grad_()
    frozen(x).sum().backward()
    assert x.grad is not None
    assert frozen.weight.grad is None
    x.requires_grad_(False)
    assert not frozen(x).requires_grad


def test_more_tiles_than_are_multiplied_at_once(generator):
    conv = nn.Conv2d(2, 3, 3, padding=1)
    for parameter in conv.parameters():
        nn.init.uniform_(parameter, -0.25, 0.25, generator)
    xs, grads = (
        [
            torch.randn(3, channels, 61, 90, generator=generator),
            torch.randn(1, channels, 4, 2300, generator=generator),
        ]
        for channels in (2, 3)
    )
    expected = [x.clone() for x in gradients(conv, xs, grads)]
    for got, wanted in zip(
        gradients(LearningWinogradConv2d(conv), xs, grads), expected, strict=True
    ):
        assert near(got, wanted, 5e-5)


def test_what_was_predicted_before_does_not_hinder_training(generator, monkeypatch):
    monkeypatch.setattr(winograd, "_free", [])  # so that prediction is the first to want memory
    conv = LearningWinogradConv2d(nn.Conv2d(99, 98, 3, padding=1))
    x = torch.randn(1, 99, 8, 8, generator=generator)
    with torch.inference_mode():
        conv(x)
    conv(x).sum().backward()


def test_a_network_keeps_its_parameters():
    model = nn.Sequential(nn.Conv2d(96, 96, 3, padding=1), nn.Conv2d(96, 95, 3, padding=1))
    fast = copy.deepcopy(model)
    own = list(fast.parameters())
    multiply_less(fast, LearningWinogradConv2d)
    assert [type(layer) for layer in fast] == [LearningWinogradConv2d, nn.Conv2d]
    assert all(a is b for a, b in zip(fast.parameters(), own, strict=True))
    fast.load_state_dict(model.state_dict())
