"""The transforms of Winograd's F(4×4, 3×3), compiled: images to tiles and back, and weights.

Lavin and Gray, "Fast Algorithms for Convolutional Neural Networks", CVPR 2016, section 4.1 and its
matrices Bᵀ, G and Aᵀ. All arrays are float32, contiguous, channels last. An image (H, W, C) has
ceil(H / 4) rows of ceil(W / 4) tiles; kernels take rows first..last of them, and the first tile
is `tiles[start]`. A tile's 36 planes lie together: written apart, 36 streams of stores wait for
memory, and a transform takes three times as long.
"""

import numpy as np
import numpy.typing as npt
from numba import njit

FloatArray = npt.NDArray[np.float32]

# as numbers of 32 bits: others would make every sum one of 64
_2, _4, _5, _8, _24 = (np.float32(n) for n in (2, 4, 5, 8, 24))


@njit(cache=True, nogil=True)
def taken(x: FloatArray, tiles: FloatArray, first: int, last: int, start: int) -> None:
    """BᵀdB: x (H, W, C) -> tiles (T, 36, C)."""
    height, width, channels = x.shape
    columns, long = (width + 3) // 4, 6 * channels
    pixels, grids = x.reshape(height, width * channels), tiles.reshape(-1, 6, 6, channels)
    patch = np.zeros((6, long), dtype=np.float32)
    half = np.empty((6, 6, channels), dtype=np.float32)
    half_rows = half.reshape(6, long)
    for row in range(first, last):
        for column in range(columns):
            grid = grids[start + (row - first) * columns + column]
            top, left = 4 * row - 1, 4 * column - 1
            if top >= 0 and top + 6 <= height and left >= 0 and left + 6 <= width:
                _bt(pixels, top, left * channels, half_rows)
            else:
                _cut(x, top, left, 6, patch)
                _bt(patch, 0, 0, half_rows)
            for i in range(6):
                _bt(half[i], 0, 0, grid[i])


@njit(cache=True, nogil=True)
def given(
    tiles: FloatArray, bias: FloatArray, out: FloatArray, first: int, last: int, start: int
) -> None:
    """AᵀMA plus bias: tiles (T, 36, K) -> out (H, W, K)."""
    height, width, channels = out.shape
    columns, long = (width + 3) // 4, 6 * channels
    grids = tiles.reshape(-1, 6, long)
    half = np.empty((4, 6, channels), dtype=np.float32)
    half_rows = half.reshape(4, long)
    done = np.empty((4, channels), dtype=np.float32)
    for row in range(first, last):
        for column in range(columns):
            _at(grids[start + (row - first) * columns + column], half_rows)
            for i in range(min(4, height - 4 * row)):
                _at(half[i], done)
                for j in range(min(4, width - 4 * column)):
                    for c in range(channels):
                        out[4 * row + i, 4 * column + j, c] = done[j, c] + bias[c]


@njit(cache=True, nogil=True)
def given_back(out: FloatArray, tiles: FloatArray, first: int, last: int, start: int) -> None:
    """The gradient of `given`, AdAᵀ of that of its out (H, W, K) -> tiles (T, 36, K)."""
    height, width, channels = out.shape
    columns, long = (width + 3) // 4, 4 * channels
    pixels, grids = out.reshape(height, width * channels), tiles.reshape(-1, 6, 6, channels)
    patch = np.zeros((4, long), dtype=np.float32)
    half = np.empty((6, 4, channels), dtype=np.float32)
    half_rows = half.reshape(6, long)
    for row in range(first, last):
        for column in range(columns):
            grid = grids[start + (row - first) * columns + column]
            if 4 * row + 4 <= height and 4 * column + 4 <= width:
                _a(pixels, 4 * row, 4 * column * channels, half_rows)
            else:
                _cut(out, 4 * row, 4 * column, 4, patch)
                _a(patch, 0, 0, half_rows)
            for i in range(6):
                _a(half[i], 0, 0, grid[i])


@njit(cache=True, nogil=True)
def taken_back(tiles: FloatArray, x: FloatArray, first: int, last: int, start: int) -> None:
    """The gradient of `taken`, BdBᵀ of tiles (T, 36, C), added to x (H, W, C).

    Rows next to one another overlap.
    """
    height, width, channels = x.shape
    columns, long = (width + 3) // 4, 6 * channels
    grids = tiles.reshape(-1, 6, long)
    half = np.empty((6, 6, channels), dtype=np.float32)
    half_rows = half.reshape(6, long)
    done = np.empty((6, channels), dtype=np.float32)
    for row in range(first, last):
        for column in range(columns):
            _b(grids[start + (row - first) * columns + column], half_rows)
            for i in range(6):
                y = 4 * row + i - 1
                if y < 0 or y >= height:
                    continue
                _b(half[i], done)
                for j in range(6):
                    z = 4 * column + j - 1
                    if 0 <= z < width:
                        for c in range(channels):
                            x[y, z, c] += done[j, c]


@njit(cache=True, nogil=True)
def weights(taps: FloatArray, out: FloatArray, first: int, last: int) -> None:
    """GgGᵀ of kernels first..last: taps (K, 3, 3, C) -> out (K, 36, C)."""
    kernels, _, _, channels = taps.shape
    rows, grids = taps.reshape(kernels, 3, 3 * channels), out.reshape(-1, 6, 6, channels)
    half = np.empty((6, 3, channels), dtype=np.float32)
    half_rows = half.reshape(6, 3 * channels)
    for k in range(first, last):
        _g(rows[k], half_rows)
        for i in range(6):
            _g(half[i], grids[k, i])


@njit(cache=True, nogil=True)
def weights_back(grown: FloatArray, taps: FloatArray, first: int, last: int) -> None:
    """The gradient of `weights`, GᵀdG: grown (K, 36, C) -> taps (K, 3, 3, C)."""
    channels = taps.shape[3]
    grids = grown.reshape(-1, 6, 6 * channels)
    half = np.empty((3, 6, channels), dtype=np.float32)
    half_rows = half.reshape(3, 6 * channels)
    for k in range(first, last):
        _gt(grids[k], half_rows)
        for i in range(3):
            _gt(half[i], taps[k, i])


@njit(cache=True, nogil=True)
def _cut(x: FloatArray, top: int, left: int, side: int, patch: FloatArray) -> None:
    """Copy side × side pixels of x (H, W, C) to patch (side, side · C), zeros outside."""
    height, width, channels = x.shape
    for i in range(side):
        for j in range(side):
            y, z, offset = top + i, left + j, j * channels
            if 0 <= y < height and 0 <= z < width:
                for c in range(channels):
                    patch[i, offset + c] = x[y, z, c]
            else:
                for c in range(channels):
                    patch[i, offset + c] = 0


@njit(cache=True, nogil=True)
def _bt(a: FloatArray, y: int, x: int, out: FloatArray) -> None:
    """Bᵀ times six rows of a, from (y, x) on -> out (6, n)."""
    for c in range(out.shape[1]):
        a0, a1, a2 = a[y, x + c], a[y + 1, x + c], a[y + 2, x + c]
        a3, a4, a5 = a[y + 3, x + c], a[y + 4, x + c], a[y + 5, x + c]
        even, odd = a4 - _4 * a2, a3 - _4 * a1
        near, far = a4 - a2, _2 * (a3 - a1)
        out[0, c] = _4 * a0 - _5 * a2 + a4
        out[1, c] = even + odd
        out[2, c] = even - odd
        out[3, c] = near + far
        out[4, c] = near - far
        out[5, c] = _4 * a1 - _5 * a3 + a5


@njit(cache=True, nogil=True)
def _b(a: FloatArray, out: FloatArray) -> None:
    """Ba: (6, n) -> (6, n)."""
    for c in range(a.shape[1]):
        a0, a1, a2, a3, a4, a5 = a[0, c], a[1, c], a[2, c], a[3, c], a[4, c], a[5, c]
        near, far = a1 + a2, a3 + a4
        odd, wide = a1 - a2, _2 * (a3 - a4)
        out[0, c] = _4 * a0
        out[1, c] = _4 * (a5 - odd) - wide
        out[2, c] = -_5 * a0 - _4 * near - far
        out[3, c] = odd + wide - _5 * a5
        out[4, c] = a0 + near + far
        out[5, c] = a5


@njit(cache=True, nogil=True)
def _at(a: FloatArray, out: FloatArray) -> None:
    """Aᵀa: (6, n) -> (4, n)."""
    for c in range(a.shape[1]):
        a0, a1, a2, a3, a4, a5 = a[0, c], a[1, c], a[2, c], a[3, c], a[4, c], a[5, c]
        near, far = a1 + a2, a3 + a4
        odd, wide = a1 - a2, a3 - a4
        out[0, c] = a0 + near + far
        out[1, c] = odd + _2 * wide
        out[2, c] = near + _4 * far
        out[3, c] = odd + _8 * wide + a5


@njit(cache=True, nogil=True)
def _a(a: FloatArray, y: int, x: int, out: FloatArray) -> None:
    """A times four rows of a, from (y, x) on -> out (6, n)."""
    for c in range(out.shape[1]):
        a0, a1, a2, a3 = a[y, x + c], a[y + 1, x + c], a[y + 2, x + c], a[y + 3, x + c]
        even, odd = a0 + a2, a1 + a3
        wide_even, wide_odd = a0 + _4 * a2, _2 * a1 + _8 * a3
        out[0, c] = a0
        out[1, c] = even + odd
        out[2, c] = even - odd
        out[3, c] = wide_even + wide_odd
        out[4, c] = wide_even - wide_odd
        out[5, c] = a3


@njit(cache=True, nogil=True)
def _g(a: FloatArray, out: FloatArray) -> None:
    """Ga: (3, n) -> (6, n)."""
    sixth, twelfth, part = _4 / _24, _2 / _24, np.float32(1) / _24
    for c in range(a.shape[1]):
        a0, a1, a2 = a[0, c], a[1, c], a[2, c]
        even, wide = sixth * (a0 + a2), part * a0 + sixth * a2
        out[0, c] = a0 / _4
        out[1, c] = -even - sixth * a1
        out[2, c] = -even + sixth * a1
        out[3, c] = wide + twelfth * a1
        out[4, c] = wide - twelfth * a1
        out[5, c] = a2


@njit(cache=True, nogil=True)
def _gt(a: FloatArray, out: FloatArray) -> None:
    """Gᵀa: (6, n) -> (3, n)."""
    sixth, twelfth, part = _4 / _24, _2 / _24, np.float32(1) / _24
    for c in range(a.shape[1]):
        near, far = a[1, c] + a[2, c], a[3, c] + a[4, c]
        out[0, c] = a[0, c] / _4 - sixth * near + part * far
        out[1, c] = sixth * (a[2, c] - a[1, c]) + twelfth * (a[3, c] - a[4, c])
        out[2, c] = sixth * (far - near) + a[5, c]
