"""Index maps as PNG."""

import io
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image


def colours() -> list[int]:
    """PASCAL VOC's 256 colours, r g b each.

    The bits of an index are spread over the three from the highest bit down.
    """
    colours = []
    for index in range(256):
        rgb = [0, 0, 0]
        for bit in range(8):
            for channel in range(3):
                rgb[channel] |= (index >> (3 * bit + channel) & 1) << (7 - bit)
        colours += rgb
    return colours


PALETTE = colours()


def palette_png(indices: npt.NDArray[np.unsignedinteger[Any]]) -> bytes:
    """(H, W) of 0 to 255 as a PNG with VOC's palette."""
    image = Image.fromarray(indices.astype(np.uint8), "P")
    image.putpalette(PALETTE)
    return _png(image)


def grey_png(indices: npt.NDArray[np.unsignedinteger[Any]]) -> bytes:
    """(H, W) of 0 to 65,535 as a PNG of 16 bits."""
    return _png(Image.fromarray(indices.astype(np.uint16)))


def _png(image: Image.Image) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return buffer.getvalue()
