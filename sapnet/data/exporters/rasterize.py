"""What a reader of an export sees: polygons back to pixels, and how much they agree with a mask."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw

from sapnet.data.masks import decode, from_polygons
from sapnet.types import BoolArray

Polygon = npt.NDArray[np.floating] | npt.NDArray[np.integer]


def filled(polygons: Sequence[Polygon], height: int, width: int) -> BoolArray:
    """Fill polygons as pycocotools does: each by the even-odd rule, then all together.

    Args:
        polygons: (P, 2) x y in pixels each, P ≥ 3.

    Returns:
        (h, w) bool.
    """
    flat = [np.asarray(p, np.float64).ravel().tolist() for p in polygons]
    return decode(from_polygons(flat, height, width))


def painted(polygon: Polygon, height: int, width: int) -> BoolArray:
    """As OpenCV's fillPoly paints one: the inside by the even-odd rule, and the outline itself.

    Args:
        polygon: (P, 2) x y, cut down to whole pixels first, as the YOLO family does.
    """
    pixels = np.floor(polygon).astype(np.int64)
    image = Image.new("1", (width, height))
    ring = [(int(x), int(y)) for x, y in np.concatenate([pixels, pixels[:1]])]
    ImageDraw.Draw(image).line(ring, fill=1)
    return filled([pixels + 0.5], height, width) | np.asarray(image)


def agreement(one: BoolArray, other: BoolArray) -> float:
    """Intersection over union of two masks of one shape, not both empty."""
    return float(np.count_nonzero(one & other) / np.count_nonzero(one | other))
