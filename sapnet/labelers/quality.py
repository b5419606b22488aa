"""The quality of a pseudo-mask: the probability that it is the object, without truth.

`compute_mask_features` gathers the features of one mask: plain numbers, shares and ratios (never
pixels), so that they mean the same in any dataset; `assign_quality` adds those that need all masks
together and joins them into `quality`, an estimate of P(IoU with the object >= 0.5). The weights
were fitted by `benchmarks/quality.py`, which says how good they are.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from msgspec.structs import replace
from pycocotools import mask as coco_mask

from sapnet.data.masks import decode, holds_points, outline
from sapnet.types import (
    CONFIRMED,
    Bag,
    FloatArray,
    PointAnnotation,
    ProposalScores,
    PseudoMask,
    Rle,
)

MaskFeatures = dict[str, float | None]

WEIGHTS = {
    "seen": 7.9,
    "expected": 1.9,
    "support": 1.7,
    "estimate": 2.2,
    "contrast": 0.9,
    "fill": 0.2,
    "large": 0.1,
}
"""Log-odds a unit of each of the `quality_signals`."""
INTERCEPT = -3.7
EXPLANATIONS = {
    "seen": "the segmenter hardly sees it, or draws it differently",
    "expected": "its proposals expect another mask",
    "support": "few proposals agree with it",
    "estimate": "its proposal was not sure",
    "contrast": "its outside looks like its inside",
    "fill": "it is thin or ragged",
    "large": "it is larger than most of its class",
}
ALIKE = 0.5
"""IoU from which on two masks of a bag stand for the same object."""


def compute_mask_features(
    mask: Rle,
    annotation: PointAnnotation,
    siblings: Sequence[PointAnnotation],
    bag: Bag,
    index: int,
    posterior: FloatArray,
    scores: ProposalScores | None = None,
) -> MaskFeatures:
    """The features of one delivered mask, by which its quality is estimated.

    Args:
        mask: the delivered one.
        annotation: its object.
        siblings: the annotations of its image, itself among them or not.
        bag: its proposals, M of them.
        index: of the selected proposal in the bag.
        posterior: (M,) or longer, probabilities of the bag's masks.
        scores: the teacher's, if there is one.

    Returns:
        By name; None where it cannot be known.

        margin: the posterior of the pick less the greatest one of a mask unlike it. decided: 1 -
        the posterior's entropy over its maximum. consensus, support: mean IoU with the bag's masks,
        weighed by the posterior and not. expected: soft IoU with the mask that the bag expects.
        spread: how far that one is from black and white, 0 to 1. confidence: the generator's, of
        the pick. estimate: the same, None where it does not estimate IoU. contrast, overlap: the
        teacher's, of the pick. "rivals", "others": how many points of other annotations the mask
        contains, of its class and of other ones. reach: log2 of its radius (of a disc of its area)
        over the distance to the nearest other point. depth, off: the point's distance to the border
        and to the middle, in radii. fill: its share of its box. round: 1 for a disc, less for what
        is ragged. cut: how many sides of the image it touches.
    """
    share = np.asarray(posterior[: len(bag)], dtype=np.float64)
    share = share / max(float(share.sum()), 1e-12)
    return {
        **_of_bag(mask, bag, index, share),
        "confidence": float(bag.confidence[index]),
        "estimate": float(bag.confidence[index]) if _estimates_iou(bag.sources[index]) else None,
        "contrast": None if scores is None else float(scores.contrast[index]),
        "overlap": None if scores is None else float(scores.overlap[index]),
        **_of_points(mask, annotation, siblings),
        **_of_shape(mask, annotation),
    }


def _estimates_iou(source: str) -> bool:
    """Whether the maker of a proposal is one whose confidence is an IoU to expect, by its tag."""
    return source.split("-")[0] in ("hierarchy", "prompter", "mean")


def _of_bag(mask: Rle, bag: Bag, index: int, share: np.ndarray) -> MaskFeatures:
    masks = list(bag.masks)
    areas = np.asarray(coco_mask.area(masks), dtype=np.float64)
    area = float(coco_mask.area(mask))
    ious = coco_mask.iou([mask], masks, [0] * len(bag))[0]
    overlaps = np.asarray(bag.overlaps, dtype=np.float64)
    both = overlaps / (1 + overlaps) * (areas[:, None] + areas)
    inside = float(
        share @ (ious / (1 + ious) * (area + areas))
    )  # of the expected mask, in this one
    size = float(share @ areas)
    unlike = share[overlaps[index] < ALIKE]
    entropy = -float(share @ np.log(np.maximum(share, 1e-12)))
    return {
        "margin": float(share[index] - unlike.max(initial=0.0)),
        "decided": 1 - entropy / math.log(len(bag)) if len(bag) > 1 else 1.0,
        "consensus": float(share @ ious),
        "support": float(ious.mean()),
        "expected": inside / max(area + size - inside, 1e-9),
        "spread": 1 - float(share @ both @ share) / max(size, 1e-9),
    }


def _of_points(
    mask: Rle, annotation: PointAnnotation, siblings: Sequence[PointAnnotation]
) -> MaskFeatures:
    other = [s for s in siblings if s.id != annotation.id]
    xy = np.array([(s.x, s.y) for s in other], dtype=np.float64).reshape(-1, 2)
    same = np.array([s.category_id == annotation.category_id for s in other], dtype=bool)
    inside = holds_points(mask, xy)
    radius = math.sqrt(float(coco_mask.area(mask)) / math.pi)
    reach = None
    if len(xy):
        nearest = float(np.hypot(*(xy - (annotation.x, annotation.y)).T).min())
        reach = math.log2(max(radius, 0.5) / max(nearest, 0.5))
    return {
        "rivals": float((inside & same).sum()),
        "others": float((inside & ~same).sum()),
        "reach": reach,
    }


def _of_shape(mask: Rle, annotation: PointAnnotation) -> MaskFeatures:
    x, y, w, h = (int(v) for v in coco_mask.toBbox(mask))
    height, width = mask["size"]
    padded = np.pad(decode(mask)[y : y + h, x : x + w], 1)
    area = max(int(padded.sum()), 1)
    radius = math.sqrt(area / math.pi)
    px, py = int(annotation.x) - x + 1, int(annotation.y) - y + 1
    within = 0 <= px < w + 2 and 0 <= py < h + 2 and padded[py, px]
    rows, columns = np.nonzero(~padded)
    depth = math.sqrt(float(((rows - py) ** 2 + (columns - px) ** 2).min())) if within else 0.0
    ys, xs = np.nonzero(padded)
    off = math.hypot(float(xs.mean()) - px, float(ys.mean()) - py) if len(xs) else 0.0
    return {
        "depth": depth / radius,
        "off": off / radius,
        "fill": area / max(w * h, 1),
        "round": 2 * math.sqrt(math.pi * area) / max(int(outline(padded).sum()), 1),
        "cut": float(sum((x <= 0, y <= 0, x + w >= width, y + h >= height))),
    }


def assign_quality(masks: Sequence[PseudoMask]) -> list[PseudoMask]:
    """Give every mask of a run its `quality`, and the features that need all of them.

    These are claimed, the greatest share of it that another mask of its image covers too; and size,
    size_here: log2 of its area over the median of its class, in the dataset and in its image.

    Args:
        masks: with their other features. A confirmed mask has none, and a quality of 1.

    Returns:
        The masks, in their order.
    """
    areas: dict[Any, list[float]] = {}
    images: dict[int, list[PseudoMask]] = {}
    for mask in masks:
        for group in (mask.category_id, (mask.image_id, mask.category_id)):
            areas.setdefault(group, []).append(mask.area)
        images.setdefault(mask.image_id, []).append(mask)
    median = {group: float(np.median(each)) for group, each in areas.items()}
    claimed = {
        id(mask): share
        for group in images.values()
        for mask, share in zip(group, _claimed(group), strict=True)
    }
    return [_with_quality(mask, claimed[id(mask)], median) for mask in masks]


def _with_quality(mask: PseudoMask, claimed: float, median: Mapping[Any, float]) -> PseudoMask:
    if mask.source == CONFIRMED:
        return replace(mask, quality=1.0, mask_features={})
    kind = mask.category_id
    features = {
        **mask.mask_features,
        "claimed": claimed,
        "size": math.log2(mask.area / median[kind]),
        "size_here": math.log2(mask.area / median[mask.image_id, kind]),
    }
    features = {k: v if v is None else round(v, 5) for k, v in features.items()}
    return replace(mask, mask_features=features, quality=round(probability(features), 6))


def quality_signals(features: Mapping[str, float | None]) -> dict[str, float]:
    """The terms of `probability`, from a mask's features: the higher, the better the mask.

    seen: the score of SOLOv2's own cells times the square of the soft IoU of what they draw with
    M_srm, in [0, 1]; 0 for an object without a cell. expected, support, fill: the features
    themselves. estimate: the IoU that the generator expects, 0.6 where it tells none. contrast: the
    teacher's, as a likelihood in (0, 1]; exp(-1) where there is no teacher. large: minus log2 of
    its area over the median of its class, 0 to -3.
    """

    def value_of(name: str, default: float = 0.0) -> float:
        value = features.get(name)
        return default if value is None else value

    return {
        "seen": value_of("seen") * value_of("predicted") ** 2,
        "expected": value_of("expected"),
        "support": value_of("support"),
        "estimate": value_of("estimate", 0.6),
        "contrast": math.exp(min(value_of("contrast", -1.0), 0.0)),
        "fill": value_of("fill"),
        "large": -min(max(value_of("size"), 0.0), 3.0),
    }


def probability(features: Mapping[str, float | None]) -> float:
    """P(IoU >= 0.5) of a mask of these features, in (0, 1): logistic in its `quality_signals`."""
    signals = quality_signals(features)
    return 1 / (1 + math.exp(-INTERCEPT - sum(WEIGHTS[name] * signals[name] for name in WEIGHTS)))


def explain_low_quality(
    features: Mapping[str, float | None], usual: Mapping[str, float], most: int = 2
) -> list[str]:
    """Why a mask's quality is low, in words, the strongest reason first.

    Args:
        features: of the mask.
        usual: `usual_quality_signals` of its run.
        most: how many reasons at most.

    Returns:
        The explanations of signals that lower its log-odds by at least a half against the usual.
    """
    signals = quality_signals(features)
    cost = {name: weight * (signals[name] - usual[name]) for name, weight in WEIGHTS.items()}
    worst = sorted(cost, key=lambda name: cost[name])[:most]
    return [EXPLANATIONS[name] for name in worst if cost[name] <= -0.5]


def usual_quality_signals(masks: Sequence[PseudoMask]) -> dict[str, float]:
    """The median of each signal over masks that have features; without any, that of no features."""
    features = [m.mask_features for m in masks if m.mask_features] or [{}]
    signals = [quality_signals(each) for each in features]
    return {name: float(np.median([each[name] for each in signals])) for name in WEIGHTS}


def _claimed(group: Sequence[PseudoMask]) -> list[float]:
    masks = [mask.segmentation for mask in group]
    # as if the second were a crowd: what both hold over the area of the first
    shares = np.asarray(coco_mask.iou(masks, masks, [1] * len(masks)), dtype=np.float64)
    np.fill_diagonal(shares, 0.0)
    return [float(share) for share in shares.max(axis=1)]
