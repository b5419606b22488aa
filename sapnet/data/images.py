"""Open images: prove that a file is one, and read it as RGB. Pillow alone, no torch.

A point is in pixels of the image as it is stored, so the EXIF orientation is never applied: a
picture that viewers show upright by its tag keeps its stored width and height here.
"""

import threading
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import BinaryIO

import numpy as np
from PIL import Image

from sapnet.errors import SapnetError
from sapnet.types import ByteArray

FORMATS = ("JPEG", "PNG", "WEBP", "TIFF", "BMP")
SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".tif", ".tiff", ".bmp")
MAX_PIXELS = 100_000_000
_OPENING = threading.Lock()


class ImageProblem(SapnetError):
    """A file is not a usable image. The message says why, in plain words."""

    reason = "bad_image"


def pictures(paths: Iterable[Path]) -> dict[str, Path]:
    """The files of `paths`, and of folders all below that are named as pictures are, by name: that
    of the file, or its path from the folder given. Raises ImageProblem where there is none, and
    where two have one name."""
    found: dict[str, Path] = {}
    for path in paths:
        files = [path]
        if path.is_dir():
            files = sorted(file for file in path.rglob("*") if file.suffix.lower() in SUFFIXES)
            if not files:
                raise ImageProblem(f"there is no picture in {path} ({', '.join(SUFFIXES)})")
        for file in files:
            name = file.relative_to(path).as_posix() if file != path else file.name
            if name in found:
                raise ImageProblem(f"{found[name]} and {file} would both be called {name}")
            found[name] = file
    return found


def drawings(names: Iterable[str], suffix: str) -> dict[str, Path]:
    """Where to draw on each of some pictures: its name with `suffix` for its own, or after its own
    where two would be one file (a.jpg and a.png)."""
    plain = {name: Path(name).with_suffix(suffix) for name in names}
    taken = Counter(plain.values())
    return {name: path if taken[path] == 1 else Path(name + suffix) for name, path in plain.items()}


def probe(source: Path | BinaryIO, max_pixels: int = MAX_PIXELS) -> tuple[int, int]:
    """(height, width) of an image, after all its pixels have been decoded.

    Raises ImageProblem for a file that is missing, empty, cut off, of another format, or of more
    than `max_pixels` pixels (told from the header, before anything is decoded).
    """
    with _decoded(source, max_pixels) as image:
        return image.height, image.width


def read_rgb(source: Path | BinaryIO, max_pixels: int = MAX_PIXELS) -> ByteArray:
    """The image as (H, W, 3) uint8 RGB, in stored orientation (no EXIF rotation).

    Grey becomes three equal channels, palettes and CMYK are converted, transparency is laid over
    white. 16-bit and float images go to 8 bits by their own range: 12-bit microscope data would be
    black by a fixed division by 257. Raises ImageProblem as `probe` does.
    """
    with _decoded(source, max_pixels) as image:
        if image.mode.startswith("I") or image.mode == "F":
            grey = _to_eight_bits(np.asarray(image))
            return np.repeat(grey[:, :, None], 3, axis=2)
        if image.mode in ("RGBA", "LA", "PA", "La", "RGBa") or "transparency" in image.info:
            rgba = image.convert("RGBA")
            white = Image.new("RGBA", rgba.size, "white")
            return np.array(Image.alpha_composite(white, rgba).convert("RGB"))
        return np.array(image.convert("RGB"))


def _to_eight_bits(values: np.ndarray) -> ByteArray:
    finite = np.nan_to_num(values.astype(np.float64), posinf=0.0, neginf=0.0)
    low, high = float(finite.min()), float(finite.max())
    if high <= low:  # flat: no range to stretch
        return np.full(values.shape, 0 if high <= 0 else 128, dtype=np.uint8)
    return np.rint((finite - low) * (255.0 / (high - low))).astype(np.uint8)


def _decoded(source: Path | BinaryIO, max_pixels: int) -> Image.Image:
    try:
        image = _opened(source)
    except FileNotFoundError:
        raise ImageProblem("the file is missing") from None
    except Image.UnidentifiedImageError:
        raise ImageProblem(_why_unknown(source)) from None
    except (OSError, ValueError, SyntaxError) as error:
        raise ImageProblem(f"it cannot be opened as an image: {error}") from None
    width, height = image.size
    if width * height > max_pixels:
        image.close()
        raise ImageProblem(f"{width}×{height} pixels are more than the {max_pixels:,} allowed")
    try:
        image.load()
    except MemoryError:  # the machine's fault, not the image's
        image.close()
        raise
    except Exception as error:  # codecs fail in many ways; each means that the pixels are unusable
        image.close()
        raise ImageProblem(f"its pixels cannot be decoded (cut off or damaged): {error}") from error
    return image


def _opened(source: Path | BinaryIO) -> Image.Image:
    """Its header alone is read. The cap on pixels is ours and settable: Pillow's own, which is
    global, must not come first."""
    with _OPENING:
        before, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None
        try:
            return Image.open(source, formats=FORMATS)
        finally:
            Image.MAX_IMAGE_PIXELS = before


def _why_unknown(source: Path | BinaryIO) -> str:
    if isinstance(source, Path):
        head = source.open("rb").read(1)
    else:
        source.seek(0)
        head = source.read(1)
    if not head:
        return "the file is empty (0 bytes)"
    return f"it is no image of a known format ({', '.join(FORMATS)})"
