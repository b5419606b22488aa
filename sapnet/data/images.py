"""Open images: prove that a file is one, and read it as RGB. Pillow alone, no torch.

A point is in pixels of the image as it is stored, so the EXIF orientation is never applied: an
image that viewers show upright by its tag keeps its stored width and height here
(`sapnet.data.orientation` has the way from one to the other).
"""

import re
import threading
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from PIL import Image
from PIL.ImageFile import ImageFile

from sapnet.data.exif import AS_STORED, orientation_of
from sapnet.data.file_pairing import files_below
from sapnet.data.masks import Size
from sapnet.data.orientation import is_turned
from sapnet.data.pixels import PAGES, Decoded, FloatValues, Pixels, Ranges, pixels_of
from sapnet.errors import SapnetError, is_out_of_memory
from sapnet.types import ByteArray

FORMATS = ("JPEG", "PNG", "WEBP", "TIFF", "BMP")
SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".tif", ".tiff", ".bmp")
MAX_PIXELS = 100_000_000
_OPENING = threading.Lock()
_ORIENTATION = 0x0112  # tag of EXIF and TIFF
_HEAD = 256


class ImageProblem(SapnetError):
    """A file is not a usable image. The message says why, in plain words."""

    reason = "bad_image"


def image_files(paths: Iterable[Path]) -> dict[str, Path]:
    """Image files by name, of files and of folders with all that is below them.

    Args:
        paths: files, taken as they are; and folders, of which files with one of SUFFIXES are taken.

    Returns:
        Files by name: the file's own, or its path from the folder given.

    Raises:
        ImageProblem: a folder has no image, or two files have one name.
    """
    by_name: dict[str, Path] = {}
    for path in paths:
        files = [path]
        if path.is_dir():
            files = sorted(f for f in files_below(path).values() if f.suffix.lower() in SUFFIXES)
            if not files:
                raise ImageProblem(f"there is no image in {path} ({', '.join(SUFFIXES)})")
        for file in files:
            name = file.relative_to(path).as_posix() if file != path else file.name
            if name in by_name:
                raise ImageProblem(f"{by_name[name]} and {file} would both be called {name}")
            by_name[name] = file
    return by_name


def drawings(names: Iterable[str], suffix: str) -> dict[str, Path]:
    """Relative paths of drawings over images, by the image's name.

    The image's suffix is replaced by `suffix`; where two would become one file (a.jpg and a.png),
    `suffix` follows the whole name.
    """
    plain = {name: Path(name).with_suffix(suffix) for name in names}
    taken = Counter(plain.values())
    return {name: path if taken[path] == 1 else Path(name + suffix) for name, path in plain.items()}


@dataclass(frozen=True, slots=True)
class Inspection:
    """Properties of an image file whose pixels were decoded.

    Attributes:
        size: (h, w) as stored.
        orientation: EXIF's, 1 to 8.
        notes: what is lost when it is read, in words that are the same for all images.
    """

    size: Size
    orientation: int = AS_STORED
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Header:
    """Properties of an image file from its header.

    Attributes:
        size: (h, w) as stored.
        deep: whether a pixel may have more than 8 bits.
    """

    size: Size
    deep: bool


def inspect(source: Path | BinaryIO, max_pixels: int = MAX_PIXELS) -> Inspection:
    """Decode all pixels of an image, and say what there is to be known of it.

    Raises:
        ImageProblem: the file is missing, empty, cut off, of another format, or has more than
            `max_pixels` pixels (known from the header, before anything is decoded).
    """
    with _pixels(source, max_pixels) as pixels:
        size = pixels.image.height, pixels.image.width
        notes = pixels.notes
    with _header(source, max_pixels) as image:
        return Inspection(size, orientation_of(source), (*_pages(image), *notes))


def probe(source: Path | BinaryIO, max_pixels: int = MAX_PIXELS) -> Size:
    """(height, width) of an image, after all its pixels have been decoded.

    Raises:
        ImageProblem: as `inspect` does.
    """
    return inspect(source, max_pixels).size


def read_header(source: Path | BinaryIO, max_pixels: int = MAX_PIXELS) -> Header:
    """Raises ImageProblem as `inspect`, but for what only shows once pixels are decoded."""
    with _header(source, max_pixels) as image:
        height, width = image.height, image.width
        if image.format == "TIFF" and is_turned(_left_as_stored(image)):
            height, width = width, height
        deep = image.mode.startswith(("I", "F")) or ";16" in _raw_mode(image)
        return Header((height, width), deep)


def read_rgb(
    source: Path | BinaryIO, max_pixels: int = MAX_PIXELS, ranges: Ranges | None = None
) -> ByteArray:
    """The image as (H, W, 3) uint8 RGB, in stored orientation (no EXIF rotation).

    Args:
        ranges: by which images of more than 8 bits are reduced, those of a dataset or a model; else
            each by its own. `sapnet.data.pixels` says what becomes of which pixels.

    Raises:
        ImageProblem: as `inspect` does.
    """
    with _pixels(source, max_pixels) as pixels:
        return pixels.rgb(ranges)


def read_thumbnail(source: Path | BinaryIO, side: int, max_pixels: int = MAX_PIXELS) -> ByteArray:
    """The image as (side, side, 3) uint8 RGB, in stored orientation, whatever its proportions.

    Of a JPEG no more than is needed is decoded.

    Raises:
        ImageProblem: as `inspect` does.
    """
    with _pixels(source, max_pixels, least=side) as pixels:
        rgb = Image.fromarray(pixels.rgb())
    return np.asarray(rgb.resize((side, side), Image.Resampling.BOX))


def value_sample(source: Path, most: int) -> tuple[str, FloatValues] | None:
    """Valid values of an image of more than 8 bits a pixel.

    Returns:
        Its key in `Ranges`, and at most `most` of its valid values, sorted, (n,) float64; None for
        an image of 8 bits.

    Raises:
        ImageProblem: as `inspect` does.
    """
    if not read_header(source).deep:
        return None
    with _pixels(source, MAX_PIXELS) as pixels:
        return None if pixels.kind is None else (pixels.kind, pixels.sample(most))


@contextmanager
def _pixels(source: Path | BinaryIO, max_pixels: int, least: int | None = None) -> Iterator[Pixels]:
    """Decode an image.

    Args:
        least: pixels of each side that are needed; a JPEG may be decoded at a part of its size.
    """
    with ExitStack() as opened:

        def decode(change: Callable[[str], str] = lambda raw: raw) -> Decoded:
            decoded = _decoded(source, max_pixels, change, least)
            opened.enter_context(decoded.image)  # not `close`: a file of the caller's stays open
            return decoded

        first = decode()
        try:
            yield pixels_of(first, decode)
        except (ValueError, OSError) as error:  # of a conversion that Pillow does not have
            if is_out_of_memory(error):
                raise
            raise ImageProblem(f"its pixels cannot be read as colours: {error}") from error


def _decoded(
    source: Path | BinaryIO,
    max_pixels: int,
    change: Callable[[str], str],
    least: int | None = None,
) -> Decoded:
    """The first page. change: of the raw mode, to read other bits of each band."""
    image = _header(source, max_pixels)
    try:
        if least is not None:
            image.draft(None, (least, least))
        turned = image.format == "TIFF" and is_turned(_left_as_stored(image))
        tags = dict(getattr(image, "tag_v2", {}))
        raw = change(_raw_mode(image))
        image.tile = [tile._replace(args=_with(tile.args, change)) for tile in image.tile]
        image.load()
    except Exception as error:  # codecs fail in many ways; each means that the pixels are unusable
        image.close()
        if is_out_of_memory(error):  # the machine's fault, not the image's
            raise
        raise ImageProblem(f"its pixels cannot be decoded (cut off or damaged): {error}") from error
    if turned:  # Pillow took the sides for those of the upright image
        with image:
            return Decoded(image.copy(), raw, tags)
    return Decoded(image, raw, tags)


def _left_as_stored(image: ImageFile) -> int:
    """Its orientation, which is set to 1 in memory: else Pillow turns a TIFF while it decodes."""
    exif = image.getexif()
    orientation: Any = exif.get(_ORIENTATION)
    exif[_ORIENTATION] = AS_STORED
    is_valid = isinstance(orientation, int) and 1 <= orientation <= 8
    return orientation if is_valid else AS_STORED


def _raw_mode(image: ImageFile) -> str:
    """How Pillow is going to read its bytes."""
    args = image.tile[0].args if image.tile else ""
    return str(args[0] if isinstance(args, tuple) and args else args or "")


def _with(args: Any, change: Callable[[str], str]) -> Any:
    if isinstance(args, tuple) and args and isinstance(args[0], str):
        return (change(args[0]), *args[1:])
    return change(args) if isinstance(args, str) else args


def _pages(image: ImageFile) -> tuple[str, ...]:
    """A note where there are more. A camera's MPO has its previews there."""
    several = getattr(image, "n_frames", 1) > 1 and image.format != "MPO"
    return (PAGES,) if several else ()


def _header(source: Path | BinaryIO, max_pixels: int) -> ImageFile:
    try:
        image = _opened(source)
    except FileNotFoundError:
        raise ImageProblem("the file is missing") from None
    except Image.UnidentifiedImageError:
        raise ImageProblem(_why_unknown(source)) from None
    except (OSError, ValueError, SyntaxError) as error:
        if is_out_of_memory(error):
            raise
        raise ImageProblem(f"it cannot be opened as an image: {error}") from None
    width, height = image.size
    if width * height > max_pixels:
        image.close()
        raise ImageProblem(f"{width}×{height} pixels are more than the {max_pixels:,} allowed")
    return image


def _opened(source: Path | BinaryIO) -> ImageFile:
    """The image with its header read.

    The limit of pixels is a setting of this project; Pillow's own, which is global, is off here.
    """
    with _OPENING:
        before, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None
        try:
            return Image.open(source, formats=FORMATS)
        finally:
            Image.MAX_IMAGE_PIXELS = before


def _why_unknown(source: Path | BinaryIO) -> str:
    if isinstance(source, Path):
        with source.open("rb") as file:
            head = file.read(_HEAD)
    else:
        source.seek(0)
        head = source.read(_HEAD)
    if not head:
        return "the file is empty (0 bytes)"
    if head[:4] in (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"):
        return (
            "it is a TIFF whose kind of pixels is not read (such as three bands of floats, or raw "
            "data of a camera): save it as grey or RGB of 8 or 16 bits, or as grey of 32"
        )
    format_name = next((name for name, pattern in _OTHERS if pattern.match(head)), None)
    what = f": it is {format_name}; convert it to one of these" if format_name else ""
    return f"it is no image of a known format ({', '.join(FORMATS)}){what}"


_OTHERS = tuple(
    (name, re.compile(pattern, re.DOTALL))
    for name, pattern in (
        ("a HEIC of a phone", rb"....ftyp(heic|heix|heim|heis|hevc|hevx|mif1|msf1)"),
        ("an AVIF", rb"....ftyp(avif|avis)"),
        ("a CR3 of a camera", rb"....ftypcrx "),
        ("a video", rb"....ftyp|\x1aE\xdf\xa3|RIFF....AVI "),
        ("a JPEG XL", rb"\xff\x0a|\0\0\0\x0cJXL "),
        ("a JPEG 2000", rb"\0\0\0\x0cjP  |\xff\x4f\xff\x51"),
        ("a GIF", rb"GIF8[79]a"),
        ("a PDF", rb"%PDF-"),
        ("an SVG", rb"\s*(<\?xml[^>]*>\s*)?<svg[\s>]"),
        ("a DICOM", rb".{128}DICM"),
        ("an HDF5", rb"\x89HDF\r\n"),
        ("a Photoshop file", rb"8BPS"),
        ("a CZI of a microscope", rb"ZISRAWFILE"),
        ("a numpy array", rb"\x93NUMPY"),
        ("an archive", rb"PK\x03\x04|\x1f\x8b"),
    )
)
