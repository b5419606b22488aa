"""Boundary IoU (Cheng et al., CVPR 2021): IoU of the bands that lie along two masks' outlines.

Mask IoU of a large object hardly sees its outline; this sees little else.
"""

import math

import numpy as np
from scipy import ndimage

from sapnet.types import BoolArray


def boundary_iou(mask: BoolArray, other: BoolArray, ratio: float = 0.02) -> float:
    """IoU of the inner boundaries of two masks of one image, in [0, 1]; 1 where both are empty.

    Args:
        mask, other: (H, W) bool at image size.
        ratio: the band's width as a share of the image's diagonal, > 0. It is rounded to whole
            pixels, at least one; where it reaches across both masks this is their mask IoU.

    Raises:
        ValueError: the sizes differ.
    """
    if mask.shape != other.shape:
        raise ValueError(f"masks must be of one size, got {mask.shape} and {other.shape}")
    width = max(1, round(ratio * math.hypot(*mask.shape)))
    band, other_band = inner_boundary(mask, width), inner_boundary(other, width)
    either = np.count_nonzero(band | other_band)
    return np.count_nonzero(band & other_band) / either if either else 1.0


def inner_boundary(mask: BoolArray, width: int) -> BoolArray:
    """The pixels of a mask that lie within `width` of its outside, in the larger of dx and dy.

    The image's border counts as outside, as in the authors' definition: an object that is cut off
    there has an outline too.

    Args:
        mask: (H, W) bool.
        width: pixels, >= 1.
    """
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    if not len(rows):
        return mask.copy()
    # What lies around the tight box is outside all the same.
    box = slice(rows[0], rows[-1] + 1), slice(columns[0], columns[-1] + 1)
    inner = mask[box]
    for axis in (0, 1):
        inner = ndimage.minimum_filter1d(inner, 2 * width + 1, axis, mode="constant", cval=0)
    band = mask.copy()
    band[box] &= ~inner
    return band
