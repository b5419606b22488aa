"""Stored and sent images, decoded."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from app.storage.decode_budget import DECODING
from sapnet.types import ByteArray

if TYPE_CHECKING:
    from sapnet.data.pixels import Ranges


class NotAnImage(Exception):
    """What was to be looked at is no usable image; the message says why.

    Attributes:
        hint: what helps; None for what helps with any.
    """

    hint: str | None = None


@contextmanager
def decoded_image(
    source: Path | BinaryIO, max_pixels: int, ranges: "Ranges | None" = None
) -> Iterator[ByteArray]:
    """Decode an image as the training reads it, within the budget of decoded pixels.

    Args:
        ranges: of values, by which more than 8 bits a pixel are reduced.

    Yields:
        (H, W, 3) uint8. The budget is held inside this block.

    Raises:
        NotAnImage: it is no usable image.
        Unavailable: other requests hold all of the budget.
    """
    from sapnet.data.images import ImageProblem, read_header, read_rgb  # loads Pillow and numpy

    with ExitStack() as stack:
        try:
            height, width = read_header(source, max_pixels).size
            stack.enter_context(DECODING.room(height * width))
            image = read_rgb(source, max_pixels, ranges)
        except ImageProblem as error:
            raise NotAnImage(str(error)) from error
        yield image


def media_type_of(head: bytes) -> str:
    """Return the media type of a checked image, by its first 12 bytes.

    It is one of `sapnet.data.images.FORMATS`.
    """
    for magic, kind in (
        (b"\xff\xd8", "image/jpeg"),
        (b"\x89PNG", "image/png"),
        (b"BM", "image/bmp"),
        (b"RIFF", "image/webp"),
    ):
        if head.startswith(magic):
            return kind
    return "image/tiff"
