"""What a bag is where its object has a box: masks cut to the box, and the ellipse in it."""

from collections.abc import Sequence

from sapnet.data.box_masks import box_mask
from sapnet.data.masks import area, merge
from sapnet.types import Box, Rle

ELLIPSE_SOURCE = "ellipse"
ELLIPSE_CONFIDENCE = 0.6  # about its IoU with an object, of photographs and micrographs
MARGIN, MARGIN_SHARE = 2.0, 0.03
"""A mask may go beyond its box by so many pixels, or this share of the box's side."""
INSIDE_SHARE = 0.5
"""A mask of which less is within that margin is of another object."""


def grown(box: Box) -> Box:
    """The box with its margin."""
    left, top, right, bottom = box
    across = max(MARGIN, MARGIN_SHARE * (right - left))
    down = max(MARGIN, MARGIN_SHARE * (bottom - top))
    return left - across, top - down, right + across, bottom + down


def clipped(rles: Sequence[Rle], box: Box, size: tuple[int, int]) -> tuple[list[Rle], list[float]]:
    """Masks within a box with its margin, and the share of each that lies there.

    Args:
        rles: of an image of (h, w).
    """
    window = box_mask(grown(box), size)
    masks = [merge([rle, window], intersect=True) for rle in rles]
    shares = [area(mask) / max(area(rle), 1) for mask, rle in zip(masks, rles, strict=True)]
    return masks, shares
