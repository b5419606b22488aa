"""Prediction of large images by overlapping tiles, whose instances are joined across borders.

A segmenter sees images at the scale of its training. An image many times larger would be shrunk
until its objects are gone; so it is cut into tiles of the size of the training images. Where two
tiles overlap both see the same pixels: instances whose masks agree there are one object. Of those
that a tile shows whole the most confident is kept; those that every tile cuts are united.

Memory is that of the image and of the RLEs found. Imports no torch.
"""

import itertools
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from sapnet.data.masks import area, clipped, merge, moved, tight_box
from sapnet.errors import InvalidConfig
from sapnet.types import BoolArray, ByteArray, Rle

IntArray = npt.NDArray[np.int64]
Results = list[dict[str, Any]]
Size = tuple[int, int]
Box = tuple[int, int, int, int]
"""x1, y1, x2, y2 in pixels of the image; x2 and y2 lie just behind."""

Tiles = Literal["auto", "off"] | int
"""Whether an image is cut into tiles: where it is much larger than those of the training, never, or
into tiles of so many pixels a side."""

_DIGITS = 9  # of a tile's side: no image is longer
SMALLEST = 64
"""Pixels of a tile's side, at least."""
FROM = 2.0
"""Images with a side of more than so many times the longest one trained on are cut into tiles."""
OVERLAP = 0.25
"""Of a tile's side, at least, shared with the next one."""
AGREE = 0.5
"""IoU within the pixels that two tiles share from which two instances are one object."""
_SIDE_MARGIN = 1 / 64
"""Of a tile's side: a mask that comes as near to its border may go on beyond it."""


@dataclass(frozen=True)
class TrainedSizes:
    """Sizes (h, w) in pixels of the images that a model was trained on.

    Attributes:
        median: of heights and of widths.
        longest: the longest side of any.
    """

    median: Size
    longest: int

    @classmethod
    def of(cls, sizes: Sequence[Size]) -> "TrainedSizes":
        """Sum up the sizes of at least one image."""
        heights, widths = zip(*sizes, strict=True)
        return cls((_median(heights), _median(widths)), max(*heights, *widths))

    @classmethod
    def from_meta(cls, meta: Mapping[str, Any]) -> "TrainedSizes | None":
        """Those in a model's description; None for models of before, and for damaged ones."""
        try:
            stated = meta["image_sizes"]
            (height, width), longest = map(int, stated["median"]), int(stated["longest"])
        except (LookupError, TypeError, ValueError):
            return None
        right = min(height, width) > 0 and max(height, width) <= longest
        return cls((height, width), longest) if right else None

    def to_meta(self) -> dict[str, Any]:
        """For a model's description."""
        return {"median": list(self.median), "longest": self.longest}

    def tile_for(self, image: Size) -> Size | None:
        """The size of the tiles for an image of (h, w); None where it is seen at once."""
        return self.median if max(image) > FROM * self.longest else None

    def tiles_for(self, image: Size) -> int:
        """How many tiles an image of (h, w) is cut into; 1 where it is seen at once."""
        tile = self.tile_for(image)
        return len(tiles_of(image, tile)) if tile else 1


@dataclass(frozen=True)
class _Seen:
    """An instance as one tile shows it, in pixels of the image.

    Attributes:
        tile: the part of the image that it was seen in.
        box: tight.
        cut: whether it reaches a border of the tile within the image.
    """

    category_id: int
    score: float
    mask: Rle
    box: Box
    tile: Box
    cut: bool


def parse_tiles(text: str) -> Tiles:
    """Read "auto", "off" or a number of pixels.

    Raises:
        InvalidConfig: it is none of these.
    """
    if text in ("auto", "off"):
        return text  # type: ignore[return-value]
    if text.isascii() and text.isdecimal() and len(text) <= _DIGITS and int(text) >= SMALLEST:
        return int(text)
    raise InvalidConfig(
        f"tiles are auto, off, or a side of {SMALLEST} pixels or more, not {text[:40]!r}"
    )


def predict_large(
    image: ByteArray,
    predict: Callable[[ByteArray], Results],
    tiles: Tiles,
    meta: Mapping[str, Any],
) -> Results:
    """Predict an image at once or by tiles.

    Args:
        image: (H, W, 3) uint8.
        predict: gives the COCO results of an image or a tile.
        tiles: "auto", "off", or a tile's side in pixels of the image.
        meta: the model's description.
    """
    tile: Size | None = None
    if isinstance(tiles, int):
        tile = tiles, tiles
    elif tiles == "auto" and (trained := TrainedSizes.from_meta(meta)):
        tile = trained.tile_for((image.shape[0], image.shape[1]))
    return predict(image) if tile is None else predict_tiled(image, predict, tile)


def predict_tiled(image: ByteArray, predict: Callable[[ByteArray], Results], tile: Size) -> Results:
    """Predict tile by tile and join what is instance.

    Args:
        image: (H, W, 3) uint8.
        predict: gives the COCO results of a tile.
        tile: its (h, w); smaller images are one tile.

    Returns:
        COCO results of the image, best first.
    """
    size = image.shape[0], image.shape[1]
    tiles = tiles_of(size, tile)
    instances_by_tile = []
    for box in tiles:
        x1, y1, x2, y2 = box
        results = predict(np.ascontiguousarray(image[y1:y2, x1:x2]))
        instances_by_tile.append([_seen(result, box, size) for result in results])
    joined = [_result(group, tiles) for group in _same_objects(instances_by_tile, tiles)]
    return sorted(filter(None, joined), key=lambda result: -result["score"])


def tiles_of(size: Size, tile: Size) -> list[Box]:
    """Tiles that cover an image, evenly spaced, in rows from the top.

    Args:
        size: (h, w) of the image.
        tile: (h, w).
    """
    rows, columns = (_spans(side, of) for side, of in zip(size, tile, strict=True))
    return [(x1, y1, x2, y2) for (y1, y2), (x1, x2) in itertools.product(rows, columns)]


def _spans(side: int, tile: int) -> list[tuple[int, int]]:
    tile = min(side, tile)
    step = max(1, round(tile * (1 - OVERLAP)))
    count = 1 + math.ceil((side - tile) / step)
    starts = np.linspace(0, side - tile, count).round().astype(int).tolist()
    return [(start, start + tile) for start in starts]


def _seen(result: Mapping[str, Any], tile: Box, size: Size) -> _Seen:
    mask = moved(result["segmentation"], tile[1], tile[0], size)
    x, y, w, h = (int(value) for value in tight_box(mask))
    box = x, y, x + w, y + h
    return _Seen(
        result["category_id"], result["score"], mask, box, tile, not _well_within(box, tile, size)
    )


def _well_within(box: Box, tile: Box, size: Size) -> bool:
    """Whether a box keeps off those borders of a tile that are not the image's."""
    for low, high, end in ((0, 2, size[1]), (1, 3, size[0])):
        margin = max(1, round((tile[high] - tile[low]) * _SIDE_MARGIN))
        if tile[low] and box[low] < tile[low] + margin:
            return False
        if tile[high] < end and box[high] > tile[high] - margin:
            return False
    return True


def _same_objects(
    instances_by_tile: Sequence[Sequence[_Seen]], tiles: Sequence[Box]
) -> list[list[_Seen]]:
    """Groups of instances, each of one object."""
    first = np.cumsum([0, *map(len, instances_by_tile)]).tolist()
    every = list(itertools.chain.from_iterable(instances_by_tile))
    group = list(range(len(every)))

    def root(i: int) -> int:
        while group[i] != i:
            group[i] = group[group[i]]
            i = group[i]
        return i

    for a, b in _pairs_that_meet(np.array(tiles)):
        boxes = [np.array([s.box for s in instances_by_tile[t]]).reshape(-1, 4) for t in (a, b)]
        for i, j in zip(*np.nonzero(_meet(*boxes)), strict=True):
            one, other = instances_by_tile[a][i], instances_by_tile[b][j]
            if one.category_id == other.category_id and _agree(one, other):
                roots = sorted((root(first[a] + int(i)), root(first[b] + int(j))))
                group[roots[1]] = roots[0]
    members: dict[int, list[_Seen]] = {}
    for i, instance in enumerate(every):
        members.setdefault(root(i), []).append(instance)
    return list(members.values())


def _pairs_that_meet(tiles: IntArray) -> Iterator[tuple[int, int]]:
    for a in range(len(tiles) - 1):
        for b in np.flatnonzero(_meet(tiles[a : a + 1], tiles[a + 1 :])[0]):
            yield a, a + 1 + int(b)


def _meet(a: IntArray, b: IntArray) -> BoolArray:
    """(N, 4) and (M, 4) boxes: (N, M) whether two share a pixel."""
    low = np.maximum(a[:, None, :2], b[None, :, :2])
    high = np.minimum(a[:, None, 2:], b[None, :, 2:])
    return np.asarray((low < high).all(-1), np.bool_)


def _agree(a: _Seen, b: _Seen) -> bool:
    """Whether the masks are one where both tiles look."""
    both = area(merge([a.mask, b.mask], intersect=True))
    if not both:
        return False
    left, top = (max(a.tile[i], b.tile[i]) for i in (0, 1))
    right, bottom = (min(a.tile[i], b.tile[i]) for i in (2, 3))
    shared = left, top, right, bottom
    of_each = [
        area(s.mask) if _holds(shared, s.box) else area(clipped(s.mask, shared)) for s in (a, b)
    ]
    return both >= AGREE * (sum(of_each) - both)


def _result(group: Sequence[_Seen], tiles: Sequence[Box]) -> dict[str, Any] | None:
    """The COCO result of an object; None for what another tile, which shows more of it, denies."""
    whole = [instance for instance in group if not instance.cut]
    best = max(whole or group, key=lambda instance: instance.score)
    mask = best.mask if whole or len(group) == 1 else merge([instance.mask for instance in group])
    if not whole and len(group) == 1 and _shown_elsewhere(best, tiles):
        return None
    return {
        "category_id": best.category_id,
        "segmentation": mask,
        "bbox": tight_box(mask),
        "score": best.score,
    }


def _shown_elsewhere(instance: _Seen, tiles: Sequence[Box]) -> bool:
    size = instance.mask["size"][0], instance.mask["size"][1]
    return any(
        tile != instance.tile
        and _holds(tile, instance.box)
        and _well_within(instance.box, tile, size)
        for tile in tiles
    )


def _holds(tile: Box, box: Box) -> bool:
    return tile[0] <= box[0] and tile[1] <= box[1] and box[2] <= tile[2] and box[3] <= tile[3]


def _median(values: Sequence[int]) -> int:
    return int(np.median(values))
