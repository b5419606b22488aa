"""Ways to change a mask so that one click is honoured, and an estimate of how good each would be.

The estimate is a ridge regression of the changed mask's true IoU on the figures in `figures`,
fitted on simulated clicks in photographs, micrographs and drawn scenes; docs/log.md has the fit.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.ndimage import binary_fill_holes, label

from sapnet.proposals.hierarchy import flood_fill
from sapnet.proposals.hierarchy.generator import normalised
from sapnet.proposals.hierarchy.superpixels import IntArray, Regions, chain, merge_tree, superpixels
from sapnet.types import BoolArray, ByteArray, FloatArray

_SCALE, _MIN_SIZE, _DENSITY, _MOST = 20.0, 12, 6000, 900  # superpixels, as in hierarchy.py
_POWER, _EDGE = 0.4, 8.0  # of the merging cost
_LEVELS = 8  # stable levels of a flood, beside Otsu's
_SPECK = 0.1  # a piece that a cut leaves over, below this share of the mask, goes too


@dataclass(frozen=True)
class View:
    """An image as it is worked on, made once for all clicks.

    Attributes:
        colour: (h, w, 3) float32, see `normalised`.
        regions: its superpixels.
        parent: their merge tree.
        down: (h-1, w) strength of the edge between a pixel and the one below.
        right: (h, w-1) the same for the pixel to the right.
        scratch: (h * w,) int32, memory for flood fills.
    """

    colour: FloatArray
    regions: Regions
    parent: IntArray
    down: FloatArray
    right: FloatArray
    scratch: IntArray

    @classmethod
    def of(cls, image: ByteArray) -> "View":
        """image: (h, w, 3) uint8 RGB."""
        colour = normalised(image)
        h, w = image.shape[:2]
        regions = superpixels(colour, _SCALE, max(_MIN_SIZE, h * w // _DENSITY), _MOST)
        none = np.zeros(len(regions.size), bool)
        return cls(
            colour=colour,
            regions=regions,
            parent=merge_tree(regions, none, _POWER, _EDGE),
            down=np.linalg.norm(np.diff(colour, axis=0), axis=2),
            right=np.linalg.norm(np.diff(colour, axis=1), axis=2),
            scratch=np.empty(h * w, np.int32),
        )


def changed(
    view: View,
    mask: BoolArray,
    place: tuple[int, int],
    kept: Sequence[tuple[int, int]],
    wholes: Sequence[BoolArray],
) -> BoolArray:
    """The mask (h, w) changed so that the pixel `place` changes sides, and those of `kept` do not.

    The best of many such masks by `estimate`.

    Args:
        wholes: masks that it might be altogether.
    """
    options = list(_options(view, mask, place, kept, wholes))
    table = figures(view, mask, place, options, wholes)
    scores = estimate(table, adding=not mask[place])
    return options[int(np.argmax(scores))]


def _options(
    view: View,
    mask: BoolArray,
    place: tuple[int, int],
    kept: Sequence[tuple[int, int]],
    wholes: Sequence[BoolArray],
) -> Iterator[BoolArray]:
    """Never none: the disc round the place is always one."""
    side = _piece(mask == mask[place], place)
    own = nearer(mask.shape, place, kept)
    for region in _regions(view, mask, side, place, wholes):
        part = region & side
        if any(part[k] for k in kept):
            part &= own
        if part[place]:
            yield _tidied(mask, _piece(part, place), place, kept)
    for whole in wholes:
        if whole[place] != mask[place] and all(whole[k] == mask[k] for k in kept):
            yield whole


def _regions(
    view: View,
    mask: BoolArray,
    side: BoolArray,
    place: tuple[int, int],
    wholes: Sequence[BoolArray],
) -> Iterator[BoolArray]:
    """Regions that may belong to the place.

    Stable levels of flood fills on its side of the mask, the growing regions of the merging tree,
    what a whole mask has there, discs, and all of its side.
    """
    owner = side.astype(np.int32)
    for cost in flood_fill.unlike(view.colour, owner, *place):
        level, area = flood_fill.flood_levels(cost * side, owner, *place, view.scratch)
        for threshold in flood_fill.stable_levels(area, _LEVELS):
            filled = flood_fill.fill_holes(level <= threshold)
            yield filled
            yield flood_fill.grown(filled & side, side)
    seed = int(view.regions.labels[place])
    for node in chain(view.parent, seed, len(view.regions.size)):
        yield node[view.regions.labels]
    for whole in wholes:
        yield whole if whole[place] else ~whole
    far = _distance(mask.shape, place)
    gap = float(far[~side].min(initial=far.max()))  # to the other side of the mask
    for radius in (2.0, gap, 1.5 * gap, 2.5 * gap):
        yield far <= max(radius, 1.0)
    if mask[place]:
        yield side


def _tidied(
    mask: BoolArray, part: BoolArray, place: tuple[int, int], kept: Sequence[tuple[int, int]]
) -> BoolArray:
    """The mask with the part on the other side: new holes filled, specks that a cut leaves gone."""
    out = mask ^ part
    if not mask[place]:
        holes = binary_fill_holes(out) & ~out & ~binary_fill_holes(mask)
        for k in kept:
            if holes[k]:
                holes &= ~_piece(holes, k)
        return np.asarray(out | holes)
    pieces, count = label(out)
    if count > 1:
        sizes = np.bincount(pieces.ravel(), minlength=count + 1)
        small = sizes < _SPECK * mask.sum()
        small[[0, int(sizes[1:].argmax()) + 1, *(int(pieces[k]) for k in kept)]] = False
        out &= ~small[pieces]
    return out


def figures(
    view: View,
    mask: BoolArray,
    place: tuple[int, int],
    options: Sequence[BoolArray],
    wholes: Sequence[BoolArray],
) -> FloatArray:
    """The figures of each changed mask by which it is estimated.

    Returns:
        (n, 13) float32: the strength of the outline that it draws, of the one that it gives up, and
        of its whole outline; how compact it is; how large the change is against the mask (log, and
        its square); how far off the place the change's centre is, and how deep in the change the
        place lies; whether the change has the mask's colour rather than that of its surroundings,
        and how far the two are apart; how far the other options agree with it, and the wholes (on
        average, and the one that agrees most).
    """
    far = _distance(mask.shape, place)
    area = max(int(mask.sum()), 1)
    old = _outline(mask)
    inner = _mean_colour(view, mask)
    rows = []
    for option in options:
        change = option ^ mask
        count = max(int(change.sum()), 1)
        lines = _outline(option)
        drawn = [line & ~before for line, before in zip(lines, old, strict=True)]
        gone = [before & ~line for line, before in zip(lines, old, strict=True)]
        border = sum(int(line.sum()) for line in lines)
        ys, xs = change.nonzero()
        away = np.hypot(ys.mean() - place[0], xs.mean() - place[1]) if ys.size else 0.0
        depth = float(far[~change].min(initial=far.max()))
        share = np.log(count / area + 1e-3)
        ring = _mean_colour(view, flood_fill.grown(option, ~option) & ~option)
        own = _mean_colour(view, change)
        near, off = np.linalg.norm(own - inner), np.linalg.norm(own - ring)
        alike = (near - off) / (near + off + 1.0)
        rows.append(
            [
                _strength(view, drawn),
                _strength(view, gone),
                _strength(view, lines),
                4 * np.pi * int(option.sum()) / max(border, 1) ** 2,
                share,
                share**2,
                min(away / np.sqrt(count), 2.0),
                depth / np.sqrt(count / np.pi),
                -alike if mask[place] else alike,
                _apart(view, option, ring),
            ]
        )
    agreed = _overlaps(options, options).mean(axis=1)
    bag = _overlaps(options, wholes) if wholes else np.zeros((len(options), 1))
    columns = [np.array(rows), agreed[:, None], bag.mean(axis=1)[:, None], bag.max(axis=1)[:, None]]
    return np.concatenate(columns, axis=1).astype(np.float32)


# in the order of `figures`: of changes that add, and of changes that take away
_ADDING = np.array(
    [
        0.016,
        0.030,
        0.029,
        -0.000,
        -0.027,
        -0.009,
        0.063,
        0.074,
        -0.041,
        -0.050,
        0.294,
        0.033,
        0.321,
    ],
    np.float32,
)
_TAKING = np.array(
    [-0.040, 0.012, 0.184, -0.023, 0.062, 0.005, 0.051, 0.067, -0.115, 0.113, 0.772, -0.117, 0.122],
    np.float32,
)


def estimate(table: FloatArray, adding: bool) -> FloatArray:
    """(n,) the IoU to expect of each changed mask with its object, but for a constant."""
    return np.asarray(table @ (_ADDING if adding else _TAKING), np.float32)


def _overlaps(masks: Sequence[BoolArray], others: Sequence[BoolArray]) -> FloatArray:
    """(n, m) IoU."""
    one, two = (np.array([m.ravel() for m in group], np.float32) for group in (masks, others))
    shared = one @ two.T
    joined = one.sum(axis=1)[:, None] + two.sum(axis=1)[None, :] - shared
    return np.asarray(shared / np.maximum(joined, 1), np.float32)


def nearer(
    shape: tuple[int, ...], place: tuple[int, int], others: Sequence[tuple[int, int]]
) -> BoolArray:
    """(h, w) the pixels that are nearer to the place than to any of the others."""
    far = _distance(shape, place)
    out = np.ones(shape, bool)
    for other in others:
        out &= far < _distance(shape, other)
    return out


def _distance(shape: tuple[int, ...], place: tuple[int, int]) -> FloatArray:
    rows, columns = np.ogrid[: shape[0], : shape[1]]
    return np.hypot(rows - place[0], columns - place[1]).astype(np.float32)


def _piece(mask: BoolArray, place: tuple[int, int]) -> BoolArray:
    """The connected piece of the mask that holds the place."""
    pieces, _ = label(mask)
    return np.asarray(pieces == pieces[place])


def _outline(mask: BoolArray) -> tuple[BoolArray, BoolArray]:
    """Where the mask ends: between a pixel and the one below, beside it."""
    return mask[1:] != mask[:-1], mask[:, 1:] != mask[:, :-1]


def _strength(view: View, lines: Sequence[BoolArray]) -> float:
    """Log of the mean strength of the image's edges along outlines."""
    edges = [view.down[lines[0]], view.right[lines[1]]]
    count = sum(e.size for e in edges)
    return float(np.log1p(sum(e.sum() for e in edges) / count)) if count else 0.0


def _mean_colour(view: View, mask: BoolArray) -> FloatArray:
    colours = view.colour[mask]
    return colours.mean(axis=0) if len(colours) else np.zeros(3, np.float32)


def _apart(view: View, mask: BoolArray, ring: FloatArray) -> float:
    """How far the colour of a mask is from that of its surroundings, in its own deviations."""
    colours = view.colour[mask]
    if not len(colours):
        return 0.0
    gap = float(np.linalg.norm(colours.mean(axis=0) - ring))
    return gap / (gap + float(np.linalg.norm(colours.std(axis=0))) + 1.0)
