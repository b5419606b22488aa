"""A mask refined by clicks: what a person points at belongs to the object, or does not.

Works on the image round the mask, made small, so that an answer takes a fraction of a second.
Imports no torch.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image

from sapnet.proposals.bags import point_pixel
from sapnet.proposals.hierarchy.generator import HierarchyGenerator
from sapnet.proposals.interactive.clicks import Click, clicked_pixels
from sapnet.proposals.interactive.mask_edits import View, changed
from sapnet.types import BoolArray, ByteArray, ImageInfo, PointAnnotation

_SIDE = 224  # pixels: the part of the image is worked on at most so large
_MARGIN, _LEAST = 0.6, 24  # round the mask and the clicks: share of their extent, pixels


def suggest(
    image: ByteArray,
    clicks: Sequence[Click],
    mask: BoolArray | None = None,
    candidates: Sequence[BoolArray] = (),
) -> BoolArray:
    """The mask that contains every positive click and no negative one.

    It is changed along the image's edges near the clicks and left alone elsewhere. A mask that
    honours the clicks comes back as it is. Later clicks change what earlier ones have made.

    Args:
        image: (H, W, 3) uint8 RGB.
        clicks: in the order in which they were made.
        mask: (H, W) bool, the present one; None where there is none yet.
        candidates: (H, W) bool each, what the object might be.

    Returns:
        (H, W) bool, a new array.

    Raises:
        ValueError: a click lies outside the image, two contradict each other, a mask is of another
            size, or there is neither a mask nor a positive click.
    """
    size = image.shape[:2]
    pixels = clicked_pixels(clicks, size)
    if any(m.shape != size for m in ([] if mask is None else [mask]) + list(candidates)):
        raise ValueError(f"a mask is not of the image's size {size[0]}×{size[1]}")
    if mask is None or not mask.any():
        mask = _begun(image, clicks, pixels, candidates)
    if all(mask[pixel] == wanted for pixel, wanted in pixels.items()):
        return mask.copy()
    frame = _frame(mask, list(pixels), size)
    small = _Small.of(image[frame], frame)
    before = small.mask(mask)
    places = {small.place(pixel): wanted for pixel, wanted in pixels.items()}
    wholes = [m for m in map(small.mask, candidates) if m.any() and not m.all()]
    view, now = View.of(small.image), before
    for place, wanted in places.items():
        if now[place] != wanted:
            kept = [p for p, other in places.items() if other != wanted]
            kept = [p for p in kept if now[p] != wanted]
            now = changed(view, now, place, kept, wholes)
    out = mask.copy()
    flipped = small.enlarged(now ^ before)
    out[frame][flipped] = small.enlarged(now)[flipped]
    for pixel, wanted in pixels.items():
        out[pixel] = wanted
    return out


def _begun(
    image: ByteArray,
    clicks: Sequence[Click],
    pixels: dict[tuple[int, int], bool],
    candidates: Sequence[BoolArray],
) -> BoolArray:
    """A mask to begin with: the one that honours most clicks, of equals the first.

    Of the candidates, or else of what is proposed for the first positive click.
    """
    positive = [c for c in clicks if c.positive]
    if not positive:
        raise ValueError("there is neither a mask nor a positive click to start from")
    order = [positive[0], *(c for c in clicks if c != positive[0])]
    points = [PointAnnotation(i, 0, 0, c.x, c.y) for i, c in enumerate(order)]
    info = ImageInfo(0, "", image.shape[1], image.shape[0])
    first = point_pixel(positive[0].x, positive[0].y, info.size)
    drawn = [c for c in candidates if c[first]]
    masks = drawn
    if not masks:
        proposed = next(HierarchyGenerator().propose(image, info, points)).masks
        assert not isinstance(proposed, tuple)  # the hierarchy draws, it writes no RLE
        masks = list(proposed)
    if not masks:
        masks = [np.zeros(info.size, bool)]
        masks[0][first] = True
    return max(masks, key=lambda m: sum(bool(m[p]) == wanted for p, wanted in pixels.items()))


def _frame(
    mask: BoolArray, pixels: Sequence[tuple[int, int]], size: tuple[int, ...]
) -> tuple[slice, slice]:
    """The part of the image to look at."""
    spans = []
    for axis in (0, 1):
        occupied = np.flatnonzero(mask.any(axis=1 - axis))
        ends = [int(occupied[0]), int(occupied[-1]), *(pixel[axis] for pixel in pixels)]
        spans.append((min(ends), max(ends) + 1))
    margin = max(_LEAST, round(_MARGIN * max(end - start for start, end in spans)))
    rows, columns = (
        slice(max(start - margin, 0), min(end + margin, length))
        for (start, end), length in zip(spans, size, strict=True)
    )
    return rows, columns


@dataclass(frozen=True)
class _Small:
    """A part of an image, made small."""

    image: ByteArray
    frame: tuple[slice, slice]

    @classmethod
    def of(cls, image: ByteArray, frame: tuple[slice, slice]) -> "_Small":
        """image: the part that is framed."""
        height, width = image.shape[:2]
        ratio = min(1.0, _SIDE / max(height, width))
        size = max(round(width * ratio), 2), max(round(height * ratio), 2)
        if size != (width, height):
            part = Image.fromarray(np.ascontiguousarray(image))
            image = np.asarray(part.resize(size, Image.Resampling.BOX))
        return cls(np.ascontiguousarray(image), frame)

    def mask(self, mask: BoolArray) -> BoolArray:
        return _resized(mask[self.frame], self.image.shape[:2])

    def enlarged(self, mask: BoolArray) -> BoolArray:
        rows, columns = self.frame
        return _resized(mask, (rows.stop - rows.start, columns.stop - columns.start))

    def place(self, pixel: tuple[int, int]) -> tuple[int, int]:
        place = []
        for axis, (span, index) in enumerate(zip(self.frame, pixel, strict=True)):
            length = self.image.shape[axis]
            place.append((index - span.start) * length // (span.stop - span.start))
        return place[0], place[1]


def _resized(mask: BoolArray, size: tuple[int, ...]) -> BoolArray:
    if mask.shape == tuple(size):
        return mask.copy()
    soft = Image.fromarray(mask.astype(np.float32))
    resized = soft.resize((size[1], size[0]), Image.Resampling.BILINEAR)
    return np.asarray(resized) >= 0.5
