"""Masks as polygons that give the same pixels back, holes and all.

An outline runs along the edges of pixels, so its corners are whole numbers, and whoever fills it by
the even-odd rule at pixel centres (pycocotools does) gets the mask back exactly. A hole is cut open
to the outline round it by a slit of no width, walked there and back: one polygon a connected part,
and nothing filled that was open. Pixels that touch at a corner alone are two parts.

For programs that paint the outline itself as well (OpenCV's fillPoly, in the YOLO family), the same
outline is drawn through the centres of the mask's outermost pixels.
"""

from dataclasses import dataclass, field
from itertools import pairwise

import numpy as np
import numpy.typing as npt

from sapnet.types import BoolArray

Points = npt.NDArray[np.float64]


@dataclass
class _Path:
    """Closed paths as a linked list.

    Attributes:
        x, y: corner.
        dx, dy: from there to the centre of the pixel of the mask that it belongs to, ±0.5.
        tied: ends of slits, which stay where they are.
    """

    x: list[int]
    y: list[int]
    dx: list[float]
    dy: list[float]
    following: list[int]
    tied: set[int] = field(default_factory=set)

    def insert(self, before: int, x: int, y: int, dx: float, dy: float) -> int:
        node = len(self.x)
        self.x.append(x)
        self.y.append(y)
        self.dx.append(dx)
        self.dy.append(dy)
        self.following.append(self.following[before])
        self.following[before] = node
        self.tied.add(node)
        return node


def outlines(mask: BoolArray, *, simplify: float = 0.0, centres: bool = False) -> list[Points]:
    """The outlines of a mask (h, w), one polygon for each connected part.

    Args:
        simplify: how far, in pixels, the outline may leave the true one (Douglas and Peucker's line
            simplification); 0 keeps it exact.
        centres: through the centres of pixels instead of along their edges; the coordinates of a
            centre are those of its pixel plus 0.5.

    Returns:
        Polygons (P, 2) of x y in pixels, the topmost first, not closed by their first point; none
        for an empty mask.
    """
    padded = np.pad(mask.astype(np.int8), 1)
    path, rings = _rings(padded)
    outer = [(node, ring) for node, ring in rings if padded[path.y[node] + 1, path.x[node] + 1]]
    holes = [(node, ring) for node, ring in rings if not padded[path.y[node] + 1, path.x[node] + 1]]
    _cut_open(path, holes, padded)
    shift = 1.0 if centres else 0.0
    return [_walk(path, node, shift, simplify) for node, _ in outer]


def _rings(padded: npt.NDArray[np.int8]) -> tuple[_Path, list[tuple[int, list[int]]]]:
    """The outlines of parts and holes, clockwise around the parts (y goes down).

    Each comes with its topmost corner's node and its nodes.

    Corners that lie in a row are the ends of horizontal edges, two and two; those in a column, of
    vertical ones. Where two pixels touch at a corner there are two corners, one for each pixel.

    Args:
        padded: the mask with a pixel of background around.
    """
    nw, ne, sw, se = padded[:-1, :-1], padded[:-1, 1:], padded[1:, :-1], padded[1:, 1:]
    count = nw + ne + sw + se
    falling, rising = (nw & se) == 1, (ne & sw) == 1
    pinched = (count == 2) & (falling | rising)
    ys, xs = np.nonzero((count % 2 == 1) | pinched)
    again = np.where(pinched[ys, xs], 2, 1)
    ys, xs = np.repeat(ys, again), np.repeat(xs, again)
    second = np.zeros(len(xs), np.bool_)
    second[1:] = (ys[1:] == ys[:-1]) & (xs[1:] == xs[:-1])
    down = second ^ (pinched[ys, xs] & rising[ys, xs])  # which of the two has the edge below
    order = np.lexsort((down, ys, xs))
    vertical = np.empty(len(xs), np.int64)
    vertical[order] = np.arange(len(xs))
    vertical = order[vertical ^ 1]

    # Where the mask is, as seen from the corner: the side of its horizontal and vertical edge.
    left = np.arange(len(xs)) % 2 == 1  # its horizontal edge goes to the left
    below = padded[ys + 1, np.where(left, xs, xs + 1)] == 1
    upwards = np.empty(len(xs), np.bool_)
    upwards[order] = np.arange(len(xs)) % 2 == 1
    right = padded[np.where(upwards, ys, ys + 1), xs + 1] == 1
    path = _Path(
        xs.tolist(),
        ys.tolist(),
        np.where(right, 0.5, -0.5).tolist(),
        np.where(below, 0.5, -0.5).tolist(),
        [-1] * len(xs),
    )
    rings, along, below_list = [], vertical.tolist(), below.tolist()
    for start in range(len(path.x)):
        if path.following[start] >= 0:
            continue
        ring, node, clockwise = [], start, below_list[start]
        while True:
            other = node ^ 1
            ring += [node, other]
            node = along[other]
            if node == start:
                break
        if not clockwise:
            ring = ring[:1] + ring[:0:-1]
        for here, there in zip(ring, ring[1:] + ring[:1], strict=True):
            path.following[here] = there
        rings.append((start, ring))
    return path, rings


def _cut_open(
    path: _Path, holes: list[tuple[int, list[int]]], padded: npt.NDArray[np.int8]
) -> None:
    """Join each hole to the outline above it: up from its topmost corner, through the mask."""
    if not holes:
        return
    width = padded.shape[1]
    of_row = np.asarray(path.y) * width + np.asarray(path.x)  # corners are sorted by this
    slits: dict[int, list[tuple[int, int, int, int]]] = {}
    for start, ring in holes:
        x, y = path.x[start], path.y[start]
        top = int(np.flatnonzero(padded[: y + 1, x + 1] == 0)[-1])
        corner = (
            int(np.searchsorted(of_row, top * width + x, side="right")) - 1
        )  # of the edge above
        before = corner if path.following[corner] == corner ^ 1 else corner ^ 1
        slits.setdefault(before, []).append((abs(x - path.x[before]), x, top, ring[0]))
    last = {ring[0]: ring[-1] for _, ring in holes}
    for before, cuts in slits.items():
        for _, x, top, start in sorted(cuts, reverse=True):
            y = path.y[start]
            ending = path.insert(before, x, top, 0.5, 0.5)
            up = path.insert(before, x, y, 0.5, -0.5)
            down = path.insert(before, x, y, 0.5, -0.5)
            path.insert(before, x, top, 0.5, 0.5)
            path.following[down] = start
            path.following[last[start]] = up
            assert path.following[up] == ending


def _walk(path: _Path, start: int, shift: float, simplify: float) -> Points:
    nodes, node = [start], path.following[start]
    while node != start:
        nodes.append(node)
        node = path.following[node]
    points = np.empty((len(nodes), 2))
    points[:, 0] = [path.x[n] + shift * path.dx[n] for n in nodes]
    points[:, 1] = [path.y[n] + shift * path.dy[n] for n in nodes]
    if simplify > 0:
        tied = [i for i, n in enumerate(nodes) if n in path.tied]
        points = _simplified(points, tied, simplify)
    return _without_repeats(points)


def _simplified(points: Points, tied: list[int], tolerance: float) -> Points:
    """Douglas and Peucker's line simplification, between the points that are tied.

    A ring without any is cut in two where it is widest.
    """
    away = int(((points - points[0]) ** 2).sum(axis=1).argmax())
    closed = np.vstack([points, points[:1]])
    selected = np.zeros(len(closed), np.bool_)
    stops = sorted({0, away, len(points), *tied})
    selected[stops] = True
    spans = list(pairwise(stops))
    while spans:
        first, last = spans.pop()
        if last - first < 2:
            continue
        between = closed[first + 1 : last]
        distances = _distances(between, closed[first], closed[last])
        far = int(distances.argmax())
        if distances[far] > tolerance:
            middle = first + 1 + far
            selected[middle] = True
            spans += [(first, middle), (middle, last)]
    kept = closed[:-1][selected[:-1]]
    return kept if len(kept) >= 3 else points


def _distances(points: Points, start: Points, end: Points) -> Points:
    """From the line between two points, ends included."""
    along = end - start
    length = float(along @ along)
    share = np.clip((points - start) @ along / length, 0, 1) if length else np.zeros(len(points))
    away = points - start - share[:, None] * along
    return np.asarray(np.hypot(away[:, 0], away[:, 1]))


def _without_repeats(points: Points) -> Points:
    """Equal neighbours are one point; at least three are left, as every reader wants them."""
    moved = (points != np.roll(points, 1, axis=0)).any(axis=1)
    kept = points[moved] if moved.any() else points[:1]
    return np.concatenate([kept, np.repeat(kept[-1:], max(0, 3 - len(kept)), axis=0)])
