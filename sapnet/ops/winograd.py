"""3×3 convolution with a quarter of the multiplications: Winograd's F(4×4, 3×3), for inference.

Lavin and Gray, "Fast Algorithms for Convolutional Neural Networks", CVPR 2016, section 4.1 and its
matrices Bᵀ, G and Aᵀ. Each 4×4 tile of the output is 36 products a pair of channels instead of 144.
"""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from itertools import pairwise

import numpy as np
import numpy.typing as npt
import torch
from numba import njit
from torch import Tensor, nn

FloatArray = npt.NDArray[np.float32]

_G = (
    torch.tensor(
        [[6, 0, 0], [-4, -4, -4], [-4, 4, -4], [1, 2, 4], [1, -2, 4], [0, 0, 24]],
        dtype=torch.float64,
    )
    / torch.tensor([24.0, 24, 24, 24, 24, 24], dtype=torch.float64)[:, None]
)
# as numbers of 32 bits: others would make every sum one of 64
_2, _4, _5, _8 = np.float32(2), np.float32(4), np.float32(5), np.float32(8)
_TILES = 256  # at a time, so that what lies between the three steps stays in the cache
_BLOCK = 128  # channels at a time, for the same reason one cache below


class WinogradConv2d(nn.Module):
    """A 3×3 convolution of stride 1 and padding 1, on the CPU, in float32, without gradients.

    Same result as the given one up to rounding (about 1e-6 of the largest value). Input and output
    are (B, C, H, W) and channels-last in memory.
    """

    weight: Tensor
    bias: Tensor | None

    def __init__(self, conv: nn.Conv2d) -> None:
        super().__init__()
        if not self.fits(conv):
            raise ValueError(f"only a plain 3×3 convolution of stride 1 can be taken, not {conv}")
        g = _G.to(conv.weight.device)
        taps = torch.einsum("ai,bj,koij->abok", g, g, conv.weight.detach().double())
        self.register_buffer("weight", taps.flatten(0, 1).float().contiguous())  # (36, C, K)
        self.register_buffer("bias", None if conv.bias is None else conv.bias.detach())

    @staticmethod
    def fits(conv: nn.Conv2d) -> bool:
        """Whether this class can stand in for it."""
        shape = conv.kernel_size, conv.stride, conv.padding, conv.dilation
        return shape == ((3, 3), (1, 1), (1, 1), (1, 1)) and conv.groups == 1

    def forward(self, x: Tensor) -> Tensor:
        batch, _, height, width = x.shape
        x = x.permute(0, 2, 3, 1).contiguous()
        out = x.new_empty(batch, height, width, self.weight.shape[2])
        bias = self.weight.new_zeros(out.shape[3]) if self.bias is None else self.bias
        for source, target in zip(x, out, strict=True):
            self._image(source, target, bias.numpy())
        return out.permute(0, 3, 1, 2)

    def _image(self, x: Tensor, out: Tensor, bias: FloatArray) -> None:
        """x (H, W, C) -> out (H, W, K), a few rows of tiles at a time."""
        rows, columns = -(-x.shape[0] // 4), -(-x.shape[1] // 4)
        step = max(1, _TILES // columns)
        before = _planes(min(step, rows) * columns, x.shape[2])
        after = _planes(before.shape[1], out.shape[2])
        source, target, pixels, result = before.numpy(), after.numpy(), x.numpy(), out.numpy()
        for first in range(0, rows, step):
            last = min(first + step, rows)
            tiles = (last - first) * columns
            _side_by_side(_input, first, last, pixels, source)
            torch.bmm(before[:, :tiles], self.weight, out=after[:, :tiles])
            _side_by_side(_output, first, last, target, bias, result)


@cache
def _pool() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(thread_name_prefix="winograd")


def _side_by_side(work: Callable[..., None], first: int, last: int, *arrays: FloatArray) -> None:
    """Rows first..last of tiles, spread over as many threads as torch takes."""
    count = min(torch.get_num_threads(), last - first)
    ends = [first + (last - first) * part // count for part in range(count + 1)]
    parts = list(pairwise(ends))
    others = [_pool().submit(work, *arrays, first, *part) for part in parts[1:]]
    work(*arrays, first, *parts[0])
    for other in others:
        other.result()


def _planes(tiles: int, channels: int) -> Tensor:
    """(36, tiles, channels), whose planes do not begin a multiple of a page apart: where they do,
    36 of them share the same few lines of the cache, and the whole takes twice as long."""
    size = tiles * channels
    apart = size + (80 - size) % 1024
    return torch.empty(36 * apart).as_strided((36, tiles, channels), (apart, channels, 1))


@njit(cache=True, nogil=True)
def _input(x: FloatArray, out: FloatArray, origin: int, first: int, last: int) -> None:
    """BᵀdB of rows first..last of tiles: x (H, W, C) -> out (36, tiles, C), which begins with the
    row `origin`."""
    height, width, channels = x.shape
    columns = (width + 3) // 4
    patch = np.zeros((6, 6, _BLOCK), dtype=np.float32)
    half = np.empty((6, 6, _BLOCK), dtype=np.float32)
    patch_rows, half_rows = patch.reshape(6, 6 * _BLOCK), half.reshape(6, 6 * _BLOCK)
    for row in range(first, last):
        for column in range(columns):
            tile = (row - origin) * columns + column
            for start in range(0, channels, _BLOCK):
                size = min(_BLOCK, channels - start)
                for i in range(6):
                    for j in range(6):
                        y, z = 4 * row + i - 1, 4 * column + j - 1
                        if 0 <= y < height and 0 <= z < width:
                            for c in range(size):
                                patch[i, j, c] = x[y, z, start + c]
                        else:
                            for c in range(size):
                                patch[i, j, c] = 0
                _mix6(patch_rows, half_rows)
                for i in range(6):
                    _mix6(half[i], patch[i])
                    for j in range(6):
                        for c in range(size):
                            out[6 * i + j, tile, start + c] = patch[i, j, c]


@njit(cache=True, nogil=True)
def _mix6(a: FloatArray, out: FloatArray) -> None:
    """Bᵀa: (6, n) -> (6, n)."""
    for c in range(a.shape[1]):
        a0, a1, a2, a3, a4, a5 = a[0, c], a[1, c], a[2, c], a[3, c], a[4, c], a[5, c]
        even, odd = a4 - _4 * a2, a3 - _4 * a1
        near, far = a4 - a2, _2 * (a3 - a1)
        out[0, c] = _4 * a0 - _5 * a2 + a4
        out[1, c] = even + odd
        out[2, c] = even - odd
        out[3, c] = near + far
        out[4, c] = near - far
        out[5, c] = _4 * a1 - _5 * a3 + a5


@njit(cache=True, nogil=True)
def _output(
    products: FloatArray, bias: FloatArray, out: FloatArray, origin: int, first: int, last: int
) -> None:
    """AᵀMA plus bias: products (36, tiles, K), which begin with the row `origin` -> rows
    first..last of tiles of out (H, W, K)."""
    height, width, channels = out.shape
    columns = (width + 3) // 4
    patch = np.zeros((6, 6, _BLOCK), dtype=np.float32)
    half = np.empty((4, 6, _BLOCK), dtype=np.float32)
    patch_rows, half_rows = patch.reshape(6, 6 * _BLOCK), half.reshape(4, 6 * _BLOCK)
    done = np.empty((4, _BLOCK), dtype=np.float32)
    for row in range(first, last):
        for column in range(columns):
            tile = (row - origin) * columns + column
            for start in range(0, channels, _BLOCK):
                size = min(_BLOCK, channels - start)
                for i in range(6):
                    for j in range(6):
                        for c in range(size):
                            patch[i, j, c] = products[6 * i + j, tile, start + c]
                _mix4(patch_rows, half_rows)
                for i in range(min(4, height - 4 * row)):
                    _mix4(half[i], done)
                    for j in range(min(4, width - 4 * column)):
                        for c in range(size):
                            out[4 * row + i, 4 * column + j, start + c] = (
                                done[j, c] + bias[start + c]
                            )


@njit(cache=True, nogil=True)
def _mix4(a: FloatArray, out: FloatArray) -> None:
    """Aᵀa: (6, n) -> (4, n)."""
    for c in range(a.shape[1]):
        a0, a1, a2, a3, a4, a5 = a[0, c], a[1, c], a[2, c], a[3, c], a[4, c], a[5, c]
        near, far = a1 + a2, a3 + a4
        odd, wide = a1 - a2, a3 - a4
        out[0, c] = a0 + near + far
        out[1, c] = odd + _2 * wide
        out[2, c] = near + _4 * far
        out[3, c] = odd + _8 * wide + a5
