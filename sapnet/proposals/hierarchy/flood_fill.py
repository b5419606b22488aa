"""Floods on the pixel grid: the cell of each point, and what is connected to it by colour."""

import numba as nb
import numpy as np

from sapnet.proposals.hierarchy.superpixels import IntArray
from sapnet.types import BoolArray, ByteArray, FloatArray

LEVELS = 255  # levels of a flood; this value itself means "not reached"
_FULL = 0.9  # a level that floods more of its cell than this shows the cell, not an object


@nb.njit(cache=True)
def cells(height: int, width: int, rows: IntArray, columns: IntArray) -> IntArray:
    """(H, W) int32: the point that is nearest in city-block distance; ties go to the first.

    Breadth first, so every cell is connected.

    Args:
        height: H.
        width: W.
        rows: (N,) int32, of the points' pixels.
        columns: (N,) int32, of the points' pixels.
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
def unlike(
    image: FloatArray, owner: IntArray, row: int, column: int
) -> tuple[FloatArray, FloatArray]:
    """Colour distances of a cell's pixels to its point -> two (H, W) tables, 0 outside the cell.

    The colour distance to the mean of the point's 3 x 3 neighbourhood; and only what of it leads
    towards the mean of the cell, which is mostly ground: a bright nucleus may hold brighter spots.
    """
    height, width, channels = image.shape
    who = owner[row, column]
    ground = np.zeros(channels, np.float64)
    count = 0
    for y in range(height):
        for x in range(width):
            if owner[y, x] == who:
                count += 1
                for c in range(channels):
                    ground[c] += image[y, x, c]
    reference = np.zeros(channels, np.float64)
    y0, y1 = max(row - 1, 0), min(row + 2, height)
    x0, x1 = max(column - 1, 0), min(column + 2, width)
    for y in range(y0, y1):
        for x in range(x0, x1):
            for c in range(channels):
                reference[c] += image[y, x, c] / ((y1 - y0) * (x1 - x0))
    axis = ground / count - reference
    axis /= np.sqrt((axis**2).sum()) + 1e-6
    distance = np.zeros((height, width), np.float32)
    towards = np.zeros((height, width), np.float32)
    for y in range(height):
        for x in range(width):
            if owner[y, x] != who:
                continue
            square, along = 0.0, 0.0
            for c in range(channels):
                d = image[y, x, c] - reference[c]
                square += d * d
                along += d * axis[c]
            distance[y, x], towards[y, x] = np.sqrt(square), max(along, 0.0)
    return distance, towards


@nb.njit(cache=True)
def flood_levels(
    cost: FloatArray, owner: IntArray, row: int, column: int, scratch: IntArray
) -> tuple[ByteArray, IntArray]:
    """Minimax flood of a point's cell -> level (H, W) uint8, area (256,) pixels per level.

    A pixel's level is the least t for which a path of the cell joins it to the point and stays
    within the cost t (0 to 254, on a square-root scale up to the highest of the cell). Pixels
    outside the cell have the level 255.

    Args:
        cost: (H, W), 0 outside the cell.
        scratch: (H * W,) int32.
    """
    height, width = cost.shape
    who = owner[row, column]
    top = max(cost.max(), np.float32(1e-6))
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
            to = max(current, int(np.sqrt(cost[v, u] / top) * (LEVELS - 1)))
            level[v, u] = to
            scratch[v * width + u] = head[to]
            head[to] = v * width + u
    return level, area


def stable_levels(area: IntArray, count: int, window: int = 12, growth: float = 1.15) -> list[int]:
    """Levels at which the flooded area grows least (as in MSER), best first, and Otsu's level.

    Args:
        area: (256,) pixels per level.
        count: how many levels at most, besides Otsu's.
        window: levels over which growth is measured.
        growth: least ratio of the areas of two of the levels.
    """
    total = np.cumsum(area[:LEVELS]).astype(np.float64)
    before = total[np.maximum(np.arange(LEVELS) - window // 2, 0)]
    after = total[np.minimum(np.arange(LEVELS) + window // 2, LEVELS - 1)]
    rate = np.where(total <= _FULL * total[-1], np.log(after / before), np.inf)
    picked = [_otsu(area[:LEVELS])]
    while len(picked) <= count:
        last = total[picked[-1]]
        rate[np.maximum(total / last, last / total) < growth] = np.inf
        best = int(np.argmin(rate))
        if rate[best] == np.inf:
            break
        picked.append(best)
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
def bounds(level: ByteArray) -> IntArray:
    """Bounding boxes of the pixels that are not above each level.

    Returns:
        (255, 4) int32 y0, y1, x0, x1, the ends exclusive. Levels below the least have y0 = height,
        x0 = width and ends of 0.
    """
    height, width = level.shape
    box = np.zeros((LEVELS, 4), np.int32)
    box[:, 0], box[:, 2] = height, width
    for y in range(height):
        for x in range(width):
            t = level[y, x]
            if t < LEVELS:
                box[t, 0], box[t, 1] = min(box[t, 0], y), max(box[t, 1], y + 1)
                box[t, 2], box[t, 3] = min(box[t, 2], x), max(box[t, 3], x + 1)
    for t in range(1, LEVELS):
        box[t, 0], box[t, 1] = min(box[t, 0], box[t - 1, 0]), max(box[t, 1], box[t - 1, 1])
        box[t, 2], box[t, 3] = min(box[t, 2], box[t - 1, 2]), max(box[t, 3], box[t - 1, 3])
    return box


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


@nb.njit(cache=True)
def grown(mask: BoolArray, within: BoolArray) -> BoolArray:
    """(H, W) mask and its 4-neighbours that lie `within`."""
    height, width = mask.shape
    wide = mask.copy()
    for y in range(height):
        for x in range(width):
            if mask[y, x] or not within[y, x]:
                continue
            for dy, dx in ((-1, 0), (1, 0), (0, -1), (0, 1)):
                v, u = y + dy, x + dx
                if 0 <= v < height and 0 <= u < width and mask[v, u]:
                    wide[y, x] = True
    return wide
