"""3×3 convolution with a quarter of the multiplications, on the CPU: Winograd's F(4×4, 3×3).

Each 4×4 tile of the output is 36 products a pair of channels instead of 144; their transforms are
in winograd_tiles.py. Results and gradients are the plain convolution's up to rounding: about 1e-5
of the largest value.
"""

import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import cache
from itertools import pairwise
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.autograd import Function
from torch.autograd.function import once_differentiable

from sapnet.segmenters.winograd import kernels as tiles

LEAST_CHANNELS = 96
"""Below, the transforms cost what the products save."""

_TILES = 512  # at a time
_EVEN = 16  # tiles are made a multiple of it: products of other sizes take a third longer


def fits(conv: nn.Conv2d) -> bool:
    """Whether it can be computed here: plain 3×3, stride 1, padding 1."""
    shape = conv.kernel_size, conv.stride, conv.padding, conv.dilation
    plain = conv.groups == 1 and conv.padding_mode == "zeros"
    return shape == ((3, 3), (1, 1), (1, 1), (1, 1)) and plain


def of_all(conv: nn.Module, xs: Sequence[Tensor]) -> list[Tensor]:
    """One convolution of several maps."""
    if isinstance(conv, LearningWinogradConv2d):
        return conv.of_all(xs)
    return [conv(x) for x in xs]


def multiply_less(model: nn.Module, kind: Callable[[nn.Conv2d], nn.Module]) -> None:
    """Exchange a network's wide 3×3 convolutions, `kind` being one of the classes below."""
    for module in list(model.modules()):
        for name, conv in module.named_children():
            if not isinstance(conv, nn.Conv2d) or not fits(conv):
                continue
            if min(conv.in_channels, conv.out_channels) >= LEAST_CHANNELS:
                setattr(module, name, kind(conv))


class WinogradConv2d(nn.Module):
    """A convolution that no longer learns: its weights are kept transformed.

    Input and output are (B, C, H, W) float32, channels-last in memory. There are no gradients.
    """

    weight: Tensor
    bias: Tensor | None

    def __init__(self, conv: nn.Conv2d) -> None:
        super().__init__()
        _check(conv)
        weight = conv.weight.detach()
        own = torch.empty(weight.shape[0], 36, weight.shape[1])
        self.register_buffer("weight", _transformed(weight, own))  # (K, 36, C)
        self.register_buffer("bias", None if conv.bias is None else conv.bias.detach())

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, K, H, W)."""
        with _scratch() as scratch:
            return _convolve([x], self.weight, self.bias, scratch)[0]


class LearningWinogradConv2d(nn.Conv2d):
    """The same with gradients; it shares the given convolution's parameters, and their names."""

    def __init__(self, conv: nn.Conv2d) -> None:
        _check(conv)
        super().__init__(conv.in_channels, conv.out_channels, 3, padding=1, device="meta")
        self.weight, self.bias = conv.weight, conv.bias

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, K, H, W)."""
        return self.of_all([x])[0]

    def of_all(self, xs: Sequence[Tensor]) -> list[Tensor]:
        """The outputs of several maps; the weights are transformed once for all."""
        return list(_Learning.apply(self.weight, self.bias, *xs))


class _Learning(Function):
    @staticmethod
    def forward(ctx: Any, weight: Tensor, bias: Tensor | None, *xs: Tensor) -> tuple[Tensor, ...]:
        ctx.save_for_backward(weight, *xs)
        with _scratch() as scratch:
            transformed = _transformed(weight, scratch.planes("weights", *weight.shape[:2]))
            return tuple(_convolve(xs, transformed, bias, scratch))

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        weight, *xs = ctx.saved_tensors
        of_weight, of_bias, *of_xs = ctx.needs_input_grad
        with _scratch() as scratch:
            results = _backward(weight, xs, grads, of_weight, of_xs, scratch)
        bias = torch.stack([grad.sum((0, 2, 3)) for grad in grads]).sum(0) if of_bias else None
        return results[0], bias, *results[1:]


def _convolve(
    xs: Sequence[Tensor], weight: Tensor, bias: Tensor | None, scratch: "_Scratch"
) -> list[Tensor]:
    """Convolve xs (B, C, H, W) with a transformed weight (K, 36, C): (B, K, H, W) each.

    The results are channels-last.
    """
    channels = len(weight)
    maps = [_last(x) for x in xs]
    outs = [x.new_empty(*x.shape[:3], channels) for x in maps]
    added = (weight.new_zeros(channels) if bias is None else bias.detach()).numpy()
    most = _most(maps)
    before = scratch.planes("before", most, weight.shape[2])
    after = scratch.planes("after", most, channels)
    for group in _groups(maps):
        count = _even(group[-1].end, before)
        for part in group:
            part.spread(tiles.taken, part.of(maps), before.numpy())
        _products(before[:count], weight, after[:count])
        for part in group:
            part.spread(tiles.given, after.numpy(), added, part.of(outs))
    return [out.permute(0, 3, 1, 2) for out in outs]


def _backward(
    weight: Tensor,
    xs: Sequence[Tensor],
    grads: Sequence[Tensor],
    of_weight: bool,
    of_xs: Sequence[bool],
    scratch: "_Scratch",
) -> list[Tensor | None]:
    """Gradients of the weight and of each of xs, None where not asked for."""
    kernels, channels = weight.shape[:2]
    maps, given = [_last(x) for x in xs], [_last(grad) for grad in grads]
    results = [torch.zeros_like(x) if any(of_xs) else None for x in maps]
    transformed = grown = None
    if any(of_xs):
        transformed = _transformed(weight, scratch.planes("weights", kernels, channels))
    if of_weight:
        grown = scratch.planes("grown", kernels, channels).zero_()
    most = _most(maps)
    before = scratch.planes("before", most, channels)
    after = scratch.planes("after", most, kernels)
    for group in _groups(maps):
        count = _even(group[-1].end, before, after)
        for part in group:
            part.spread(tiles.given_back, part.of(given), after.numpy())
        if grown is not None:
            for part in group:
                part.spread(tiles.taken, part.of(maps), before.numpy())
            grown.transpose(0, 1).baddbmm_(
                after[:count].permute(1, 2, 0), before[:count].transpose(0, 1)
            )
        if transformed is not None:
            turned = transformed.transpose(0, 2)
            _products(after[:count], turned, before[:count])
            for part in group:
                part.spread_apart(tiles.taken_back, before.numpy(), part.of(results))
    taps = None
    if grown is not None:
        taps = weight.new_empty(kernels, 3, 3, channels)
        _side_by_side(tiles.weights_back, 0, kernels, grown.numpy(), taps.numpy())
        taps = taps.permute(0, 3, 1, 2)
    asked = (x if wanted else None for x, wanted in zip(results, of_xs, strict=True))
    return [taps, *(None if x is None else x.permute(0, 3, 1, 2) for x in asked)]


class _Part(NamedTuple):
    """Rows first..last of tiles of one image of a batch.

    Attributes:
        level: index of the map.
        image: index in the map's batch.
        start: of their places among the tiles that are multiplied at once.
        end: of these places.
    """

    level: int
    image: int
    first: int
    last: int
    start: int
    end: int

    def of(self, maps: Sequence[Tensor | None]) -> tiles.FloatArray:
        """(H, W, C) of the image in maps (B, H, W, C)."""
        batch = maps[self.level]
        assert batch is not None
        array: tiles.FloatArray = batch[self.image].numpy()
        return array

    def spread(self, work: Callable[..., None], *arrays: tiles.FloatArray) -> None:
        """work(*arrays, first, last, start), its rows over as many threads as torch takes."""
        columns = (self.end - self.start) // (self.last - self.first)

        def some(first: int, last: int) -> None:
            work(*arrays, first, last, self.start + (first - self.first) * columns)

        _side_by_side(some, self.first, self.last)

    def spread_apart(self, work: Callable[..., None], *arrays: tiles.FloatArray) -> None:
        """`spread`, never two rows at once that are neighbours: every other one, then the rest."""
        columns = (self.end - self.start) // (self.last - self.first)
        rows = range(self.first, self.last)
        for turn in (rows[::2], rows[1::2]):

            def some(first: int, last: int, turn: range = turn) -> None:
                for row in turn[first:last]:
                    work(*arrays, row, row + 1, self.start + (row - self.first) * columns)

            _side_by_side(some, 0, len(turn))


def _groups(maps: Sequence[Tensor]) -> Iterator[list[_Part]]:
    """All rows of tiles of maps (B, H, W, C), as many at a time as make _TILES."""
    group: list[_Part] = []
    start = 0
    for level, batch in enumerate(maps):
        rows, columns = -(-batch.shape[1] // 4), -(-batch.shape[2] // 4)
        for image in range(batch.shape[0]):
            first = 0
            while first < rows:
                if group and start + columns > _TILES:
                    yield group
                    group, start = [], 0
                count = min(rows - first, max((_TILES - start) // columns, 1))
                end = start + count * columns
                group.append(_Part(level, image, first, first + count, start, end))
                first, start = first + count, end
    if group:
        yield group


def _most(maps: Sequence[Tensor]) -> int:
    """Tiles of the largest of the groups, made a multiple of _EVEN."""
    most = max((group[-1].end for group in _groups(maps)), default=0)
    return -(-most // _EVEN) * _EVEN


def _even(count: int, *planes: Tensor) -> int:
    """The next multiple of _EVEN, up to which the planes are filled with zeros."""
    up = -(-count // _EVEN) * _EVEN
    for plane in planes:
        plane[count:up] = 0
    return up


class _Scratch:
    """Buffers of one computation, kept for the next.

    Fresh memory has to be zeroed by the system first.
    """

    def __init__(self) -> None:
        self._buffers: dict[str, Tensor] = {}

    def planes(self, name: str, rows: int, channels: int) -> Tensor:
        """(rows, 36, channels) of the buffer by that name, whatever it held."""
        size = rows * 36 * channels
        if name not in self._buffers or len(self._buffers[name]) < size:
            with torch.inference_mode(False):  # else it could not be used in training
                self._buffers[name] = torch.empty(size)
        return self._buffers[name][:size].view(rows, 36, channels)


_free: list[_Scratch] = []


@contextmanager
def _scratch() -> Iterator[_Scratch]:
    """A free one: there are as many as computations ever ran at once."""
    try:
        scratch = _free.pop()
    except IndexError:
        scratch = _Scratch()
    try:
        yield scratch
    finally:
        _free.append(scratch)


def _products(left: Tensor, right: Tensor, out: Tensor) -> None:
    """Multiply left (T, 36, C) with right (K, 36, C) for each of the 36, into out (T, 36, K)."""
    torch.bmm(left.transpose(0, 1), right.permute(1, 2, 0), out=out.transpose(0, 1))


def _transformed(weight: Tensor, out: Tensor) -> Tensor:
    """(K, C, 3, 3) -> (K, 36, C), in `out`."""
    taps = _last(weight)
    _side_by_side(tiles.weights, 0, len(taps), taps.numpy(), out.numpy())
    return out


def _last(x: Tensor) -> Tensor:
    """(B, C, H, W) -> (B, H, W, C), contiguous; nothing is copied where it is channels-last."""
    return x.detach().permute(0, 2, 3, 1).contiguous()


@cache
def _pool() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(max_workers=os.cpu_count(), thread_name_prefix="winograd")


def _side_by_side(work: Callable[..., None], first: int, last: int, *arguments: Any) -> None:
    """work(*arguments, from, to) over first..last, on as many threads as torch takes."""
    count = max(min(torch.get_num_threads(), last - first), 1)
    ends = [first + (last - first) * part // count for part in range(count + 1)]
    parts = list(pairwise(ends))
    others = [_pool().submit(work, *arguments, *part) for part in parts[1:]]
    work(*arguments, *parts[0])
    for other in others:
        other.result()


def _check(conv: nn.Conv2d) -> None:
    if not fits(conv):
        raise ValueError(f"only a plain 3×3 convolution of stride 1 can be taken, not {conv}")
