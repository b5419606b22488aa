"""Stored and sent images, decoded."""

from pathlib import Path
from typing import BinaryIO

from sapnet.data.images import ImageProblem, read_rgb
from sapnet.types import ByteArray


class NotAnImage(Exception):
    """What was to be looked at is no usable image; the message says why."""


def read_image(source: Path | BinaryIO, max_pixels: int) -> ByteArray:
    """(H, W, 3) uint8, as the training reads it. Raises NotAnImage."""
    try:
        return read_rgb(source, max_pixels)
    except ImageProblem as error:
        raise NotAnImage(str(error)) from error
