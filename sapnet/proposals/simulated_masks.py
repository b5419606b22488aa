"""Masks as a promptable segmenter gives them, made from a true mask: wholes, parts, bleeds.

Every border is the true one, moved: a pixel at signed distance `depth` from it belongs to the mask
where depth + a·push > 0, with a smooth `push` (noise, the image's colours, a lean to one side) and
the least a that brings the mask down to a given IoU with the truth. Objects are worked on in a
window around them, large ones at reduced size.
"""

from dataclasses import dataclass

import numpy as np
from PIL import Image
from pycocotools import mask as coco_mask
from scipy.ndimage import distance_transform_edt, gaussian_filter, label

from sapnet.proposals.bags import near_point, point_pixel
from sapnet.types import BoolArray, ByteArray, FloatArray, PointAnnotation, Rle

_WORK = 128  # pixels: the longer side of a window, at most
_MARGIN = 1.2  # of the window around the box, over the object's radius
_WHOLE_IOU = (0.8, 0.95)
_PART_SHARE = (0.15, 0.65)  # of the true area
_TRIES = 6


@dataclass(frozen=True, slots=True)
class View:
    """One object in its window. All arrays are (h, w), at the window's working size.

    top, left, size: the window's corner and (h, w) in the image, pixels. depth: signed distance to
    the true border, working pixels, positive inside. likeness: in [-1, 1], how much the colours are
    the object's rather than the ground's. colours: (h, w, 3) in [0, 1]. point: (row, column) of
    the annotated point, at working size. radius: of a disc as large, working pixels.
    """

    top: int
    left: int
    size: tuple[int, int]
    depth: FloatArray
    truth: BoolArray
    likeness: FloatArray
    colours: FloatArray
    point: tuple[float, float]
    radius: float

    @classmethod
    def of(cls, image: ByteArray, truth: BoolArray, annotation: PointAnnotation) -> "View":
        """image: (H, W, 3) uint8 RGB. truth: (H, W), not empty."""
        rows, columns = np.flatnonzero(truth.any(axis=1)), np.flatnonzero(truth.any(axis=0))
        row, column = point_pixel(annotation.x, annotation.y, truth.shape)
        area = np.count_nonzero(truth[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1])
        margin = int(_MARGIN * np.sqrt(area / np.pi)) + 4
        top, left = max(min(rows[0], row) - margin, 0), max(min(columns[0], column) - margin, 0)
        window = np.s_[
            top : max(rows[-1], row) + 1 + margin, left : max(columns[-1], column) + 1 + margin
        ]
        inner = truth[window]
        ratio = min(1.0, _WORK / max(inner.shape))
        size = max(round(inner.shape[0] * ratio), 1), max(round(inner.shape[1] * ratio), 1)
        small = _resized(inner.astype(np.float32), size) > 0.5
        if not small.any():
            small = _resized(inner.astype(np.float32), size) > 0
        pixels = Image.fromarray(image[window]).resize(size[::-1], Image.Resampling.BOX)
        colours = gaussian_filter(np.asarray(pixels, np.float32) / 255, (0.7, 0.7, 0))
        depth = _depth(small)
        radius = float(np.sqrt(np.count_nonzero(small) / np.pi))
        return cls(
            top=int(top),
            left=int(left),
            size=inner.shape,
            depth=depth,
            truth=small,
            likeness=_likeness(colours, small, depth, radius),
            colours=colours,
            point=((annotation.y - top) * ratio, (annotation.x - left) * ratio),
            radius=radius,
        )

    def rle(self, mask: BoolArray, annotation: PointAnnotation, image_size: tuple[int, int]) -> Rle:
        """A working mask at image size; where it misses the point, the point's pixel is added."""
        if mask.shape != self.size:
            mask = _resized(gaussian_filter(mask.astype(np.float32), 0.7), self.size) > 0.5
        x, y = annotation.x - self.left, annotation.y - self.top
        if not near_point(mask[None], x, y)[0]:
            mask = mask.copy()
            mask[point_pixel(x, y, self.size)] = True
        return placed(mask, self.top, self.left, image_size)


def wholes(view: View, rng: np.random.Generator, count: int) -> list[BoolArray]:
    """The object with borders that are softly wrong, in part in the same way for all."""
    common = _noise(view, rng)
    shared = rng.uniform(0.3, 0.8)
    colour = rng.uniform(0.0, 1.0)
    masks = []
    for _ in range(count):
        noise = np.sqrt(shared) * common + np.sqrt(1 - shared) * _noise(view, rng)
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
    centre, turn, common = rng.uniform(*iou), rng.uniform(0, 2 * np.pi), _noise(view, rng)
    masks = []
    for _ in range(count):
        angle = turn + (1 - alike) * rng.normal(0, 1.5)
        noise = alike * common + (1 - alike) * _noise(view, rng)
        push = 0.8 + 0.9 * _lean(view, angle) + 0.8 * view.likeness + 0.5 * noise
        border = 0.15 * _noise(view, rng) * np.exp(-np.abs(view.depth) / max(view.radius, 1.0))
        target = centre + (1 - alike) * rng.uniform(-0.2, 0.2)
        masks.append(
            _moved(view, np.maximum(push, 0.05) + border, float(np.clip(target, 0.25, 0.8)))
        )
    return masks


def parts(
    view: View, rng: np.random.Generator, count: int, bases: list[BoolArray]
) -> list[BoolArray]:
    """Connected pieces of `bases` that hold the point: a few cuts, each seen several times."""
    found: list[BoolArray] = []
    for _ in range(_TRIES):
        field, share, low = _cut(view, rng)
        for _ in range(int(rng.integers(2, 4))):
            if len(found) == count:
                return found
            base = bases[int(rng.integers(len(bases)))]
            jittered = field + 0.1 * view.radius * _noise(view, rng)
            piece = _piece(view, base, jittered, share * rng.uniform(0.85, 1.15), low)
            area = np.count_nonzero(piece) / np.count_nonzero(view.truth)
            if _PART_SHARE[0] <= area <= _PART_SHARE[1]:
                found.append(piece)
    return found


def placed(mask: BoolArray, top: int, left: int, size: tuple[int, int]) -> Rle:
    """The compressed RLE at image `size` of a window's mask; the rest of the image is empty."""
    padded = np.zeros((mask.shape[1], mask.shape[0] + 2), np.int8)
    padded[:, 1:-1] = mask.T
    columns, rows = np.nonzero(np.diff(padded, axis=1))
    changes = (left + columns) * size[0] + top + rows
    # where a run goes on from the foot of one column to the head of the next, both changes cancel
    same = np.flatnonzero(changes[1:] == changes[:-1])
    changes = np.delete(changes, np.concatenate([same, same + 1]))
    runs = np.diff(changes, prepend=0, append=size[0] * size[1])
    packed = coco_mask.frPyObjects({"size": list(size), "counts": runs.tolist()}, *size)
    return Rle(size=list(size), counts=packed["counts"].decode("ascii"))


def _cut(view: View, rng: np.random.Generator) -> tuple[FloatArray, float, float]:
    """A field to cut along, the share to keep, and where in the ranks the piece begins.

    By colour: the pixels most like the point's. Along an axis: a slice that holds the point,
    more often one that ends with the object than one from its middle.
    """
    share = rng.uniform(*_PART_SHARE)
    rows, columns = np.indices(view.depth.shape, dtype=np.float32)
    row, column = _closest(view.truth, view.point)
    if rng.random() < 0.5:
        step = _distance(view.colours, view.colours[row, column])
        spread = max(float(step[view.truth].std()), 0.01)
        away = np.hypot(rows - row, columns - column)
        return view.radius * step / spread + 0.5 * away, share, 0.0
    inside = np.stack([rows[view.truth], columns[view.truth]])
    _, axes = np.linalg.eigh(np.cov(inside) + np.eye(2) if inside.shape[1] > 1 else np.eye(2))
    tilt, which = rng.normal(0, 0.3), int(rng.random() < 0.7)  # the longer axis comes last
    axis = axes[:, which] * np.cos(tilt) + axes[:, 1 - which] * np.sin(tilt)
    axis *= rng.choice([-1.0, 1.0])
    field = (rows * axis[0] + columns * axis[1] + 0.1 * view.radius * _noise(view, rng)).astype(
        np.float32
    )
    at = float((field[view.truth] < field[row, column]).mean())
    low = float(np.clip(rng.uniform(-0.5, 1.5) * share, 0, share))
    return field, share, float(np.clip(at - low, 0, 1 - share))


def _piece(view: View, base: BoolArray, field: FloatArray, share: float, low: float) -> BoolArray:
    """The connected piece of `base` at the point, of the ranks low to low + share of `field`."""
    values = field[base]
    if not values.size:
        return base
    bounds = np.quantile(values, [low, min(low + share, 1.0)])
    kept = base & (field >= bounds[0]) & (field <= bounds[1])
    pieces, _ = label(kept)
    piece: BoolArray = pieces == pieces[_closest(kept, view.point)]
    return piece


def _moved(view: View, push: FloatArray, iou: float) -> BoolArray:
    """The mask depth + a·push > 0, with the least a whose IoU with the truth is `iou` or less."""
    with np.errstate(divide="ignore", invalid="ignore"):
        when = -view.depth / push  # the a at which a pixel changes sides, if it ever does
    changing = (when > 0) & (when < 4 * view.radius + 4)
    inside = view.truth[changing]
    order = np.argsort(when[changing])
    lost = np.cumsum(inside[order])
    area = np.count_nonzero(view.truth)
    ious = (area - lost) / (area + np.arange(1, len(lost) + 1) - lost)
    count = int(np.searchsorted(-ious, -iou))  # how many pixels change: nearest from above
    flips = np.flatnonzero(changing)[order[: max(count, 1)]]
    mask = view.truth.copy()
    mask.flat[flips] ^= True
    if not mask.any():
        return view.truth
    pieces, number = label(mask)
    if number > 1:  # what bled over without touching the object goes
        touching = np.zeros(number + 1, bool)
        touching[pieces[mask & view.truth]] = True
        touching[0] = False
        mask = touching[pieces]
    return mask if mask.any() else view.truth


def _noise(view: View, rng: np.random.Generator) -> FloatArray:
    """A smooth field of deviation about 1: waves of the object's size, and finer ones."""
    field = np.zeros(view.depth.shape, np.float32)
    for cell, weight in ((0.9 * view.radius, 0.85), (0.35 * view.radius, 0.55)):
        height, width = (int(n / max(cell, 1.5)) + 2 for n in field.shape)
        coarse = rng.standard_normal((height, width), np.float32)
        field += np.float32(1.3 * weight) * _resized(coarse, view.truth.shape, smooth=True)
    return field


def _lean(view: View, angle: float) -> FloatArray:
    """From -1 to 1: which side of the object a pixel is on, seen in the direction `angle`."""
    rows, columns = np.indices(view.depth.shape, dtype=np.float32)
    y, x = rows - rows[view.truth].mean(), columns - columns[view.truth].mean()
    side = (x * np.cos(angle) + y * np.sin(angle)) / np.maximum(np.hypot(x, y), 1.0)
    return side.astype(np.float32)


def _depth(mask: BoolArray) -> FloatArray:
    """Signed distance to the mask's border in pixels, positive inside; never 0."""
    if mask.all():
        return np.full(mask.shape, max(mask.shape), np.float32)
    inside, outside = distance_transform_edt(mask), distance_transform_edt(~mask)
    return np.where(mask, inside - 0.5, 0.5 - outside).astype(np.float32)


def _likeness(
    colours: FloatArray, truth: BoolArray, depth: FloatArray, radius: float
) -> FloatArray:
    ring = ~truth & (depth > -max(radius, 3.0))
    if not ring.any():
        return np.zeros(truth.shape, np.float32)
    own, other = (_distance(colours, colours[region].mean(axis=0)) for region in (truth, ring))
    likeness = (other - own) / (other + own + 0.02)
    return np.asarray(gaussian_filter(likeness, max(0.5, 0.08 * radius)), np.float32)


def _distance(colours: FloatArray, colour: FloatArray) -> FloatArray:
    return np.asarray(np.sqrt(np.square(colours - colour).sum(axis=2)), np.float32)


def _closest(mask: BoolArray, point: tuple[float, float]) -> tuple[int, int]:
    """(row, column) of the mask's pixel nearest to a point (row, column)."""
    rows, columns = np.nonzero(mask)
    nearest = np.argmin(np.hypot(rows + 0.5 - point[0], columns + 0.5 - point[1]))
    return int(rows[nearest]), int(columns[nearest])


def _resized(values: FloatArray, size: tuple[int, int], smooth: bool = False) -> FloatArray:
    """(h, w) float32 at another size; areas are averaged when it shrinks."""
    if values.shape == size:
        return values
    way = Image.Resampling.BICUBIC if smooth else Image.Resampling.BILINEAR
    return np.asarray(Image.fromarray(values).resize(size[::-1], way), np.float32)
