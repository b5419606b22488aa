"""Pixels of any kind as RGB of 8 bits, a strip of rows at a time.

An image takes the memory of its own pixels and of the result, and little beside.

Grey becomes three equal channels; palettes, CMYK and Lab are converted; transparency is laid over
white; a colour profile is not applied. What has more than 8 bits is spread by a range of values:
by that of its dataset or model, else by its own. The range is from the 0.5th to the 99.5th
percentile of what is valid: extremes would let one hot pixel darken an image.
"""

import math
import re
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from sapnet.types import ByteArray

FloatValues = npt.NDArray[np.float64]
Ranges = Mapping[str, tuple[float, float]]
"""Lowest and highest value that are told apart, of "integer" and of "float" pixels."""

SHARE = 0.005  # of the pixels, left out of a range at either end
SAMPLE = 1 << 20  # values that percentiles are taken of, evenly over the image
_STRIP = 1 << 20  # pixels that are converted together
_SIXTEEN = re.compile(r"(RGB|RGBX|RGBA);16[BLN]")
_ALPHA = ("RGBA", "LA", "PA", "La", "RGBa")
_NODATA, _EXTRA, _PHOTOMETRIC, _SAMPLE_FORMAT = 42113, 338, 262, 339  # tags of TIFF
_HUGE = 1e20  # no measured value: many programs mark with such numbers what they have none for

PAGES = "it has several pages or frames; the first one is used"
LEVELS = "it has more than 8 bits a pixel, which are reduced to 256 levels of brightness"
UPPER_BITS = "it has 16 bits a band, of which the upper 8 are used"
NO_ALPHA = "its band after the colours is no transparency and is left out"
MORE_BANDS = "its bands after the third are left out"
NO_VALUE = "pixels that have no value (NaN or nodata) are black"


@dataclass(frozen=True)
class Pixels:
    """An image whose pixels are decoded.

    Attributes:
        image: a band of more than 8 bits, or bands of 8.
        low: of 16 bits a band, the lower 8, where `image` has the upper ones.
        notes: what is lost.
        opaque: a last band is no transparency.
        inverted: 0 is white.
        nodata: the value of pixels that have none.
    """

    image: Image.Image
    low: Image.Image | None
    notes: tuple[str, ...]
    opaque: bool = False
    inverted: bool = False
    unsigned: bool = False
    nodata: float | None = None

    @property
    def kind(self) -> str | None:
        """The key in `Ranges`; None where a pixel has 8 bits."""
        if self.image.mode == "F":
            return "float"
        deep = self.low is not None or self.image.mode.startswith("I")
        return "integer" if deep else None

    def rgb(self, ranges: Ranges | None = None) -> ByteArray:
        """(H, W, 3) uint8.

        Args:
            ranges: of values; its own, where there is none of its kind.
        """
        width, height = self.image.size
        out = np.empty((height, width, 3), dtype=np.uint8)
        if self.kind is None:
            for rows, strip in _strips(self.image):
                out[rows] = np.asarray(self._colours(strip))
            return out
        low, high = (ranges or {}).get(self.kind) or range_of(self.sample())
        for rows, values in self._values():
            levels = _spread(values, self._valid(values), low, high)
            if self.inverted:
                levels = 255 - levels
            out[rows] = levels if levels.ndim == 3 else levels[:, :, None]
        return out

    def sample(self, most: int = SAMPLE) -> FloatValues:
        """(n,) of the valid values, sorted; taken evenly where there are more than `most`."""
        width, height = self.image.size
        step = max(1, math.ceil(width * height / most))
        parts = []
        for _, values in self._values():
            flat = values.reshape(-1, *values.shape[2:])[::step].ravel()
            parts.append(flat[self._valid(flat)].astype(np.float64))
        return np.sort(np.concatenate(parts))

    @property
    def lacks_values(self) -> bool:
        """Whether some pixel has no value (NaN or nodata)."""
        return any(not self._valid(values).all() for _, values in self._values())

    def _values(self) -> Iterator[tuple[slice, npt.NDArray[Any]]]:
        for rows, strip in _strips(self.image):
            values = np.asarray(strip)
            if self.low is not None:
                upper = values[..., :3].astype(np.uint16) << 8
                box = (0, rows.start, strip.width, rows.stop)
                values = upper | np.asarray(self.low.crop(box))[..., :3]
            elif self.unsigned:
                values = values.view(np.uint32)
            yield rows, values

    def _valid(self, values: npt.NDArray[Any]) -> npt.NDArray[np.bool_]:
        valid = np.ones(values.shape, dtype=bool)
        if values.dtype.kind == "f":
            valid = np.abs(values) < _HUGE  # not so of NaN
        if self.nodata is not None:
            valid &= values != np.asarray(self.nodata).astype(values.dtype)
        return valid

    def _colours(self, strip: Image.Image) -> Image.Image:
        if not self.opaque and (strip.mode in _ALPHA or "transparency" in strip.info):
            rgba = strip.convert("RGBA")
            strip = Image.alpha_composite(Image.new("RGBA", rgba.size, "white"), rgba)
        return strip.convert("RGB")


@dataclass(frozen=True)
class Decoded:
    """An image whose pixels are in memory as the file stores them.

    Attributes:
        raw: Pillow's raw mode, by which it read the bytes.
        tags: of a TIFF, by number; empty for other formats.
    """

    image: Image.Image
    raw: str
    tags: Mapping[int, Any]


def pixels_of(decoded: Decoded, decode: Callable[[Callable[[str], str]], Decoded]) -> Pixels:
    """Collect what the conversion of a decoded image to RGB needs.

    Args:
        decoded: the image.
        decode: decodes the file again, its raw mode changed by the function that is given.
    """
    notes, tags = [], decoded.tags
    opaque = decoded.image.mode in _ALPHA and not _is_alpha(decoded.image, tags)
    if opaque:
        notes.append(NO_ALPHA)
        if "RGBa" in decoded.raw:  # colours were divided by what is no transparency
            decoded = decode(lambda raw: raw.replace("RGBa", "RGBA"))
    image, raw = decoded.image, decoded.raw
    if "X" in raw and _EXTRA in tags:
        notes.append(MORE_BANDS)
    if ";16" in raw and not image.mode.startswith("I"):
        return _of_sixteen(image, raw, tuple(notes), opaque, decode)
    if not image.mode.startswith(("I", "F")):
        return Pixels(image, None, tuple(notes), opaque)
    unsigned = image.mode == "I" and _listed(tags.get(_SAMPLE_FORMAT, 1))[:1] == [1] and bool(tags)
    deep = Pixels(
        image,
        None,
        (*notes, LEVELS),
        inverted=tags.get(_PHOTOMETRIC) == 0,
        unsigned=unsigned,
        nodata=_nodata(tags),
    )
    if deep.nodata is None:
        deep = replace(deep, nodata=_unsaid_nodata(deep.sample()))
    return replace(deep, notes=(*deep.notes, NO_VALUE)) if deep.lacks_values else deep


def _of_sixteen(
    image: Image.Image,
    raw: str,
    notes: tuple[str, ...],
    opaque: bool,
    decode: Callable[[Callable[[str], str]], Decoded],
) -> Pixels:
    """Pixels of 16 bits a band, of which Pillow gives the upper 8.

    The lower ones are read as well where nothing is transparent.
    """
    plain = opaque or image.mode == "RGB" or (image.mode == "RGBA" and not _hides(image))
    if not (plain and _SIXTEEN.fullmatch(raw)):
        return Pixels(image, None, (*notes, UPPER_BITS), opaque)
    return Pixels(image, decode(_other_byte).image, (*notes, LEVELS), opaque)


def range_of(sample: FloatValues) -> tuple[float, float]:
    """The lowest and the highest value that are told apart.

    Args:
        sample: (n,), sorted.
    """
    if not sample.size:
        return 0.0, 0.0
    last = sample.size - 1
    low, high = float(sample[int(SHARE * last)]), float(sample[math.ceil((1 - SHARE) * last)])
    if high <= low:  # little differs from the ground, but it may be all that there is to see
        low, high = float(sample[0]), float(sample[-1])
    return low, high


def _spread(
    values: npt.NDArray[Any], valid: npt.NDArray[np.bool_], low: float, high: float
) -> ByteArray:
    if high <= low:  # flat: no range to stretch
        levels = np.full(values.shape, 0 if high <= 0 else 128, dtype=np.uint8)
    else:
        scaled = np.where(valid, values, low).astype(np.float64)
        scaled -= low
        scaled *= 255.0 / (high - low)
        np.clip(np.rint(scaled, out=scaled), 0, 255, out=scaled)
        levels = scaled.astype(np.uint8)
    levels[~valid] = 0
    return levels


def _strips(image: Image.Image) -> Iterator[tuple[slice, Image.Image]]:
    width, height = image.size
    step = max(1, _STRIP // width)
    for top in range(0, height, step):
        bottom = min(top + step, height)
        yield slice(top, bottom), image.crop((0, top, width, bottom))


def _listed(value: Any) -> Sequence[Any]:
    return [] if value is None else list(value) if isinstance(value, tuple | list) else [value]


def _is_alpha(image: Image.Image, tags: Mapping[int, Any]) -> bool:
    """Whether a last band that is declared to be transparency is one.

    None that hides everything is; and TIFF's may be any band (infrared, depth): transparency is
    mostly all or nothing.
    """
    counts = image.histogram()[-256:] if image.mode in ("RGBA", "LA") else [0, *[1] * 255]
    visible = sum(counts[1:])
    return visible > 0 and (not tags or 2 * counts[255] >= visible)


def _hides(image: Image.Image) -> bool:
    """Whether its transparency hides anything."""
    return image.histogram()[-1] < image.width * image.height


def _other_byte(raw: str) -> str:
    """Of a raw mode of 16 bits a band: the one that takes the other half of them."""
    little = raw[-1] == "L" or (raw[-1] == "N" and sys.byteorder == "little")
    return raw[:-1] + ("B" if little else "L")


def _nodata(tags: Mapping[int, Any]) -> float | None:
    """GDAL's, in text."""
    try:
        return float(str(tags[_NODATA]).strip("\0 "))
    except (KeyError, ValueError):
        return None


def _unsaid_nodata(sample: FloatValues) -> float | None:
    """A negative number that stands for "no value" without being declared so, as -9999 does.

    It is the lowest, occurs more than once, and is farther from all others than these are from one
    another.

    Args:
        sample: (n,), sorted.
    """
    if sample.size < 4 or sample[0] >= 0 or sample[1] != sample[0]:
        return None
    others = sample[sample > sample[0]]
    if not others.size or others[-1] == others[0]:
        return None
    apart = others[0] - sample[0]
    return float(sample[0]) if apart > 2 * (others[-1] - others[0]) else None
