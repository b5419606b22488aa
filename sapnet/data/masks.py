"""Masks, polygons and boxes of COCO's kind: checked, and converted into one another.

This is the only place that hands segmentations to pycocotools. It trusts what it is given: damaged
text is read past its end, a polygon takes memory by the length of its outline, sizes overflow. So
what comes from outside passes a check here first (`check_size`, `check_rle`, `check_polygons`,
`check_box`, or `checked_rle`, which converts too); `encode`, `decode`, `from_runs`, `from_polygons`
and `merge` take what was checked, or was made here.

The text of a compressed RLE holds the run lengths (background first, down the columns) as
little-endian groups of 5 bits plus a continuation bit, offset by 48; from the fourth on each run is
a difference to the one two before.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from pycocotools import mask as coco_mask

from sapnet.errors import InvalidGeometry
from sapnet.types import BoolArray, ByteArray, FloatArray, Rle

IntArray = npt.NDArray[np.int64]
Size = tuple[int, int]
"""Height and width in pixels."""

MAX_PIXELS = 2**30
"""Most pixels of an image, below what pycocotools counts in 32 bits."""
MAX_RUNS = 4_000_000
"""Most runs of a mask."""
MAX_CORNERS = 100_000
"""Most corners of all polygons of an object."""
MAX_OUTLINE = 1_000_000
"""Pixels along the outlines of an object, each edge by its longer side; pycocotools takes some 80
bytes for each of one polygon."""

_SIZE_HINT = "give [height, width] of the image in pixels, as whole numbers"
_RLE_HINT = "give a COCO RLE {size: [height, width], counts} of the whole image"
_POLYGON_HINT = "give polygons [[x, y, x, y, x, y, ...], ...] in pixels of the image"
_BOX_HINT = "give [x, y, width, height] in pixels of the image"
_SIMPLER_HINT = "use fewer corners, or an RLE"


def check_size(size: Any) -> Size:
    """(height, width) of an image, checked.

    Raises:
        InvalidGeometry: not two whole numbers from 1, or more than MAX_PIXELS pixels together.
    """
    sides = tuple(size) if isinstance(size, list | tuple) else ()
    if len(sides) != 2 or not all(type(side) is int for side in sides):
        raise InvalidGeometry("the size is not two whole numbers", _SIZE_HINT)
    height, width = sides
    if height < 1 or width < 1:
        raise InvalidGeometry("the size has a side below 1", _SIZE_HINT)
    if max(sides) > MAX_PIXELS or height * width > MAX_PIXELS:
        raise InvalidGeometry(
            f"the image would have more than the {MAX_PIXELS:,} pixels allowed", _SIZE_HINT
        )
    return height, width


def check_rle(size: Any, counts: Any, image: Size) -> IntArray:
    """(R,) int64 run lengths of an RLE, compressed (text or bytes) or not (a list).

    Args:
        image: what `check_size` returned.

    Raises:
        InvalidGeometry: it is no mask of this image.
    """
    height, width = image
    sides = list(size) if isinstance(size, list | tuple) else []
    if not sides or not all(type(side) is int for side in sides):
        raise InvalidGeometry("the RLE's size is not two whole numbers", _RLE_HINT)
    if sides != [height, width]:
        plain = len(sides) == 2 and max(map(abs, sides)) <= MAX_PIXELS
        declared = f"size {sides}" if plain else "another size"
        raise InvalidGeometry(f"the RLE is for {declared}, the image has {[*image]}", _RLE_HINT)
    pixels = height * width
    if isinstance(counts, str | bytes):
        runs = run_lengths(counts, pixels)
    else:
        runs = _listed(counts, pixels)
    # Each is at most `pixels` before they are added up, so that nothing overflows.
    if not runs.size or runs.min() < 0 or runs.max() > pixels or runs.sum() != pixels:
        what = f"the RLE's runs do not add up to the {pixels} pixels of its image"
        raise InvalidGeometry(what, _RLE_HINT)
    return runs


def check_polygons(polygons: Any, image: Size) -> None:
    """Raises InvalidGeometry for what is not polygons [[x, y, ...], ...] in or near the image.

    A corner may lie outside of the image by as much as its longer side is long; what lies outside
    is cut off.

    Args:
        image: what `check_size` returned.
    """
    if not isinstance(polygons, list | tuple):
        raise InvalidGeometry("the segmentation is neither polygons nor an RLE", _POLYGON_HINT)
    if not polygons:
        raise InvalidGeometry("the segmentation is empty: there is no polygon", _POLYGON_HINT)
    corners, longest = 0, 0.0
    for polygon in polygons:
        if not isinstance(polygon, list | tuple) or len(polygon) < 6 or len(polygon) % 2:
            what = "a polygon needs at least three points, as a flat list [x, y, x, y, ...]"
            raise InvalidGeometry(what, _POLYGON_HINT)
        corners += len(polygon) // 2
        if corners > MAX_CORNERS:
            what = f"the polygons have more than the {MAX_CORNERS:,} corners allowed"
            raise InvalidGeometry(what, _SIMPLER_HINT)
        _check_numbers(polygon, "a polygon", _POLYGON_HINT)
        xs, ys = polygon[0::2], polygon[1::2]
        extent = _near(min(xs), max(xs), min(ys), max(ys), image, "a polygon", _POLYGON_HINT)
        longest += extent * len(xs)
    if longest > MAX_OUTLINE and sum(map(_outline, polygons)) > MAX_OUTLINE:
        what = f"the outline of the polygons is longer than the {MAX_OUTLINE:,} pixels allowed"
        raise InvalidGeometry(what, _SIMPLER_HINT)


def check_box(box: Any, image: Size) -> None:
    """Refuse what is not a box [x, y, width, height] in or near the image.

    Args:
        box: in pixels; it may reach beyond the image as far as `check_polygons` allows.
        image: what `check_size` returned.

    Raises:
        InvalidGeometry: it is no such box.
    """
    if not isinstance(box, list | tuple) or len(box) != 4:
        raise InvalidGeometry("the box is not four numbers", _BOX_HINT)
    _check_numbers(box, "the box", _BOX_HINT)
    x, y, width, height = box
    if width < 0 or height < 0:
        raise InvalidGeometry("the box has a negative side", _BOX_HINT)
    _near(x, x + width, y, y + height, image, "the box", _BOX_HINT)


def check_area(area: Any, image: Size) -> None:
    """Refuse what is not the area of an object in or near the image, in pixels.

    Raises:
        InvalidGeometry: it is no number, below 0, or larger than the image and its surroundings.
    """
    _check_numbers([area], "the area", "give the object's number of pixels, or leave it out")
    if not 0 <= area <= (image[0] + 2 * max(image)) * (image[1] + 2 * max(image)):
        hint = "give the object's number of pixels, or leave it out"
        raise InvalidGeometry("the area is below 0 or larger than the image", hint)


def checked_rle(segmentation: Any, image: Size) -> Rle:
    """Polygons, or an RLE compressed or not, as a compressed RLE of an image of (h, w).

    Raises:
        InvalidGeometry: it is neither, or not of this image.
    """
    image = check_size(image)
    if not isinstance(segmentation, Mapping):
        check_polygons(segmentation, image)
        return from_polygons(segmentation, *image)
    counts = segmentation.get("counts")
    runs = check_rle(segmentation.get("size"), counts, image)
    if isinstance(counts, str | bytes):
        text = counts if isinstance(counts, str) else counts.decode("ascii")
        return {"size": [*image], "counts": text}
    return from_runs(runs, image)


def run_lengths(counts: str | bytes, pixels: int | None = None) -> IntArray:
    """(R,) int64 run lengths in pixels, background first. InvalidGeometry on damaged text.

    Args:
        pixels: of the image; text of more runs than these, or than MAX_RUNS, is refused.
    """
    try:
        text = counts.encode() if isinstance(counts, str) else counts
    except UnicodeEncodeError:
        raise InvalidGeometry("RLE counts hold a character that does not belong there") from None
    codes = np.frombuffer(text, dtype=np.uint8) - np.uint8(48)  # below it wraps round
    if codes.size == 0:
        return np.zeros(0, dtype=np.int64)
    if codes.max() > 63:
        raise InvalidGeometry("RLE counts hold a character that does not belong there")
    last = (codes & 32) == 0  # the last group of each number
    if not last[-1]:
        raise InvalidGeometry("RLE counts are cut off")
    if pixels is not None:
        _check_number_of_runs(int(np.count_nonzero(last)), pixels)
    ends = np.flatnonzero(last)
    groups = np.diff(ends, prepend=-1)
    longest = int(groups.max())
    if longest > 7:
        raise InvalidGeometry("RLE counts hold a number that is too large")
    values = np.where(codes[ends] & 16, np.int64(-1), np.int64(0))  # the sign, in all bits above
    for back in range(longest):  # the groups of each number from its last, the highest, on
        has = groups > back
        values[has] = values[has] << 5 | (codes[ends[has] - back] & 31)
    # runs[i] = values[i] + runs[i-2] for i > 2: two interleaved cumulative sums.
    values[1::2] = np.cumsum(values[1::2])
    values[2::2] = np.cumsum(values[2::2])
    if values.min() < 0:
        raise InvalidGeometry("RLE counts hold a negative run")
    return values


def from_runs(runs: IntArray, size: Size) -> Rle:
    """A compressed RLE.

    Args:
        runs: (R,) run lengths, background first, that add up to h·w.
    """
    height, width = size
    packed = coco_mask.frPyObjects({"size": [height, width], "counts": runs.tolist()}, *size)
    return _rle(packed)


def from_polygons(polygons: Sequence[Sequence[float]], height: int, width: int) -> Rle:
    """A compressed RLE of polygons [x, y, ...]: the union of each filled by the even-odd rule."""
    return _rle(coco_mask.merge(coco_mask.frPyObjects([list(p) for p in polygons], height, width)))


def placed(window: BoolArray, top: int, left: int, size: Size) -> Rle:
    """A compressed RLE of an image of (h, w), from the pixels (rows, columns) of a part of it.

    Args:
        window: bool.
        top, left: its place in the image, within which it lies.
    """
    height, width = size
    pixels = np.zeros((height, window.shape[1]), np.uint8, order="F")
    pixels[top : top + window.shape[0]] = window
    edges = np.flatnonzero(np.diff(pixels.ravel(order="F"), prepend=0, append=0))
    edges += left * height
    if not edges.size or edges[-1] < height * width:  # no run of zero pixels at the end
        edges = np.append(edges, height * width)
    return from_runs(np.diff(edges, prepend=0), size)


def encode(mask: npt.NDArray[Any]) -> Rle:
    """(H, W) bool, or numbers of which all but 0 are the object, to compressed RLE."""
    pixels = np.asfortranarray(mask.astype(np.bool_, copy=False))
    return _rle(coco_mask.encode(pixels.view(np.uint8)))


def encode_all(masks: BoolArray) -> list[Rle]:
    """(M, H, W) bool to M compressed RLEs."""
    return [encode(mask) for mask in masks]


def decode(rle: Rle) -> BoolArray:
    """(H, W) bool."""
    return np.asarray(coco_mask.decode(rle), np.bool_)


def decode_all(rles: Sequence[Rle]) -> ByteArray:
    """(H, W, M) uint8, 0 and 1, of at least one mask."""
    return np.asarray(coco_mask.decode(list(rles)), np.uint8)


def merge(rles: Sequence[Rle], *, intersect: bool = False) -> Rle:
    """The union of masks of one size, or what they have in common."""
    return _rle(coco_mask.merge(list(rles), intersect=intersect))


def clipped(rle: Rle, box: tuple[int, int, int, int]) -> Rle:
    """The part of a mask within a box x1, y1, x2, y2 in whole pixels, x2 and y2 just behind it."""
    x1, y1, x2, y2 = box
    box_xywh = np.array([[x1, y1, x2 - x1, y2 - y1]], np.float64)
    (window,) = coco_mask.frPyObjects(box_xywh, *rle["size"])
    return merge([rle, window], intersect=True)


def moved(rle: Rle, top: int, left: int, size: Size) -> Rle:
    """The mask of a part of an image, as a mask of the image of (h, w).

    Args:
        rle: of the part.
        top, left: the part's place in the image, within which it lies.
    """
    x, y, w, h = (int(value) for value in tight_box(rle))
    return placed(decode(rle)[y : y + h, x : x + w], top + y, left + x, size)


def area(rle: Rle) -> int:
    """Pixels."""
    return int(coco_mask.area(rle))


def tight_box(rle: Rle) -> list[float]:
    """x, y, width, height in pixels."""
    box: list[float] = coco_mask.toBbox(rle).tolist()
    return box


def tight_boxes(rles: Sequence[Rle]) -> FloatArray:
    """(M, 4) float32 xyxy boxes; x2 and y2 lie just behind the last column and row."""
    if not rles:
        return np.zeros((0, 4), np.float32)
    boxes = np.asarray(coco_mask.toBbox(list(rles)), np.float32).reshape(-1, 4)
    boxes[:, 2:] += boxes[:, :2]
    return boxes


def mask_iou(rles: Sequence[Rle]) -> FloatArray:
    """(M, M) float32 IoU of masks that are not empty."""
    if not rles:
        return np.zeros((0, 0), np.float32)
    listed = list(rles)
    return np.asarray(coco_mask.iou(listed, listed, [0] * len(listed)), np.float32)


def outline(mask: BoolArray) -> BoolArray:
    """Pixels of a mask (H, W) bool that have a neighbour outside of it or of the image."""
    padded = np.pad(mask, 1)
    inner = padded[:-2, 1:-1] & padded[2:, 1:-1] & padded[1:-1, :-2] & padded[1:-1, 2:]
    return mask & ~inner


def holds_points(mask: Rle, xy: npt.NDArray[np.floating]) -> BoolArray:
    """Which points lie in the mask: (J,) bool for xy (J, 2), pixels with centres at .5.

    A point counts for the pixel that it lies in; one outside the image is in no mask.
    """
    height, width = mask["size"]
    column, row = np.floor(np.asarray(xy, dtype=np.float64).reshape(-1, 2)).astype(np.int64).T
    inside = (column >= 0) & (column < width) & (row >= 0) & (row < height)
    ends = np.cumsum(run_lengths(mask["counts"]))
    run = np.searchsorted(ends, column * height + row, side="right")
    return inside & (run < len(ends)) & (run % 2 == 1)


def _rle(packed: Mapping[str, Any]) -> Rle:
    """The RLE of one that pycocotools returns, with bytes for text."""
    return {"size": [int(n) for n in packed["size"]], "counts": packed["counts"].decode("ascii")}


def _listed(counts: Any, pixels: int) -> IntArray:
    if isinstance(counts, list | tuple):
        _check_number_of_runs(len(counts), pixels)
    if not isinstance(counts, list | tuple) or not set(map(type, counts)) <= {int}:
        raise InvalidGeometry("the RLE's counts are neither a text nor whole numbers", _RLE_HINT)
    try:
        return np.array(counts, np.int64)
    except OverflowError:
        raise InvalidGeometry("the RLE has a run that is too long", _RLE_HINT) from None


def _check_number_of_runs(runs: int, pixels: int) -> None:
    if runs > min(pixels + 2, MAX_RUNS):  # empty ones may stand at both ends
        raise InvalidGeometry(f"the RLE has {runs:,} runs, which are too many", _RLE_HINT)


def _check_numbers(values: Sequence[Any], what: str, hint: str) -> None:
    if not set(map(type, values)) <= {int, float}:
        raise InvalidGeometry(f"{what} holds what is no number", hint)
    try:
        finite = math.isfinite(sum(values))
    except OverflowError:
        finite = False
    if not finite:
        raise InvalidGeometry(f"{what} holds NaN, an infinity or a number that is too large", hint)


def _near(
    left: float, right: float, top: float, bottom: float, image: Size, what: str, hint: str
) -> float:
    """The longer side of a box. Raises InvalidGeometry where it lies far outside of the image."""
    height, width = image
    margin = max(image)
    inside = -margin <= left and right <= width + margin
    if not (inside and -margin <= top and bottom <= height + margin):
        raise InvalidGeometry(f"{what} lies far outside its image of {width}×{height} pixels", hint)
    return max(right - left, bottom - top)


def _outline(polygon: Sequence[float]) -> float:
    corners = np.asarray(polygon, np.float64).reshape(-1, 2)
    steps = np.abs(corners - np.roll(corners, 1, axis=0))
    return float(steps.max(axis=1).sum())
