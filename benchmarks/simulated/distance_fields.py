"""An object in its window: the fields from which the simulator makes masks, and the way back."""

from dataclasses import dataclass

import numpy as np
from PIL import Image
from scipy.ndimage import distance_transform_edt, gaussian_filter

from sapnet.data.masks import from_runs
from sapnet.proposals.bags import near_point, point_pixel
from sapnet.types import BoolArray, ByteArray, FloatArray, PointAnnotation, Rle

_WORK = 128  # pixels: the longer side of a window, at most
_MARGIN = 1.2  # of the window around the box, over the object's radius


@dataclass(frozen=True, slots=True)
class View:
    """One object in its window. All arrays are (h, w), at the window's working size.

    top, left, size: the window's corner and (h, w) in the image, pixels. depth: signed distance to
    the true border, working pixels, positive inside. likeness: in [-1, 1], how much the colours are
    the object's rather than the ground's. colours: (h, w, 3) in [0, 1]. point: (row, column) of
    the annotated point, at working size. radius: of a disc as large, working pixels.
    waves: what `noise` is made of: bumps along rows, along columns, weight.
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
    waves: tuple[tuple[FloatArray, FloatArray, float], ...]

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
        small = _scaled(inner * np.uint8(255), size) > 127
        if not small.any():
            small = _scaled(inner * np.uint8(255), size) > 0
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
            waves=_bases(small.shape, radius),
        )

    def rle(self, mask: BoolArray, annotation: PointAnnotation, image_size: tuple[int, int]) -> Rle:
        """A working mask at image size; where it misses the point, the point's pixel is added."""
        if mask.shape != self.size:
            soft = gaussian_filter(mask * np.uint8(255), 0.7)
            mask = np.asarray(_scaled(soft, self.size)) > 127
        x, y = annotation.x - self.left, annotation.y - self.top
        if not near_point(mask[None], x, y)[0]:
            mask = mask.copy()
            mask[point_pixel(x, y, self.size)] = True
        return placed(mask, self.top, self.left, image_size)

    def noise(self, rng: np.random.Generator) -> FloatArray:
        """A smooth field of deviation 1: waves of the object's size, and finer ones."""
        field = np.zeros(self.truth.shape, np.float32)
        for rows, columns, weight in self.waves:
            coarse = rng.standard_normal((rows.shape[1], columns.shape[1]), np.float32)
            field += weight * (rows @ coarse @ columns.T)
        return field

    def grid(self) -> tuple[FloatArray, FloatArray]:
        """Row and column of each pixel."""
        grid: FloatArray = np.indices(self.truth.shape, dtype=np.float32)
        return grid[0], grid[1]

    def lean(self, angle: float) -> FloatArray:
        """From -1 to 1: which side of the object a pixel is on, seen in the direction `angle`."""
        rows, columns = self.grid()
        y, x = rows - rows[self.truth].mean(), columns - columns[self.truth].mean()
        side = (x * np.cos(angle) + y * np.sin(angle)) / np.maximum(np.hypot(x, y), 1.0)
        return np.asarray(side, np.float32)


def placed(mask: BoolArray, top: int, left: int, size: tuple[int, int]) -> Rle:
    """The compressed RLE at image `size` of a window's mask; the rest of the image is empty."""
    height = mask.shape[0] + 2  # of a column with an empty pixel at either end
    padded = np.zeros((mask.shape[1], height), bool)
    padded[:, 1:-1] = mask.T
    flat = padded.ravel()
    columns, rows = np.divmod(np.flatnonzero(flat[1:] != flat[:-1]), height)
    changes = (left + columns) * size[0] + top + rows
    # where a run goes on from the foot of one column to the head of the next, both changes cancel
    same = np.flatnonzero(changes[1:] == changes[:-1])
    changes = np.delete(changes, np.concatenate([same, same + 1]))
    runs = np.diff(changes, prepend=0, append=size[0] * size[1])
    runs = runs if runs[-1] else runs[:-1]
    return from_runs(runs, size)


def distance(colours: FloatArray, colour: FloatArray) -> FloatArray:
    """(h, w) Euclidean distance of (h, w, 3) colours to one colour."""
    difference = colours - colour
    return np.asarray(np.sqrt(np.einsum("hwc,hwc->hw", difference, difference)), np.float32)


def closest(mask: BoolArray, point: tuple[float, float]) -> tuple[int, int]:
    """(row, column) of the mask's pixel nearest to a point (row, column)."""
    rows, columns = np.nonzero(mask)
    nearest = np.argmin(np.hypot(rows + 0.5 - point[0], columns + 0.5 - point[1]))
    return int(rows[nearest]), int(columns[nearest])


def _bases(
    size: tuple[int, ...], radius: float
) -> tuple[tuple[FloatArray, FloatArray, float], ...]:
    """Bumps along rows, bumps along columns, weight; the squares of the weights sum to 1."""
    cells = max(0.9 * radius, 1.5), max(0.35 * radius, 1.0)
    return tuple(
        (_waves(size[0], cell), _waves(size[1], cell), weight)
        for cell, weight in zip(cells, (0.84, 0.54), strict=True)
    )


def _waves(length: int, cell: float) -> FloatArray:
    """(length, n) Gaussian bumps, `cell` pixels apart, of squares that sum to 1 at every pixel."""
    centres = (np.arange(int(length / cell) + 3) - 0.5) * cell
    bumps = np.exp(-0.5 * ((np.arange(length)[:, None] + 0.5 - centres) / (0.7 * cell)) ** 2)
    return np.asarray(bumps / np.linalg.norm(bumps, axis=1, keepdims=True), np.float32)


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
    own, other = (distance(colours, colours[region].mean(axis=0)) for region in (truth, ring))
    likeness = (other - own) / (other + own + 0.02)
    return np.asarray(gaussian_filter(likeness, max(0.5, 0.08 * radius)), np.float32)


def _scaled(values: ByteArray, size: tuple[int, ...]) -> ByteArray:
    """(h, w) uint8 at another size; areas are averaged when it shrinks."""
    if values.shape == size:
        return values
    image = Image.fromarray(values).resize((size[1], size[0]), Image.Resampling.BILINEAR)
    return np.asarray(image, np.uint8)
