"""A short description of an image, made from a thumbnail: by it copies and likes are found.

The hash is the perceptual one of a discrete cosine transform (Zauner, Implementation and
benchmarking of perceptual image hash functions, 2010): images that look alike differ in few of its
64 bits. The features are a coarse layout, colours and gradients, a byte each. No torch.
"""

from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import BinaryIO

import numpy as np
import numpy.typing as npt

from sapnet.data.images import MAX_PIXELS, read_thumbnail
from sapnet.types import ByteArray

VERSION = 1
"""Raised when descriptions are made otherwise, so that earlier ones are made again."""
SIDE = 64  # of the thumbnail, in pixels
LAYOUT = 8 * 8
_COLOURS, _CELLS, _DIRECTIONS = 4, 2, 8
COUNT = LAYOUT + _COLOURS**3 + _CELLS**2 * _DIRECTIONS + _CELLS**2
"""How many features there are."""
_FLAT = 4.0  # a coefficient below it, of grey levels over the 32 x 32 of them, is noise
Floats = npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Descriptor:
    """What is kept of an image.

    Attributes:
        hash: 64 bits, unsigned.
        features: `COUNT` bytes.
    """

    hash: int
    features: bytes


def describe(source: Path | BinaryIO, max_pixels: int = MAX_PIXELS) -> Descriptor:
    """Describe an image.

    Raises:
        ImageProblem: it cannot be read.
    """
    return descriptor_of(read_thumbnail(source, SIDE, max_pixels))


def descriptor_of(thumbnail: ByteArray) -> Descriptor:
    """Describe an image by its thumbnail.

    Args:
        thumbnail: (SIDE, SIDE, 3) uint8 RGB.
    """
    grey = thumbnail @ np.array([0.299, 0.587, 0.114])
    layout = grey.reshape(8, SIDE // 8, 8, SIDE // 8).mean((1, 3))
    parts = (layout.ravel() / 255, _colours(thumbnail), *_gradients(grey))
    features = np.concatenate(parts)
    return Descriptor(_hash(grey), (255 * features).round().clip(0, 255).astype(np.uint8).tobytes())


def vectors(features: npt.NDArray[np.uint8]) -> Floats:
    """Features as vectors whose Euclidean distance says how unlike two images are.

    Args:
        features: (N, COUNT).

    Returns:
        (N, COUNT) float32. Each of the three parts has about the same say.
    """
    values = features.astype(np.float32) / np.float32(255)
    values[:, :LAYOUT] /= np.float32(LAYOUT**0.5)
    return values


def layouts(features: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    """The grey levels of 8 x 8 parts of each image, (N, 64)."""
    return features[:, :LAYOUT]


def _hash(grey: npt.NDArray[np.float64]) -> int:
    small = grey.reshape(32, SIDE // 32, 32, SIDE // 32).mean((1, 3))
    waves = _cosines()
    low = (waves @ small @ waves.T).ravel()
    low[np.abs(low) < _FLAT] = 0.0  # else an image of one colour has bits by chance
    low[0] = 0.0  # the mean
    signs = low > np.median(low)
    return int.from_bytes(np.packbits(signs).tobytes(), "big")


@cache
def _cosines() -> npt.NDArray[np.float64]:
    """The 8 slowest of 32 waves, (8, 32)."""
    steps = np.arange(32) + 0.5
    waves: npt.NDArray[np.float64] = np.cos(np.pi / 32 * np.arange(8)[:, None] * steps)
    return waves


def _colours(thumbnail: ByteArray) -> npt.NDArray[np.float64]:
    """Square roots of the shares of 64 colours: their distance is Hellinger's."""
    levels = (thumbnail.reshape(-1, 3) // (256 // _COLOURS)).astype(np.int64)
    index = levels @ np.array([_COLOURS**2, _COLOURS, 1])
    shares = np.bincount(index, minlength=_COLOURS**3) / len(index)
    return np.sqrt(shares)


def _gradients(
    grey: npt.NDArray[np.float64],
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Of four parts: which way brightness changes, and how much."""
    dy, dx = np.gradient(grey)
    strength = np.hypot(dy, dx)
    way = (np.arctan2(dy, dx) % np.pi) / np.pi * _DIRECTIONS
    half = np.arange(SIDE) * _CELLS // SIDE
    cell = half[:, None] * _CELLS + half
    index = cell * _DIRECTIONS + way.astype(np.int64) % _DIRECTIONS
    sums = np.bincount(index.ravel(), strength.ravel(), _CELLS**2 * _DIRECTIONS)
    total = max(float(sums.sum()), 1.0)
    means = np.bincount(cell.ravel(), strength.ravel(), _CELLS**2) / (SIDE**2 / _CELLS**2)
    return np.sqrt(sums / total), np.minimum(means / 64, 1.0)
