"""Confidences for simulated bags: drawn, not known.

A mask's score is a Gumbel draw plus t1·IoU_mask + t2·(IoU_box - IoU_mask), IoUs with the truth. The
two numbers are solved for over the whole dataset, so that the most confident masks are as good as
SAM's on COCO (SAPNet++, Table 6, first row).
"""

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
from pycocotools import mask as coco_mask

from sapnet.data.annotations.ground_truth import as_rle
from sapnet.types import Bag, FloatArray

TOP_MASK, TOP_BOX = 0.556, 0.583  # mean IoU of the most confident pick, masks and boxes
_MOST_TILT = 12.0


def with_confidence(
    bags: Mapping[int, list[Bag]],
    true: Mapping[int, Mapping[str, Any]],
    stream: Callable[[int], np.random.Generator],
) -> dict[int, list[Bag]]:
    """The same bags with confidences that are as right, over all of them, as SAM's.

    bags: by image id. true: the truth's annotations by id; bags of others get plain draws. stream:
    annotation id -> the generator of its draws. Sets of a few objects come as near as they can.
    """
    flat = [bag for group in bags.values() for bag in group]
    longest = max(map(len, flat), default=0)
    draws = np.full((len(flat), longest), -np.inf)
    figures = np.zeros((2, len(flat), longest))
    known = np.zeros(len(flat), bool)
    for row, bag in enumerate(flat):
        draws[row, : len(bag)] = stream(bag.annotation_id).gumbel(size=len(bag))
        known[row] = bag.annotation_id in true
        if known[row]:
            figures[:, row, : len(bag)] = _overlap(bag, true[bag.annotation_id])
    figures[1] -= figures[0]
    tilt = _solve(draws[known], figures[:, known])
    scores = draws + np.tensordot(tilt, figures, 1)
    confident = {
        bag.annotation_id: _reordered(bag, scores[row, : len(bag)]) for row, bag in enumerate(flat)
    }
    return {id_: [confident[bag.annotation_id] for bag in group] for id_, group in bags.items()}


def _solve(draws: np.ndarray, figures: np.ndarray) -> np.ndarray:
    """The tilts t1, t2 at which the best-scored masks have the two mean figures wanted.

    draws: (N, M), -inf where there is no mask. figures: (2, N, M). Each mean grows with its own
    tilt, so each is bisected in turn.
    """
    wanted, tilt, rows = (TOP_MASK, TOP_BOX - TOP_MASK), np.zeros(2), np.arange(len(draws))
    if not len(draws):
        return tilt
    for which in (0, 1) * 12:
        low, high = -_MOST_TILT, _MOST_TILT
        for _ in range(24):
            tilt[which] = (low + high) / 2
            top = np.argmax(draws + np.tensordot(tilt, figures, 1), axis=1)
            below = figures[which, rows, top].mean() < wanted[which]
            low, high = (tilt[which], high) if below else (low, tilt[which])
    return tilt


def _overlap(bag: Bag, true: Mapping[str, Any]) -> np.ndarray:
    """(2, M) IoU of each proposal's mask and box with the truth's, as the metrics have it."""
    mask = as_rle(true["segmentation"], *bag.masks[0]["size"])
    boxes = bag.boxes.astype(np.float64)
    boxes[:, 2:] -= boxes[:, :2]
    box = np.asarray(true["bbox"], np.float64)[None]
    masks = coco_mask.iou(list(bag.masks), [mask], [0])[:, 0]
    return np.stack([masks, coco_mask.iou(boxes, box, [0])[:, 0]])


def _reordered(bag: Bag, scores: np.ndarray) -> Bag:
    """The bag by falling confidence, which grows with the score."""
    order = np.argsort(-scores, kind="stable")
    confidence: FloatArray = (1 / (1 + np.exp(-0.6 * scores[order] - 1))).astype(np.float32)
    return replace(
        bag,
        boxes=bag.boxes[order],
        masks=tuple(bag.masks[i] for i in order),
        confidence=confidence,
        sources=tuple(bag.sources[i] for i in order),
        overlaps=bag.overlaps[np.ix_(order, order)],
    )
