"""Objects that touch: pairs of true masks of one class that are next to each other."""

from collections.abc import Iterator, Mapping, Sequence
from math import ceil

import numpy as np
import numpy.typing as npt

from sapnet.data.masks import decode, tight_boxes
from sapnet.types import BoolArray, PointAnnotation, Rle

IntArray = npt.NDArray[np.int64]

GAP = 3.0
"""Most pixels between the centres of the nearest pixels of two objects that count as adjacent."""


def adjacent_pairs(
    annotations: Sequence[PointAnnotation], true: Mapping[int, Rle]
) -> Iterator[tuple[int, int]]:
    """Ids of the pairs of one image and class whose true masks are at most `GAP` apart.

    Args:
        annotations: of one image.
        true: true masks by annotation id; an annotation without one is in no pair, nor is one whose
            mask is empty.
    """
    groups: dict[int, list[int]] = {}
    for annotation in annotations:
        if annotation.id in true:
            groups.setdefault(annotation.category_id, []).append(annotation.id)
    for ids in groups.values():
        boxes = tight_boxes([true[id_] for id_ in ids]).astype(int)
        near = [(one, other) for one in range(len(ids)) for other in _boxes_near(boxes, one)]
        cut = {n: _cut(true[ids[n]], boxes[n]) for n in {n for pair in near for n in pair}}
        for one, other in near:
            if _near(cut[one], cut[other], boxes[one], boxes[other]):
                yield ids[one], ids[other]


def _boxes_near(boxes: IntArray, place: int) -> list[int]:
    """The later boxes at most `GAP` from a box; empty ones are near to none."""
    own, rest = boxes[place], boxes[place + 1 :]
    # of pixels, whose last one lies before the end of the box
    apart = np.maximum(rest[:, :2] - own[2:] + 1, own[:2] - rest[:, 2:] + 1).max(axis=1)
    full = (rest[:, 2:] > rest[:, :2]).all(axis=1) & (own[2:] > own[:2]).all()
    return [place + 1 + int(i) for i in np.flatnonzero((apart <= GAP) & full)]


def _cut(mask: Rle, box: IntArray) -> BoolArray:
    left, top, right, bottom = box.tolist()
    return decode(mask)[top:bottom, left:right].copy()


def _near(one: BoolArray, other: BoolArray, box: IntArray, other_box: IntArray) -> bool:
    """Whether two masks, each cut to its box, have pixels at most `GAP` apart.

    Only the part counts where both boxes, grown by it, overlap.
    """
    from scipy.ndimage import distance_transform_edt  # takes a while, and few need it

    grow = ceil(GAP)
    left, top = (np.maximum(box[:2], other_box[:2]) - grow).tolist()
    right, bottom = (np.minimum(box[2:], other_box[2:]) + grow).tolist()
    canvas = np.zeros((2, bottom - top, right - left), bool)
    for layer, mask, (x, y, _, _) in zip(canvas, (one, other), (box, other_box), strict=True):
        rows, columns = np.nonzero(mask)
        rows, columns = rows + y - top, columns + x - left
        inside = (rows >= 0) & (rows < bottom - top) & (columns >= 0) & (columns < right - left)
        layer[rows[inside], columns[inside]] = True
    if not canvas.any((1, 2)).all():
        return False
    distance = distance_transform_edt(~canvas[0])
    return bool(distance[canvas[1]].min() <= GAP)
