"""Clicks on an image, and the pixels that they decide. Imports no torch and no numba."""

from collections.abc import Sequence
from dataclasses import dataclass

from sapnet.proposals.bags import point_pixel


@dataclass(frozen=True, slots=True)
class Click:
    """A point that a person marks on an image.

    Attributes:
        x: in pixels.
        y: in pixels.
        positive: whether it is on the object.
    """

    x: float
    y: float
    positive: bool


def clicked_pixels(clicks: Sequence[Click], size: tuple[int, ...]) -> dict[tuple[int, int], bool]:
    """What each clicked pixel (row, column) is to be.

    Args:
        size: height and width of the image.

    Raises:
        ValueError: a click lies outside the image, or a pixel is clicked both ways.
    """
    wanted: dict[tuple[int, int], bool] = {}
    for click in clicks:
        if not (0 <= click.x <= size[1] and 0 <= click.y <= size[0]):
            raise ValueError(f"the click ({click.x:g}, {click.y:g}) is outside the image")
        pixel = point_pixel(click.x, click.y, (size[0], size[1]))
        if wanted.setdefault(pixel, click.positive) != click.positive:
            raise ValueError(f"the pixel at ({click.x:g}, {click.y:g}) is clicked both ways")
    return wanted
