"""What the formats have in common."""

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar

import msgspec
import numpy as np
import numpy.typing as npt

from sapnet.data.category_names import distinct_names
from sapnet.data.exporters.archive import Archive
from sapnet.data.exporters.rasterize import agreement
from sapnet.data.exporters.source import Shape
from sapnet.errors import SapnetError
from sapnet.types import Category, ImageInfo


class UnsupportedFormat(SapnetError):
    """What is to be exported does not go into the format. The message says why, and what to do."""

    reason = "unfit"


@dataclass(frozen=True, slots=True)
class Options:
    """What the user may choose.

    Attributes:
        images: whether their files are put in.
        simplify: pixels that a polygon may leave its outline by.
    """

    images: bool = False
    simplify: float = 0.0


@dataclass(frozen=True)
class ExportContext:
    """What one export has: where it goes, and all but the masks."""

    archive: Archive
    images: Sequence[ImageInfo]
    categories: Sequence[Category]
    """By ascending id."""
    options: Options
    image_names: Mapping[int, str]
    """Relative path by image id, see `sapnet.data.exporters.names`."""

    @cached_property
    def label_of(self) -> dict[int, int]:
        """Category id -> 0, 1, 2, … by ascending id."""
        return {category.id: label for label, category in enumerate(self.categories)}


class Writer(ABC):
    """Writes one format.

    One is made for each export; `add` is called image by image.

    Raises:
        UnsupportedFormat: nothing could be written at all.
    """

    notes: ClassVar[tuple[str, ...]] = ()
    """What the format cannot hold, for people."""
    document_suffix: ClassVar[str | None] = None
    """Of a format that is a single document where no images come with it."""

    reserved_names: ClassVar[tuple[str, ...]] = ()
    """Names of classes that mean something else in the format."""

    def __init__(self, context: ExportContext) -> None:
        self.context = context
        self.class_names = distinct_names(
            context.categories, self.writable_name, self.reserved_names
        )
        """By category id, each another one."""

    def writable_name(self, name: str) -> str:
        """The name of a class, what the format cannot write replaced."""
        return name

    @abstractmethod
    def add(self, image: ImageInfo, shapes: Sequence[Shape]) -> Iterable[float]:
        """Write an image's masks.

        Returns:
            Of each, the IoU of what was written with the mask.

        Raises:
            UnsupportedFormat: this image cannot be written; nothing of it is.
        """

    def image_path(self, image: ImageInfo) -> str:
        """Where its file goes."""
        return f"images/{self.context.image_names[image.id]}"

    @property
    def renamed(self) -> list[str]:
        """Classes that are called otherwise here, for people."""
        return [
            f"{c.name!r} (id {c.id}) is {name!r}"
            for c in self.context.categories
            if (name := self.class_names[c.id]) != c.name
        ]


def index_map(
    image: ImageInfo, shapes: Sequence[Shape], dtype: type[np.unsignedinteger[Any]]
) -> tuple[npt.NDArray[np.unsignedinteger[Any]], list[float]]:
    """Paint shapes into one array.

    Where two overlap, the one of higher quality wins; of equal ones the smaller.

    Returns:
        (H, W): 0, or 1, 2, … for the first, second, … of the shapes; and the IoU of what is left
        of each.
    """
    indices = np.zeros(image.size, dtype)
    order = sorted(
        range(len(shapes)), key=lambda i: (shapes[i].instance.quality, -shapes[i].area, -i)
    )
    for i in order:
        indices[shapes[i].window][shapes[i].mask] = i + 1
    return indices, [
        agreement(indices[shape.window] == i + 1, shape.mask) for i, shape in enumerate(shapes)
    ]


def to_json(value: Any) -> bytes:
    """Compact JSON."""
    return msgspec.json.encode(value)
