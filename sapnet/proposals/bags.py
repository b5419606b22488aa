"""The bag of one point from a generator's raw masks: one set of rules for every generator.

A bag is never empty, and it does not depend on the order in which its masks arrive.
"""

from collections.abc import Sequence

import numpy as np
from pycocotools import mask as coco_mask

from sapnet.data.box_masks import ellipse_mask
from sapnet.data.masks import encode_all, mask_iou, placed, tight_boxes
from sapnet.proposals.base import ProposalGenerator
from sapnet.proposals.box_rules import (
    ELLIPSE_CONFIDENCE,
    ELLIPSE_SOURCE,
    INSIDE_SHARE,
    clipped,
)
from sapnet.types import (
    Bag,
    BoolArray,
    ByteArray,
    FloatArray,
    ImageInfo,
    PointAnnotation,
    RawProposals,
    Rle,
)

DISC_SOURCE = "disc"
NEAR_POINT = 2.0  # pixels between the point and the centre of the mask's nearest pixel
DUPLICATE_IOU = 0.95
WHOLE_IMAGE = 0.95
DISC_SHARE = 0.05  # radius of the disc that saves an empty bag, over the image's short side


def make_bags(
    generator: ProposalGenerator,
    image: ByteArray,
    info: ImageInfo,
    annotations: Sequence[PointAnnotation],
    *,
    max_proposals: int = 16,
) -> list[Bag]:
    """One bag per annotation of an image, in their order.

    The masks of one annotation at a time are in memory.

    Args:
        image: (H, W, 3) uint8 RGB.

    Raises:
        ValueError: the image is not of the size that `info` tells, or max_proposals is below 1.
    """
    if image.shape != (info.height, info.width, 3):
        raise ValueError(f"image {info.id} is {image.shape}, not ({info.height}, {info.width}, 3)")
    if max_proposals < 1:
        raise ValueError(f"max_proposals is {max_proposals}, not at least 1")
    points = np.array([(a.x, a.y) for a in annotations], np.float64).reshape(-1, 2)
    raws = generator.propose(image, info, annotations)
    return [
        _bag(raw, annotation, points, index, info.size, max_proposals)
        for index, (annotation, raw) in enumerate(zip(annotations, raws, strict=True))
    ]


def point_pixel(x: float, y: float, size: tuple[int, int]) -> tuple[int, int]:
    """(row, column) of the pixel that holds a point; a point on the far border is still inside."""
    return min(max(int(y), 0), size[0] - 1), min(max(int(x), 0), size[1] - 1)


def near_point(masks: BoolArray, x: float, y: float, radius: float = NEAR_POINT) -> BoolArray:
    """(M, H, W) -> (M,): does the mask own a pixel whose centre is within `radius` of the point?"""
    rows, columns, near = _surroundings(x, y, masks.shape[1:], radius)
    return np.asarray((masks[:, rows, columns] & near).any(axis=(1, 2)))


def near_point_rle(x: float, y: float, size: tuple[int, int], radius: float = NEAR_POINT) -> Rle:
    """The pixels whose centres are within `radius` of the point, and its own, as a mask."""
    rows, columns, near = _surroundings(x, y, size, radius)
    return placed(near, rows.start, columns.start, size)


def _surroundings(
    x: float, y: float, size: tuple[int, ...], radius: float
) -> tuple[slice, slice, BoolArray]:
    """Rows and columns round a point, and which of their pixels are within `radius` of it."""
    row, column = point_pixel(x, y, (size[0], size[1]))
    reach = int(np.ceil(radius))
    rows = np.arange(max(row - reach, 0), min(row + reach + 1, size[0]))
    columns = np.arange(max(column - reach, 0), min(column + reach + 1, size[1]))
    distance = np.hypot(rows[:, None] + 0.5 - y, columns[None, :] + 0.5 - x)
    # the point's own pixel counts whatever the rounding
    near = (distance <= radius) | ((rows == row)[:, None] & (columns == column)[None, :])
    return slice(rows[0], rows[-1] + 1), slice(columns[0], columns[-1] + 1), near


def _bag(
    raw: RawProposals,
    annotation: PointAnnotation,
    points: np.ndarray,
    index: int,
    size: tuple[int, int],
    max_proposals: int,
) -> Bag:
    """The bag rules for one annotation; points: (N, 2) xy of all of the image's points.

    With a box, masks are cut to it, out where less than half of them lay inside, and the ellipse
    in it is always one of the bag.
    """
    rles = raw.masks if isinstance(raw.masks, tuple) else encode_all(raw.masks)
    areas = np.asarray(coco_mask.area(list(rles))).reshape(-1)
    box, most = annotation.box, WHOLE_IMAGE * size[0] * size[1]
    good = [i for i, a in enumerate(areas) if a > 0 and (box is not None or a <= most)]
    if box is not None:
        rles, shares = clipped(rles, box, size)
        good = [i for i in good if shares[i] >= INSIDE_SHARE]
    if good and annotation.pointed:
        x, y = points[index]
        around = near_point_rle(x, y, size)
        share = coco_mask.iou([rles[i] for i in good], [around], [1])[:, 0]
        good = [i for i, s in zip(good, share, strict=True) if s > 0]
    sources = [raw.sources[i] for i in good]
    confidence = raw.confidence[good]
    masks = [rles[i] for i in good]
    if box is not None:
        masks.append(ellipse_mask(box, size))
        confidence = np.append(confidence, np.float32(ELLIPSE_CONFIDENCE))
        sources.append(ELLIPSE_SOURCE)
        last = len(masks) - 1
        return bag_of(annotation.id, masks, confidence, sources, max_proposals, always=last)
    if not good:
        disc = encode_all(safety_disc(points, index, size)[None])
        return bag_of(annotation.id, disc, np.zeros(1, np.float32), [DISC_SOURCE])
    return bag_of(annotation.id, masks, confidence, sources, max_proposals)


def bag_of(
    annotation_id: int,
    rles: Sequence[Rle],
    confidence: FloatArray,
    sources: Sequence[str],
    max_proposals: int = 16,
    always: int | None = None,
) -> Bag:
    """The last rules, for masks that are neither empty nor far from the point: order, duplicates.

    Args:
        rles: at least one, at image size.
        confidence: (M,).
        sources: M tags.
        always: index of one that stays, in place of what it is a duplicate of.
    """
    confidence = np.clip(confidence, 0, 1).astype(np.float32)
    order = _by_confidence(confidence, rles, sources)
    overlaps = mask_iou([rles[i] for i in order])
    first = None if always is None else order.index(always)
    kept = _without_duplicates(overlaps, max_proposals, first)
    final = [order[i] for i in kept]
    masks = tuple(rles[i] for i in final)
    return Bag(
        annotation_id=annotation_id,
        boxes=tight_boxes(masks),
        masks=masks,
        confidence=confidence[final],
        sources=tuple(sources[i] for i in final),
        overlaps=overlaps[np.ix_(kept, kept)],
    )


def _by_confidence(
    confidence: FloatArray, rles: Sequence[Rle], sources: Sequence[str]
) -> list[int]:
    """Falling confidence; ties: the larger mask, then its RLE and tag, so arrival never decides."""
    areas = np.asarray(coco_mask.area(list(rles))).reshape(-1)
    keys = [
        (-float(c), -int(a), r["counts"], s)
        for c, a, r, s in zip(confidence, areas, rles, sources, strict=True)
    ]
    return sorted(range(len(keys)), key=keys.__getitem__)


def _without_duplicates(overlaps: FloatArray, most: int, always: int | None) -> list[int]:
    """At most so many indices, best first: none overlaps a kept one by more than DUPLICATE_IOU."""
    kept = [] if always is None else [always]
    for i in range(len(overlaps)):
        if i != always and overlaps[i, kept].max(initial=0) <= DUPLICATE_IOU:
            kept.append(i)
    return sorted(kept[:most])


def safety_disc(points: np.ndarray, index: int, size: tuple[int, int]) -> BoolArray:
    """(H, W) disc around a point: 5 % of the short side, at most half way to the next point.

    Its own pixel always belongs to it, so it is never empty, whatever the image's size.
    """
    x, y = points[index]
    others = np.delete(points, index, axis=0)
    distance = np.hypot(*(others - points[index]).T) if len(others) else np.zeros(0)
    radius = max(DISC_SHARE * min(size), 2.0)
    apart = distance[distance > 0]
    if apart.size:
        radius = min(radius, float(apart.min()) / 2)
    disc = np.zeros(size, bool)
    rows, columns, near = _surroundings(x, y, size, radius)
    disc[rows, columns] = near
    return disc
