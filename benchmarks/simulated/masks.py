"""Masks as a promptable segmenter gives them, made from a true mask: wholes, parts, bleeds.

Every border is the true one, moved: a pixel at signed distance `depth` from it belongs to the mask
where depth + a·push > 0, with a smooth `push` (noise, the image's colours, a lean to one side) and
such an a that the mask has a given IoU with the truth. Objects are worked on in a
window around them, large ones at reduced size.
"""

import numpy as np
from scipy.ndimage import label

from sapnet.types import BoolArray, FloatArray
from simulated.distance_fields import View, closest, distance

_WHOLE_IOU = (0.8, 0.95)
_PART_SHARE = (0.15, 0.65)  # of the true area
_TRIES = 6


def wholes(view: View, rng: np.random.Generator, count: int) -> list[BoolArray]:
    """The object with borders that are softly wrong, in part in the same way for all."""
    common = view.noise(rng)
    shared = rng.uniform(0.0, 0.6)
    colour = rng.uniform(0.0, 1.0)
    masks = []
    for _ in range(count):
        noise = np.sqrt(shared) * common + np.sqrt(1 - shared) * view.noise(rng)
        push = noise + colour * view.likeness + rng.normal(0, 0.4)
        masks.append(_moved(view, push, rng.uniform(*_WHOLE_IOU)))
    return masks


def bleeds(
    view: View, rng: np.random.Generator, count: int, iou: tuple[float, float], alike: float
) -> list[BoolArray]:
    """The object and some ground: it grows to one side, sooner where the colours are its own.

    iou: the range of the object's mean IoU to the truth. alike: in [0, 1], how much the masks of
    one object have in common.
    """
    centre, turn, common = rng.uniform(*iou), rng.uniform(0, 2 * np.pi), view.noise(rng)
    # slower with the distance, so that the window's own border is seldom reached
    slowed = np.clip(1 + view.depth / (1.2 * view.radius + 4), 0.1, 1)
    near = np.exp(-np.abs(view.depth) / max(view.radius, 1.0))
    masks = []
    for _ in range(count):
        angle = turn + (1 - alike) * rng.normal(0, 1.5)
        noise = alike * common + (1 - alike) * view.noise(rng)
        push = slowed * (0.8 + 0.6 * view.lean(angle) + 0.8 * view.likeness + 0.5 * noise)
        push = np.maximum(push, 0.05) + 0.15 * near * view.noise(rng)
        target = np.clip(centre + (1 - alike) * rng.uniform(-0.2, 0.2), 0.25, 0.8)
        masks.append(_moved(view, push, float(target)))
    return masks


def parts(
    view: View, rng: np.random.Generator, count: int, bases: list[BoolArray]
) -> list[BoolArray]:
    """Connected pieces of `bases` that hold the point: a few cuts, each seen several times."""
    found: list[BoolArray] = []
    for _ in range(_TRIES):
        field, share, low = _cut(view, rng)
        for _ in range(int(rng.integers(2, 6))):
            if len(found) == count:
                return found
            base = bases[int(rng.integers(len(bases)))]
            jittered = field + 0.08 * view.radius * view.noise(rng)
            piece = _piece(view, base, jittered, share * rng.uniform(0.9, 1.1), low)
            area = np.count_nonzero(piece) / np.count_nonzero(view.truth)
            if _PART_SHARE[0] <= area <= _PART_SHARE[1]:
                found.append(piece)
    return found


def _cut(view: View, rng: np.random.Generator) -> tuple[FloatArray, float, float]:
    """A field to cut along, the share to keep, and where in the ranks the piece begins.

    By colour: the pixels most like the point's. Along an axis: a slice that holds the point,
    more often one that ends with the object than one from its middle.
    """
    share = rng.uniform(*_PART_SHARE)
    rows, columns = view.grid()
    row, column = closest(view.truth, view.point)
    if rng.random() < 0.5:
        step = distance(view.colours, view.colours[row, column])
        spread = max(float(step[view.truth].std()), 0.01)
        away = np.hypot(rows - row, columns - column)
        field = np.asarray(view.radius * step / spread + 0.5 * away, np.float32)
        return field, share, 0.0
    inside = np.stack([rows[view.truth], columns[view.truth]])
    _, axes = np.linalg.eigh(np.cov(inside) + np.eye(2) if inside.shape[1] > 1 else np.eye(2))
    tilt, which = rng.normal(0, 0.3), int(rng.random() < 0.7)  # the longer axis comes last
    axis = axes[:, which] * np.cos(tilt) + axes[:, 1 - which] * np.sin(tilt)
    axis *= rng.choice([-1.0, 1.0])
    field = np.float32(axis[0]) * rows + np.float32(axis[1]) * columns
    field = field + 0.1 * view.radius * view.noise(rng)
    at = float((field[view.truth] < field[row, column]).mean())
    low = float(np.clip(rng.uniform(-0.5, 1.5) * share, 0, share))
    return field, share, float(np.clip(at - low, 0, 1 - share))


def _piece(view: View, base: BoolArray, field: FloatArray, share: float, low: float) -> BoolArray:
    """The connected piece of `base` at the point, of the ranks low to low + share of `field`."""
    if not base.any():
        return base
    ranked = np.sort(field[base])
    first, last = (round(rank * (len(ranked) - 1)) for rank in (low, min(low + share, 1.0)))
    kept = base & (field >= ranked[first]) & (field <= ranked[last])
    pieces, _ = label(kept)
    piece: BoolArray = pieces == pieces[closest(kept, view.point)]
    return piece


def _moved(view: View, push: FloatArray, iou: float) -> BoolArray:
    """The mask depth + a·push > 0, with the largest a whose IoU with the truth is above `iou`.

    One pixel changes at least, if any can. What does not touch the object is left out."""
    with np.errstate(divide="ignore", invalid="ignore"):
        when = -view.depth / push  # the a at which a pixel changes sides, if it ever does
    changing = (when > 0) & (when < 4 * view.radius + 4)
    inside = view.truth[changing]
    order = np.argsort(when[changing])
    lost = np.cumsum(inside[order])
    area = np.count_nonzero(view.truth)
    ious = (area - lost) / (area + np.arange(1, len(lost) + 1) - lost)
    count = int(np.searchsorted(-ious, -iou))  # how many pixels change
    flips = np.flatnonzero(changing)[order[: max(count, 1)]]
    mask = view.truth.copy()
    mask.flat[flips] ^= True
    if not mask.any():
        return view.truth
    pieces, number = label(mask)
    if number > 1:
        touching = np.zeros(number + 1, bool)
        touching[pieces[mask & view.truth]] = True
        touching[0] = False
        mask = touching[pieces]
    return mask if mask.any() else view.truth
