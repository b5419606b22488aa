"""Small JPEGs of masks inside the page, within a budget of bytes."""

import base64
import io
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from sapnet.data.drawing import PALETTE, colour, dots, paint
from sapnet.data.images import ImageProblem, read_rgb
from sapnet.data.masks import decode, outline, tight_box
from sapnet.data.pixels import Ranges
from sapnet.types import ByteArray, ImageInfo, PointAnnotation, PseudoMask, Rle

SIDE, WIDE = 224, 560  # pixels: longest side of a mask's crop, and of a whole image
_MASK, _TRUTH = PALETTE[0], PALETTE[1]
_LEAST = 24  # pixels of the image that a crop shows at least


class Thumbnails:
    """Draws data URIs, and counts the bytes that are left.

    Its methods return None where the budget has no room any more, or the image cannot be read.

    Args:
        paths: image files by image id.
        budget: bytes of all data URIs together.
        ranges: by which images of more than 8 bits are read.
    """

    def __init__(
        self,
        paths: Mapping[int, Path],
        budget: int = 2_000_000,
        ranges: Ranges | None = None,
    ) -> None:
        self._paths, self._left, self._ranges = paths, budget, ranges
        self._last: tuple[int, ByteArray] | None = None

    def of_mask(
        self, mask: PseudoMask, annotation: PointAnnotation, truth: Rle | None
    ) -> str | None:
        """The surroundings of a delivered mask twice: with the point, and with the mask over it.

        The outline of the ground truth is blue.
        """
        image = self._read(annotation.image_id)
        if image is None:
            return None
        masks = [mask.segmentation, *([truth] if truth else [])]
        window = window_of(masks, (annotation.x, annotation.y), image.shape[:2])
        left, top, right, bottom = window
        scale = SIDE / max(right - left, bottom - top)
        size = (max(round((right - left) * scale), 1), max(round((bottom - top) * scale), 1))
        crop = Image.fromarray(image[top:bottom, left:right])
        plain = np.asarray(crop.resize(size, Image.Resampling.BICUBIC))
        drawn = plain.astype(np.float32)
        for number, (rle, rgb) in enumerate(zip(masks, (_MASK, _TRUTH), strict=False)):
            inside = decode(rle)[top:bottom, left:right] * np.uint8(255)
            shape = np.asarray(Image.fromarray(inside).resize(size)) >= 128
            if number == 0:
                drawn[shape] = 0.6 * drawn[shape] + 0.4 * np.array(rgb, dtype=np.float32)
            drawn[outline(shape)] = rgb
        point = ((annotation.x - left) * scale, (annotation.y - top) * scale)
        pair = [dots(plain, [point]), dots(drawn.astype(np.uint8), [point])]
        return self._keep(np.concatenate([pair[0], np.full_like(plain[:, :4], 128), pair[1]], 1))

    def of_image(
        self, info: ImageInfo, masks: Sequence[PseudoMask], points: Sequence[PointAnnotation]
    ) -> str | None:
        """A whole image with all of its delivered masks."""
        image = self._read(info.id)
        if image is None:
            return None
        drawn = paint(image, [(mask.segmentation, colour(n)) for n, mask in enumerate(masks)])
        scale = min(WIDE / max(image.shape[:2]), 2.0)
        size = (max(round(image.shape[1] * scale), 1), max(round(image.shape[0] * scale), 1))
        small = np.asarray(Image.fromarray(drawn).resize(size, Image.Resampling.LANCZOS))
        return self._keep(dots(small, [(p.x * scale, p.y * scale) for p in points], 2.0))

    def _read(self, image_id: int) -> ByteArray | None:
        if self._last is None or self._last[0] != image_id:
            try:
                self._last = image_id, read_rgb(self._paths[image_id], ranges=self._ranges)
            except ImageProblem:
                return None
        return self._last[1]

    def _keep(self, pixels: ByteArray) -> str | None:
        """The image as a data URI; None where there is no room for it."""
        file = io.BytesIO()
        Image.fromarray(pixels).save(file, format="JPEG", quality=80, optimize=True)
        uri = "data:image/jpeg;base64," + base64.b64encode(file.getvalue()).decode()
        if len(uri) > self._left:
            return None
        self._left -= len(uri)
        return uri


def window_of(
    masks: Sequence[Rle], point: tuple[float, float], size: tuple[int, int]
) -> tuple[int, int, int, int]:
    """What to show of an image of (h, w): the masks and the point with a margin of a third.

    Returns:
        Left, top, right, bottom in pixels; square where the image has room for it.
    """
    boxes = np.array([tight_box(mask) for mask in masks], dtype=np.float64)
    low = np.minimum(boxes[:, :2].min(0), point)
    high = np.maximum((boxes[:, :2] + boxes[:, 2:]).max(0), point)
    side = max(float((high - low).max()) * 5 / 3, _LEAST)
    middle = (low + high) / 2
    edges = []
    for center, length in zip(middle, (size[1], size[0]), strict=True):
        span = min(round(side), length)
        start = min(max(round(center - span / 2), 0), length - span)
        edges.append((start, start + span))
    (left, right), (top, bottom) = edges
    return left, top, right, bottom
