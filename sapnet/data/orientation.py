"""The EXIF orientation of an image, and where a place of the upright image is in stored pixels.

Points, masks and boxes of this project are in pixels as a file stores them. Viewers and many
labelling tools show an image upright: turned and mirrored as its EXIF orientation says
(`sapnet.data.exif` reads it). What was drawn on the upright image is brought back here.

Orientations are 1 to 8, as in EXIF 2.32, tag 0x0112; 1 is "as it is". From 5 on width and height
are exchanged. Sizes are (h, w).
"""

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from sapnet.data.exif import AS_STORED
from sapnet.data.masks import Size, decode, encode
from sapnet.types import Box, Rle

Frame = Literal["stored", "upright"]
"""What coordinates refer to: the pixels of the file, or the image as its EXIF has it shown."""

# Of each: whether the axes are exchanged, and then whether the stored x and y count backwards.
_MOVES = {
    1: (False, False, False),
    2: (False, True, False),
    3: (False, True, True),
    4: (False, False, True),
    5: (True, False, False),
    6: (True, False, True),
    7: (True, True, True),
    8: (True, True, False),
}


def is_turned(orientation: int) -> bool:
    """Whether width and height of the upright image are those of the stored one exchanged."""
    return _MOVES[orientation][0]


def exchanged(size: Size) -> Size:
    """(w, h) of (h, w)."""
    return size[1], size[0]


def upright_size(size: Size, orientation: int) -> Size:
    """(h, w) of the image as it is shown.

    Args:
        size: as stored.
    """
    return exchanged(size) if is_turned(orientation) else size


def stored_places(
    xy: npt.NDArray[np.float64], orientation: int, size: Size
) -> npt.NDArray[np.float64]:
    """Places of the upright image, in stored pixels.

    Args:
        xy: (N, 2).
        size: as stored.
    """
    turned, back_x, back_y = _MOVES[orientation]
    moved = np.array(xy[:, ::-1] if turned else xy, dtype=np.float64)
    height, width = size
    if back_x:
        moved[:, 0] = width - moved[:, 0]
    if back_y:
        moved[:, 1] = height - moved[:, 1]
    return moved


def stored_point(x: float, y: float, orientation: int, size: Size) -> tuple[float, float]:
    """A point of the upright image, in stored pixels.

    One on the left or upper border, which counts as inside, stays inside: in the middle of its
    pixel.
    """
    turned, back_x, back_y = _MOVES[orientation]
    height, width = size
    if turned:
        x, y = y, x
    if back_x:
        x = width - x if x else width - 0.5
    if back_y:
        y = height - y if y else height - 0.5
    return x, y


def stored_box(box: Sequence[float], orientation: int, size: Size) -> list[float]:
    """x, y, width, height of a box on the upright image, in stored pixels."""
    x, y, w, h = box
    left, top, right, bottom = stored_corners((x, y, x + w, y + h), orientation, size)
    return [left, top, right - left, bottom - top]


def stored_corners(box: Box, orientation: int, size: Size) -> Box:
    """An xyxy box on the upright image, in stored pixels."""
    places = stored_places(np.array(box).reshape(2, 2), orientation, size)
    (left, top), (right, bottom) = places.min(0).tolist(), places.max(0).tolist()
    return left, top, right, bottom


def stored_polygon(polygon: Sequence[float], orientation: int, size: Size) -> list[float]:
    """x, y, x, y, … on the upright image, in stored pixels."""
    corners = np.asarray(polygon, dtype=np.float64).reshape(-1, 2)
    flat: list[float] = stored_places(corners, orientation, size).ravel().tolist()
    return flat


def stored_array(array: npt.NDArray[Any], orientation: int) -> npt.NDArray[Any]:
    """A view of (H, W, …) pixels of the upright image, as they are stored."""
    turned, back_x, back_y = _MOVES[orientation]
    if turned:
        array = array.swapaxes(0, 1)
    return array[:: -1 if back_y else 1, :: -1 if back_x else 1]


def upright_array(array: npt.NDArray[Any], orientation: int) -> npt.NDArray[Any]:
    """A view of (H, W, …) stored pixels, as the image is shown."""
    return stored_array(array, {6: 8, 8: 6}.get(orientation, orientation))


def stored_mask(mask: Rle, orientation: int) -> Rle:
    """A mask of the upright image, in stored pixels.

    Args:
        mask: checked, compressed.
    """
    if orientation == AS_STORED:
        return mask
    return encode(np.asfortranarray(stored_array(decode(mask), orientation)))
