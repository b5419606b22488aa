"""Boxes of annotations: read from COCO's bbox, cut to their images, held against their points.

Boxes are xyxy in pixels. One beside a point says where the object ends; one alone stands for the
object, whose point is then the middle of it.
"""

from collections.abc import Iterable, Sequence
from typing import Literal

from sapnet.data.annotations.decoding import Issues
from sapnet.data.annotations.document import UNPOINTED, Rows
from sapnet.types import Box, ImageInfo

Boxes = Literal["use", "ignore"]
"""Whether boxes count. Where not, an annotation that has no more than a box is left out."""
POINT_MARGIN = 2.0
"""Pixels beyond its box within which a point still belongs to it."""
BORDER = 1.0
"""Pixels beyond its image within which a box is cut without a word: rounding puts it there."""
_ROUNDING = 1e-6
_APART = "correct the one or the other; boxes=ignore goes by the points alone"


def box_of(bbox: Sequence[float]) -> Box | None:
    """The box of COCO's [x, y, width, height]; None where it has no area, as that of a point."""
    if len(bbox) != 4:
        return None
    left, top, width, height = bbox
    right, bottom = left + width, top + height
    return (left, top, right, bottom) if left < right and top < bottom else None


def xywh(box: Box) -> list[float]:
    """COCO's [x, y, width, height] of a box."""
    left, top, right, bottom = box
    return [left, top, right - left, bottom - top]


def around(boxes: Iterable[Box]) -> Box:
    """The smallest box round others, at least one."""
    left, top, right, bottom = zip(*boxes, strict=True)
    return min(left), min(top), max(right), max(bottom)


def distance_outside(x: float, y: float, box: Box) -> float:
    """Pixels from a point to its box, along the farther axis; 0 inside."""
    left, top, right, bottom = box
    if left <= x <= right and top <= y <= bottom:
        return 0.0
    return max(left - x, x - right, top - y, y - bottom)


def belongs_to(x: float, y: float, box: Box) -> bool:
    """Whether a point is in a box, or no more than `POINT_MARGIN` outside of it."""
    return distance_outside(x, y, box) <= POINT_MARGIN + _ROUNDING


def check_point_in_box(rows: Rows, row: int, box: Box, issues: Issues) -> None:
    """Note an issue where a row's point, if it has one, is outside of the row's box."""
    x, y = rows.x[row], rows.y[row]
    if not belongs_to(x, y, box) and not rows.flags[row] & UNPOINTED:
        distance = distance_outside(x, y, box)
        problem = f"the point ({x:g}, {y:g}) is {distance:.3g} pixels outside of its box"
        issues.add(f"/annotations/{row}/bbox", problem, _APART)


def settle_box(rows: Rows, row: int, box: Box, image: ImageInfo, warnings: Issues) -> None:
    """Cut the box of a row to its image, of known size; `rows` is changed.

    A box that has no part of the image is dropped where it has a point; alone it stays, and its
    middle is a point outside of the image.
    """
    left, top, right, bottom = box
    if left >= 0 and top >= 0 and right <= image.width and bottom <= image.height:
        return
    cut = (max(left, 0.0), max(top, 0.0), min(right, image.width), min(bottom, image.height))
    pointer, where = f"/annotations/{row}/bbox", f"of its image of {image.width}×{image.height}"
    if cut[0] >= cut[2] or cut[1] >= cut[3]:
        if not rows.flags[row] & UNPOINTED:
            rows.set_box(row, None)
            problem = f"the box is outside {where} pixels: only the point is used"
            warnings.add(pointer, problem, "draw it on the image")
        return
    rows.set_box(row, cut)
    if max(abs(a - b) for a, b in zip(box, cut, strict=True)) > BORDER:
        problem = f"the box goes beyond the border {where} pixels: it is cut there"
        warnings.add(pointer, problem, "")
