"""Floods on the pixel grid: the cell of each point, and what is connected to it by colour."""

import numba as nb
import numpy as np

from sapnet.proposals.regions import IntArray
from sapnet.types import BoolArray, ByteArray, FloatArray

LEVELS = 255  # levels of a flood; this value itself means "not reached"
_FULL = 0.9  # a level that floods more of its cell than this shows the cell, not an object


@nb.njit(cache=True)
def cells(height: int, width: int, rows: IntArray, columns: IntArray) -> IntArray:
    """(H, W) int32: the point that is nearest in city-block distance; ties go to the first.

    rows, columns: (N,) int32 pixels of the points. Breadth first, so every cell is connected.
    """
    owner = np.full((height, width), -1, np.int32)
    queue = np.empty(height * width, np.int32)
    tail = 0
    for i in range(rows.size):
        if owner[rows[i], columns[i]] < 0:
            owner[rows[i], columns[i]] = i
            queue[tail] = rows[i] * width + columns[i]
            tail += 1
    head = 0
    while head < tail:
        y, x = queue[head] // width, queue[head] % width
        head += 1
        for dy, dx in ((-1, 0), (1, 0), (0, -1), (0, 1)):
            v, u = y + dy, x + dx
            if 0 <= v < height and 0 <= u < width and owner[v, u] < 0:
                owner[v, u] = owner[y, x]
                queue[tail] = v * width + u
                tail += 1
    return owner


@nb.njit(cache=True)
def flood(
    image: FloatArray, owner: IntArray, row: int, column: int, scratch: IntArray
) -> tuple[ByteArray, IntArray]:
    """Minimax flood of a point's cell -> level (H, W) uint8, area (256,) pixels per level.

    A pixel's level is the least t for which a path of the cell joins it to the point and stays
    within the colour distance of t (0 to 254, on a square-root scale) of the point's 3 x 3
    neighbourhood. Pixels outside the cell have the level 255. scratch: (H * W,) int32.
    """
    height, width, channels = image.shape
    reference = np.zeros(channels, np.float32)
    y0, y1 = max(row - 1, 0), min(row + 2, height)
    x0, x1 = max(column - 1, 0), min(column + 2, width)
    for y in range(y0, y1):
        for x in range(x0, x1):
            for c in range(channels):
                reference[c] += image[y, x, c] / ((y1 - y0) * (x1 - x0))
    who = owner[row, column]
    top = 1e-6
    for y in range(height):
        for x in range(width):
            if owner[y, x] == who:
                top = max(top, _distance(image, y, x, reference))
    level = np.full((height, width), LEVELS, np.uint8)
    area = np.zeros(LEVELS + 1, np.int32)
    head = np.full(LEVELS, -1, np.int32)  # a linked list of pixels per level
    head[0], scratch[row * width + column], level[row, column] = row * width + column, -1, 0
    current = 0
    while current < LEVELS:
        pixel = head[current]
        if pixel < 0:
            current += 1
            continue
        head[current] = scratch[pixel]
        area[current] += 1
        y, x = pixel // width, pixel % width
        for dy, dx in ((-1, 0), (1, 0), (0, -1), (0, 1)):
            v, u = y + dy, x + dx
            if not (0 <= v < height and 0 <= u < width):
                continue
            if level[v, u] != LEVELS or owner[v, u] != who:
                continue
            share = np.sqrt(_distance(image, v, u, reference) / top)
            to = max(current, int(share * (LEVELS - 1)))
            level[v, u] = to
            scratch[v * width + u] = head[to]
            head[to] = v * width + u
    return level, area


@nb.njit(cache=True, inline="always")
def _distance(image: FloatArray, y: int, x: int, reference: FloatArray) -> float:
    total = np.float32(0)
    for c in range(reference.size):
        d = image[y, x, c] - reference[c]
        total += d * d
    return np.sqrt(total)


def stable_levels(area: IntArray, count: int, window: int = 12, growth: float = 1.15) -> list[int]:
    """Levels at which the flooded area grows least (as in MSER), best first, and Otsu's level.

    area: pixels per level. Two of the levels differ in area by `growth` at least.
    """
    total = np.cumsum(area[:LEVELS]).astype(np.float64)
    before = total[np.maximum(np.arange(LEVELS) - window // 2, 0)]
    after = total[np.minimum(np.arange(LEVELS) + window // 2, LEVELS - 1)]
    rate = np.log(after / before)
    picked = [_otsu(area[:LEVELS])]
    for level in np.argsort(rate, kind="stable"):
        if len(picked) > count:
            break
        ratio = [max(total[level] / total[p], total[p] / total[level]) for p in picked]
        if min(ratio) >= growth and total[level] <= _FULL * total[-1]:
            picked.append(int(level))
    return picked


def _otsu(histogram: IntArray) -> int:
    """The level that splits a histogram at the largest variance between the classes."""
    counts = histogram.astype(np.float64)
    below = np.cumsum(counts)
    moment = np.cumsum(counts * np.arange(len(counts)))
    above = below[-1] - below
    gap = moment / np.maximum(below, 1) - (moment[-1] - moment) / np.maximum(above, 1)
    return int(np.argmax(below * above * gap**2))


@nb.njit(cache=True)
def bounds(level: ByteArray, t: int) -> tuple[int, int, int, int]:
    """(y0, y1, x0, x1) of the pixels that are not above a level; the ends lie just behind."""
    height, width = level.shape
    y0, y1, x0, x1 = height, 0, width, 0
    for y in range(height):
        for x in range(width):
            if level[y, x] <= t:
                y0, y1 = min(y0, y), max(y1, y + 1)
                x0, x1 = min(x0, x), max(x1, x + 1)
    return y0, y1, x0, x1


@nb.njit(cache=True)
def fill_holes(mask: BoolArray) -> BoolArray:
    """Copy of an (H, W) mask in which background that no border pixel reaches is filled."""
    height, width = mask.shape
    outside = np.zeros((height, width), np.bool_)
    stack = np.empty(height * width, np.int32)
    used = 0
    for y in range(height):
        for x in range(width):
            border = y == 0 or x == 0 or y == height - 1 or x == width - 1
            if border and not mask[y, x]:
                outside[y, x] = True
                stack[used] = y * width + x
                used += 1
    while used > 0:
        used -= 1
        y, x = stack[used] // width, stack[used] % width
        for dy, dx in ((-1, 0), (1, 0), (0, -1), (0, 1)):
            v, u = y + dy, x + dx
            if not (0 <= v < height and 0 <= u < width):
                continue
            if not mask[v, u] and not outside[v, u]:
                outside[v, u] = True
                stack[used] = v * width + u
                used += 1
    return ~outside
