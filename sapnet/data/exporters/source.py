"""What there is to export: images, classes and masks, an image's masks at a time."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
import numpy.typing as npt

from sapnet.data.masks import check_size, checked_rle, run_lengths
from sapnet.errors import InvalidGeometry
from sapnet.types import BoolArray, Category, ImageInfo, Rle


class InvalidMask(ValueError):
    """A mask that cannot be exported. The message says why."""


@dataclass(frozen=True, slots=True)
class Instance:
    """One object as the source has it.

    Attributes:
        segmentation: a compressed RLE, unchecked.
        point: x y in pixels; None where none was drawn.
        quality: 0 to 1.
        rejected: a reviewer has refused it.
    """

    id: int
    category_id: int
    segmentation: Rle
    quality: float
    rejected: bool = False
    point: tuple[float, float] | None = None


class Source(Protocol):
    """Where an export comes from."""

    @property
    def images(self) -> Sequence[ImageInfo]:
        """In the order in which they are to be written."""

    @property
    def categories(self) -> Sequence[Category]:
        """In any order."""

    def instances(self, image: ImageInfo) -> Iterable[Instance]:
        """Its masks, in the order of their ids."""

    def file(self, image: ImageInfo) -> Path | None:
        """The image as it was sent; None where it is lost."""


@dataclass(frozen=True, slots=True)
class Shape:
    """An instance whose mask was read.

    Attributes:
        instance: the object.
        left, top: of its box in the image, in pixels.
        mask: (h, w) bool, the box alone, with a pixel of the object on each of its four sides.
    """

    instance: Instance
    left: int
    top: int
    mask: BoolArray

    @property
    def area(self) -> int:
        """Pixels."""
        return int(np.count_nonzero(self.mask))

    @property
    def bbox(self) -> list[int]:
        """COCO's: x, y, width, height."""
        height, width = self.mask.shape
        return [self.left, self.top, width, height]

    @property
    def corner(self) -> npt.NDArray[np.int64]:
        """(2,) x y of its box."""
        return np.array([self.left, self.top])

    @property
    def window(self) -> tuple[slice, slice]:
        """Of its box, in an array (H, W) of the image."""
        height, width = self.mask.shape
        return slice(self.top, self.top + height), slice(self.left, self.left + width)


def read_shape(instance: Instance, image: ImageInfo) -> Shape:
    """Decode no more of a mask than the columns that it covers.

    Raises:
        InvalidMask: it cannot be decoded, is empty, or is of another size.
    """
    try:
        rle = checked_rle(instance.segmentation, check_size(image.size))
        runs = run_lengths(rle["counts"])
    except InvalidGeometry as error:
        raise InvalidMask(f"the mask cannot be decoded: {error}") from None
    ends = np.cumsum(runs)
    covered = np.flatnonzero(runs[1::2]) * 2 + 1
    if not covered.size:
        raise InvalidMask("the mask is empty")
    left = int(ends[covered[0] - 1]) // image.height
    right = (int(ends[covered[-1]]) - 1) // image.height + 1
    columns = _columns(ends, left * image.height, right * image.height)
    mask = columns.reshape(right - left, image.height).T
    rows = np.flatnonzero(mask.any(axis=1))
    top, bottom = int(rows[0]), int(rows[-1]) + 1
    return Shape(instance, left, top, np.ascontiguousarray(mask[top:bottom]))


def _columns(ends: npt.NDArray[np.int64], start: int, stop: int) -> BoolArray:
    """The pixels [start, stop) of a mask whose runs end there, down the columns."""
    lengths = np.diff(np.concatenate([[start], np.clip(ends, start, stop)]))
    return np.repeat(np.arange(len(ends)) % 2 == 1, lengths)
