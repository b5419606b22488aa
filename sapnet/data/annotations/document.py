"""A points document that was read, in little memory: its annotations are columns, not objects."""

from array import array
from bisect import bisect_left
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from sapnet.data.orientation import Frame
from sapnet.data.subsets import SUBSETS, Split
from sapnet.errors import ValidationIssue
from sapnet.types import Box, Category, ImageInfo, PointAnnotation, PointSet, Rle

Indices = npt.NDArray[np.int64]
HAS_ID, VALID, CROWD, TRUTH, SKIPPED, BOXED, UNPOINTED = 1, 2, 4, 8, 16, 32, 64
"""Flags of a row: its id could be read; nothing is wrong with it; it is `iscrowd`; it has a
segmentation; it is left out, since it states no point or another row stands for its object; it has
a box; it has no point but the middle of this box."""
AT_POINT, AT_BBOX, AT_POINTS = -1, -2, -3
"""Where a row's point stands: there, or else at this place (0, 3, 6, …) of its keypoints."""
_BATCH = 10_000


def _ints() -> "array[int]":
    return array("q")


def _floats() -> "array[float]":
    return array("d")


@dataclass(frozen=True, slots=True)
class Rows:
    """What the file says of its annotations, in its order, the wrong ones too.

    It takes 45 bytes each, 36 more for a box, and what their masks take. Ids are 0 where they could
    not be read.

    Attributes:
        x, y: pixels.
        places, flags: see above.
        masks: by row, of those that have one.
        box_rows: the rows that came with a box, ascending. boxes: four numbers of each, see `box`.
    """

    ids: "array[int]" = field(default_factory=_ints)
    image_ids: "array[int]" = field(default_factory=_ints)
    category_ids: "array[int]" = field(default_factory=_ints)
    x: "array[float]" = field(default_factory=_floats)
    y: "array[float]" = field(default_factory=_floats)
    places: "array[int]" = field(default_factory=lambda: array("i"))
    flags: "array[int]" = field(default_factory=lambda: array("B"))
    masks: dict[int, Rle] = field(default_factory=dict)
    box_rows: "array[int]" = field(default_factory=lambda: array("i"))
    boxes: "array[float]" = field(default_factory=_floats)

    def copied(self) -> "Rows":
        """With points, boxes, flags and masks that may be changed."""
        return replace(
            self,
            x=self.x[:],
            y=self.y[:],
            flags=self.flags[:],
            boxes=self.boxes[:],
            masks=dict(self.masks),
        )

    def box(self, row: int) -> Box | None:
        """The box of a row, xyxy in pixels."""
        if not self.flags[row] & BOXED:
            return None
        start = 4 * bisect_left(self.box_rows, row)
        left, top, right, bottom = self.boxes[start : start + 4]
        return left, top, right, bottom

    def add_box(self, row: int, box: Box) -> None:
        """Give the last row its box."""
        self.box_rows.append(row)
        self.boxes.extend(box)
        self.flags[row] |= BOXED

    def set_box(self, row: int, box: Box | None) -> None:
        """Change the box of a row that has one; a point that is its middle moves with it."""
        if box is None:
            self.flags[row] &= ~BOXED
            return
        start = 4 * bisect_left(self.box_rows, row)
        self.boxes[start : start + 4] = array("d", box)
        if self.flags[row] & UNPOINTED:
            self.x[row], self.y[row] = middle(box)

    def __len__(self) -> int:
        return len(self.ids)

    def where(self, flags: int, unset: int = 0) -> Indices:
        """The rows that have all of `flags` and none of `unset`."""
        of_row = np.asarray(self.flags)
        return np.flatnonzero((of_row & (flags | unset)) == flags)

    def pointer(self, row: int) -> str:
        """RFC 6901, to the point of a row."""
        place = self.places[row]
        kind = {AT_POINT: "point", AT_BBOX: "bbox", AT_POINTS: "points"}.get(
            place, f"keypoints/{place}"
        )
        return f"/annotations/{row}/{kind}"


@dataclass(frozen=True)
class PointDocument:
    """A points file, read.

    Where `issues` is empty it is right as far as it can say by itself.

    Attributes:
        images, categories: every record that is right. An image whose size the file does not
            declare has width and height 0 until `with_sizes`.
        image_indices: indices in the file's list, for pointers.
        addresses: `coco_url` or `url` of each image.
        frame: of the coordinates, where no declared size tells.
        warnings: odd but legal, such as two identical points.
    """

    images: tuple[ImageInfo, ...]
    categories: tuple[Category, ...]
    rows: Rows
    issues: list[ValidationIssue]
    warnings: list[ValidationIssue]
    image_indices: tuple[int, ...]
    addresses: tuple[str | None, ...]
    frame: Frame = "stored"

    @property
    def addresses_by_name(self) -> dict[str, str]:
        """The addresses of the images that have one, by file name."""
        pairs = zip(self.images, self.addresses, strict=True)
        return {image.file_name: address for image, address in pairs if address}

    @cached_property
    def kept(self) -> Indices:
        """The rows to train on: those that are right, `iscrowd` left out."""
        return self.rows.where(VALID, unset=CROWD)

    @cached_property
    def points(self) -> PointSet:
        """All of it as objects: some 300 bytes an annotation."""
        return PointSet(self.images, tuple(self.annotations()), self.categories)

    def annotations(self) -> Iterator[PointAnnotation]:
        """Those to train on, made as they are asked for."""
        rows = self.rows
        columns = [np.asarray(c) for c in (rows.ids, rows.image_ids, rows.category_ids)]
        columns += [np.asarray(c) for c in (rows.x, rows.y)]
        for start in range(0, len(self.kept), _BATCH):
            part = self.kept[start : start + _BATCH]
            more: list[Iterable[Any]] = [map(rows.masks.get, part.tolist())]
            if rows.box_rows:
                pointed = np.asarray(rows.flags)[part] & UNPOINTED == 0
                more += [map(rows.box, part.tolist()), pointed.tolist()]
            yield from map(PointAnnotation, *(column[part].tolist() for column in columns), *more)

    def names_any(self, ids: Indices) -> bool:
        """Whether one of the ids is that of an annotation to train on."""
        return bool(np.isin(np.asarray(self.rows.ids)[self.kept], ids).any())

    @property
    def counts(self) -> dict[str, int]:
        """How many of the annotations to train on have a point, a box, a confirmed mask."""
        flags = np.asarray(self.rows.flags)[self.kept]
        return {
            "points": int(np.count_nonzero(flags & UNPOINTED == 0)),
            "boxes": int(np.count_nonzero(flags & BOXED)),
            "masks": int(np.isin(self.kept, list(self.rows.masks)).sum()),
        }

    @property
    def subsets(self) -> dict[str, int]:
        """How many images are of each subset; empty where the dataset is not split."""
        count = Counter(image.subset for image in self.images if image.subset)
        return {subset: count[subset] for subset in SUBSETS if count[subset]}

    def split_as(self, splits: Mapping[str, Split]) -> "PointDocument":
        """The document with the split of another one, unless it has one itself.

        Args:
            splits: subset and group by file name.
        """
        if not splits or any(image.subset or image.group for image in self.images):
            return self
        images = (replace(i, **splits.get(i.file_name, Split())._asdict()) for i in self.images)
        return replace(self, images=tuple(images))

    @property
    def crowd_count(self) -> int:
        """How many of the right annotations are `iscrowd`."""
        return len(self.rows.where(VALID | CROWD))

    @property
    def crowds(self) -> tuple[tuple[int, int, int], ...]:
        """The (id, image_id, category_id) of the right annotations that are `iscrowd`."""
        rows = self.rows
        valid = rows.where(VALID | CROWD)
        return tuple((rows.ids[i], rows.image_ids[i], rows.category_ids[i]) for i in valid)

    @property
    def has_truth(self) -> bool:
        """Whether an annotation to train on carries its segmentation."""
        return len(self.rows.where(VALID | TRUTH, unset=CROWD)) > 0

    def per_image(self) -> Counter[int]:
        """Annotations to train on by image id; images that have none are not there."""
        return self._counted(self.rows.image_ids)

    def per_category(self) -> Counter[int]:
        """Annotations to train on by category id."""
        return self._counted(self.rows.category_ids)

    def _counted(self, column: "array[int]") -> Counter[int]:
        ids, counts = np.unique(np.asarray(column)[self.kept], return_counts=True)
        return Counter(dict(zip(ids.tolist(), counts.tolist(), strict=True)))

    def sized(self, sizes: Mapping[str, tuple[int, int]]) -> tuple[ImageInfo, ...]:
        """The images, sizes that were not declared filled in.

        Args:
            sizes: file_name -> (h, w).
        """
        images = []
        for image in self.images:
            if not image.width:
                height, width = sizes[image.file_name]
                image = replace(image, width=width, height=height)
            images.append(image)
        return tuple(images)

    def with_sizes(self, sizes: Mapping[str, tuple[int, int]]) -> PointSet:
        """The points with undeclared image sizes filled in.

        Args:
            sizes: file_name -> (h, w).
        """
        return replace(self.points, images=self.sized(sizes))


def middle(box: Box) -> tuple[float, float]:
    """The x and y of a box's middle."""
    left, top, right, bottom = box
    return left / 2 + right / 2, top / 2 + bottom / 2


def repeats(rows: Indices, *columns: npt.NDArray[Any]) -> list[tuple[int, int]]:
    """(row, first row) of those among `rows` that have in all columns what an earlier one has."""
    if not len(rows):
        return []
    keys = [column[rows] for column in columns]
    order = np.lexsort(keys)  # stable: of equal ones the first comes first
    same = np.all([key[order][1:] == key[order][:-1] for key in keys], axis=0)
    starts = np.where(np.r_[False, same], 0, np.arange(len(rows)))
    first = order[np.maximum.accumulate(starts)][1:][same]
    again = order[1:][same]
    by_place = np.argsort(again)
    return list(zip(rows[again[by_place]].tolist(), rows[first[by_place]].tolist(), strict=True))
