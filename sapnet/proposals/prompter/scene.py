"""An image prepared for clicks: the network's features of it at two scales, and masks from them.

The whole image is seen at 512 pixels a side. Small windows are read from parts of it that are seen
at twice that scale, as far as the image has the pixels; the parts lie on a fixed grid, so that what
a click gives does not depend on the order of the clicks, and near clicks share a part.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from sapnet.proposals.prompter.network import Drawn, Features, Prompter, Windows
from sapnet.proposals.prompter.windows import FINE, Prompts, boxes_of
from sapnet.types import BoolArray, ByteArray, FloatArray
from sapnet.utils.precision import quick_on_cpu

LONG = 512  # pixels: the longer side of the image as it is seen as a whole
SIDES = tuple(44.0 * 2.2**k for k in range(5))  # pixels of it: windows round a click
_CLOSE = 130.0  # pixels: smaller windows are read at the finer scale
_FINER, _LARGEST = 2.0, 2.0  # the finer scale over the whole image's, and over the image's own
_WORTH = 1.3  # a finer scale is used where it is finer by so much
_PART, _CORE = 256, 62  # pixels of the finer scale: a part of the image, and what it is for
_BATCH = 8  # parts at a time
_PARTS_KEPT = 24  # of an image that is clicked again and again: 1.7 MB each
_MARGIN = 1.6  # windows larger than so many images are left out


@dataclass(frozen=True, slots=True)
class _Place:
    """Where a working image (or part) lies: working = (image - origin) * scale; xy pairs."""

    index: int
    origin: tuple[float, float]
    scale: tuple[float, float]

    def to(self, points: FloatArray) -> FloatArray:
        """(…, 2) xy of the image in pixels of the working image."""
        moved = (points - np.array(self.origin)) * np.array(self.scale)
        return np.asarray(moved, np.float32)


@dataclass(frozen=True, slots=True)
class Look:
    """The windows that N prompts are answered in.

    Attributes:
        frames: (N, 4) xyxy in pixels of the image.
    """

    windows: Windows
    features: Features
    places: tuple[_Place, ...]
    frames: FloatArray


class Scene:
    """One image's features. Not for use by two threads at once."""

    def __init__(self, model: Prompter, image: ByteArray) -> None:
        """Compute the features of the whole image.

        Args:
            model: in eval mode.
            image: (H, W, 3) uint8 RGB.
        """
        self.model = model
        self.size = height, width = image.shape[0], image.shape[1]
        longest = max(height, width)
        self._image = Image.fromarray(np.ascontiguousarray(image))
        # a large image is kept at not less than the finer scale
        self._reduced = max(longest // round(LONG * _FINER), 1)
        if self._reduced > 1:
            self._image = self._image.reduce(self._reduced)
        self.scale = LONG / longest
        self.finer = min(self.scale * _FINER, _LARGEST)
        if self.finer < self.scale * _WORTH:
            self.finer = self.scale
        self._whole, self._whole_place = self._see((0.0, 0.0, width, height), self.scale)
        self._parts: dict[tuple[int, int], tuple[Features, _Place]] = {}

    def sides(self) -> list[float]:
        """Sides in pixels of the image of the windows that are tried round a click."""
        largest = _MARGIN * max(self.size) * self.scale
        kept = [s for i, s in enumerate(SIDES) if i == 0 or SIDES[i - 1] < largest]
        return [side / self.scale for side in kept]

    def look(
        self, centres: FloatArray, sides: FloatArray, clicks: FloatArray | None = None
    ) -> list[tuple[list[int], Look]]:
        """Windows of one scale together: lists of indices and the windows there.

        Args:
            centres: (N, 2) xy in pixels of the image.
            sides: (N,) in pixels of the image.
            clicks: (N, 2) xy, where the centres are not those: small windows are read from the part
                of the image that is seen for the click, and where they do not lie in it, from the
                whole.
        """
        close = (sides * self.scale < _CLOSE) & (self.finer > self.scale)
        if clicks is None:
            clicks = centres
        else:
            close &= [
                bool(c) and self._within(self._key(click), centre, side)
                for c, click, centre, side in zip(close, clicks, centres, sides, strict=True)
            ]
        looks = []
        groups: dict[int, tuple[Features, list[tuple[int, _Place]]]] = {}
        if not close.all():
            members = [(int(i), self._whole_place) for i in np.flatnonzero(~close)]
            groups[id(self._whole)] = self._whole, members
        for index in np.flatnonzero(close):
            features, place = self._part(clicks[index])
            groups.setdefault(id(features), (features, []))[1].append((int(index), place))
        for features, listed in groups.values():
            indices = [i for i, _ in listed]
            places = tuple(p for _, p in listed)
            boxes = []
            for i, place in listed:
                half = sides[i] / 2
                ends = np.stack([centres[i] - half, centres[i] + half])
                boxes.append(place.to(ends).reshape(4))
            squares = _squared(np.stack(boxes))
            images = torch.tensor([p.index for p in places])
            windows = self.model.windows(features, images, torch.from_numpy(squares))
            half = sides[indices, None] / 2
            frames = np.concatenate([centres[indices] - half, centres[indices] + half], 1)
            looks.append((indices, Look(windows, features, places, frames)))
        return looks

    def prepare(self, points: FloatArray) -> None:
        """See the parts of the image round many points at once.

        Args:
            points: (N, 2) xy.
        """
        if self.finer == self.scale:
            return
        keys = sorted({self._key(p) for p in points} - set(self._parts))
        height, width = (round(n * self.finer) for n in self.size)
        if len(keys) * _PART**2 > height * width:
            whole = self._see((0.0, 0.0, self.size[1], self.size[0]), self.finer)
            self._parts |= dict.fromkeys(keys, whole)
            return
        for start in range(0, len(keys), _BATCH):
            self._see_parts(keys[start : start + _BATCH])

    def draw(
        self,
        look: Look,
        positive: Sequence[FloatArray],
        negative: Sequence[FloatArray],
        others: Sequence[FloatArray],
        mask: Tensor | None = None,
    ) -> Drawn:
        """Masks in the windows.

        Args:
            look: N windows.
            positive: of each window (P, 2) xy of the image, on the object; not empty.
            negative: the same, not on the object.
            others: the same, on other objects.
            mask: (N, FINE, FINE) probabilities of a present mask, or None.
        """

        def working(listed: Sequence[FloatArray]) -> list[Tensor]:
            return [
                torch.from_numpy(place.to(points.reshape(-1, 2)))
                for place, points in zip(look.places, listed, strict=True)
            ]

        prompts = Prompts(working(positive), working(negative), working(others), mask)
        with quick_on_cpu():
            drawn: Drawn = self.model(look.features, look.windows, prompts)
        return drawn

    def pasted(self, logits: FloatArray, frame: FloatArray) -> BoolArray:
        """(H, W) mask from logits (FINE, FINE) in one window."""
        out = blank(1, self.size)
        paste(logits[None], frame, out)
        return np.asarray(out[0])

    def _key(self, point: FloatArray) -> tuple[int, int]:
        return int(point[1] * self.finer // _CORE), int(point[0] * self.finer // _CORE)

    def _within(self, key: tuple[int, int], centre: FloatArray, side: float) -> bool:
        """Whether a window lies in a part, or leaves it only where the image ends."""
        top, left = self._start(key)
        for place, start, length in (
            (centre[0], left, self.size[1]),
            (centre[1], top, self.size[0]),
        ):
            low, high = (place - side / 2) * self.finer, (place + side / 2) * self.finer
            if max(low, 0) < start - 1 or min(high, length * self.finer) > start + _PART + 1:
                return False
        return True

    def _start(self, key: tuple[int, int]) -> tuple[int, int]:
        """Top and left of a part, in pixels of the finer scale."""
        ends = []
        for cell, length in zip(key, self.size, strict=True):
            most = max(max(round(length * self.finer), 1) - _PART, 0)
            ends.append(min(max(round((cell + 0.5) * _CORE) - _PART // 2, 0), most))
        return ends[0], ends[1]

    def _part(self, point: FloatArray) -> tuple[Features, _Place]:
        key = self._key(point)
        if key not in self._parts:
            while len(self._parts) >= _PARTS_KEPT:
                del self._parts[next(iter(self._parts))]  # the one that was made first
            self._see_parts([key])
        return self._parts[key]

    def _see_parts(self, keys: Sequence[tuple[int, int]]) -> None:
        height, width = (max(round(n * self.finer), 1) for n in self.size)
        starts = [self._start(key) for key in keys]
        scale = width / self.size[1], height / self.size[0]
        size = min(_PART, height), min(_PART, width)
        frames = [
            (x / scale[0], y / scale[1], (x + size[1]) / scale[0], (y + size[0]) / scale[1])
            for y, x in starts
        ]
        features = self._features([self._resized(frame, size) for frame in frames])
        for index, (key, frame) in enumerate(zip(keys, frames, strict=True)):
            self._parts[key] = features, _Place(index, frame[:2], scale)

    def _see(
        self, frame: tuple[float, float, float, float], scale: float
    ) -> tuple[Features, _Place]:
        width, height = frame[2] - frame[0], frame[3] - frame[1]
        size = max(round(height * scale), 1), max(round(width * scale), 1)
        features = self._features([self._resized(frame, size)])
        return features, _Place(0, frame[:2], (size[1] / width, size[0] / height))

    def _resized(
        self, frame: tuple[float, float, float, float], size: tuple[int, int]
    ) -> ByteArray:
        width, height = self._image.size
        left, top, right, bottom = (value / self._reduced for value in frame)
        box = left, top, min(right, width), min(bottom, height)
        resized = self._image.resize(size[::-1], Image.Resampling.BILINEAR, box=box)
        return np.asarray(resized)

    @torch.inference_mode()
    def _features(self, images: Sequence[ByteArray]) -> Features:
        """images: of one size."""
        height, width = images[0].shape[:2]
        colours = torch.zeros(len(images), 3, height + -height % 32, width + -width % 32)
        stacked = torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2)
        colours[..., :height, :width] = (stacked.float() - 127) / 128
        sizes = torch.tensor([[height, width]], dtype=torch.float32).expand(len(images), 2)
        with quick_on_cpu():
            return self.model.features(colours.contiguous(memory_format=torch.channels_last), sizes)


def _squared(boxes: FloatArray) -> FloatArray:
    """Boxes whose sides differ by a rounding of the scale, made square."""
    centres = (boxes[:, :2] + boxes[:, 2:]) / 2
    sides = (boxes[:, 2:] - boxes[:, :2]).mean(1)
    return boxes_of(torch.from_numpy(centres), torch.from_numpy(sides)).numpy()


def blank(count: int, size: tuple[int, int]) -> BoolArray:
    """(count, H, W) bool without a mask, in memory column by column, as RLEs are read."""
    return np.zeros((count, size[1], size[0]), bool).transpose(0, 2, 1)


def paste(logits: FloatArray, frame: FloatArray, out: BoolArray) -> None:
    """Draw masks at image size from logits in one window.

    Args:
        logits: (K, FINE, FINE), interpolated bilinearly between the centres of the cells.
        frame: (4,) xyxy in pixels of the image.
        out: (K, H, W), of `blank`.
    """
    size = out.shape[1:]
    for mask, values in zip(out, logits, strict=True):
        inside = values > 0
        if not inside.any():
            continue
        rows, columns = (
            _Line.of(inside.any(axis=1 - i), float(frame[1 - i]), float(frame[3 - i]), length)
            for i, length in enumerate(size)
        )
        between = values[rows.low] + (values[rows.low + 1] - values[rows.low]) * rows.part[:, None]
        one, two = between[:, columns.low], between[:, columns.low + 1]
        mask[rows.pixels, columns.pixels] = one + (two - one) * columns.part > 0


@dataclass(frozen=True, slots=True)
class _Line:
    """Pixels of a row or column of an image, and the cells that each lies between."""

    pixels: slice
    low: np.ndarray
    part: FloatArray

    @classmethod
    def of(cls, occupied: BoolArray, start: float, end: float, length: int) -> "_Line":
        """Of `length` pixels those that lie in start..end and near the occupied cells."""
        cell = (end - start) / FINE
        marked = np.flatnonzero(occupied)
        first = max(math.floor(start + max(marked[0] - 1, 0) * cell), math.floor(start), 0)
        last = min(math.ceil(start + min(marked[-1] + 2, FINE) * cell), length)
        place = (np.arange(first, max(last, first)) + 0.5 - start) / cell - 0.5
        place = np.clip(place, 0, FINE - 1).astype(np.float32)
        low = np.minimum(place.astype(np.intp), FINE - 2)
        return cls(slice(first, max(last, first)), low, (place - low).astype(np.float32))


def cell_shares(masks: BoolArray, frame: FloatArray, cells: int) -> FloatArray:
    """(K, cells, cells) share of each cell of a window that masks (K, H, W) cover, in quarters.

    Args:
        frame: (4,) xyxy in pixels of the image.
    """
    height, width = masks.shape[1:]
    steps = (np.arange(2 * cells) + 0.5) / (2 * cells)
    columns = np.floor(frame[0] + steps * (frame[2] - frame[0])).astype(int)
    rows = np.floor(frame[1] + steps * (frame[3] - frame[1])).astype(int)
    within = ((rows >= 0) & (rows < height))[:, None] & ((columns >= 0) & (columns < width))
    grid = np.ix_(np.clip(rows, 0, height - 1), np.clip(columns, 0, width - 1))
    values = masks[:, *grid] & within
    quarters = values.reshape(len(masks), cells, 2, cells, 2)
    return np.asarray(quarters.mean((2, 4), dtype=np.float32))
