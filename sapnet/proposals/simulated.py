"""Bags as SAM would give them, made from the true masks. For benchmarks and tests alone.

They tell selection from generation, without SAM's weights. `build_generator` does not offer them:
the truth must never reach a training that somebody means to use.

Confidences are drawn, not known: a Gumbel draw for each mask, tilted by t1·IoU_mask +
t2·(IoU_box - IoU_mask). The two numbers are solved for over the whole data set, so that the most
confident masks are as good as SAM's on COCO (SAPNet++, Table 6, first row).
"""

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
from pycocotools import mask as coco_mask

from sapnet.data.truth import as_rle
from sapnet.proposals import simulated_masks as make
from sapnet.proposals.bags import DISC_SOURCE, WHOLE_IMAGE, bag_of, encode, safety_disc
from sapnet.types import (
    Bag,
    ByteArray,
    FloatArray,
    ImageInfo,
    PointAnnotation,
    PointSet,
    RawProposals,
    Rle,
)

Variant = Literal["balanced", "oversized"]
VARIANTS: tuple[Variant, ...] = ("balanced", "oversized")

TOP_MASK, TOP_BOX = 0.556, 0.583  # mean IoU of the most confident pick, masks and boxes
_MOST_TILT = 12.0
_REACH = 1.0  # the gap over which objects are joined, over the larger one's diagonal


@dataclass(frozen=True, slots=True)
class _Recipe:
    """How many masks of each kind (from, up to and without), and what the bleeds are like."""

    wholes: tuple[int, int]
    parts: tuple[int, int]
    groups: tuple[int, int]
    bleeds: tuple[int, int]
    bleed_iou: tuple[float, float]
    bleed_alike: float


_RECIPES: dict[Variant, _Recipe] = {
    "balanced": _Recipe((3, 5), (4, 7), (1, 3), (1, 4), (0.4, 0.7), 0.4),
    "oversized": _Recipe((2, 4), (2, 4), (1, 3), (5, 8), (0.4, 0.65), 0.75),
}


def make_simulated(
    points: PointSet,
    truth: Mapping[str, Any],
    read: Callable[[ImageInfo], ByteArray],
    seed: int = 0,
    variant: Variant = "balanced",
) -> dict[int, list[Bag]]:
    """image id -> a bag per annotation, in the order of `points`; 8 to 14 masks each, as a rule.

    truth: as `read_truth` gives it, tied to the points by annotation id; a point without truth
    gets a disc. read: the image of an ImageInfo, (H, W, 3) uint8 RGB. variant: `balanced`, or
    `oversized`, where the masks that are too large outnumber the whole ones and agree with each
    other. Sources are whole, part, group, bleed. The same arguments give the same bags.
    """
    if variant not in _RECIPES:
        raise ValueError(f"variant is {variant!r}, not one of {', '.join(VARIANTS)}")
    true = {a["id"]: a for a in truth["annotations"] if not a["iscrowd"]}
    bags = {}
    for info, annotations in points:
        masks = {
            a.id: as_rle(true[a.id]["segmentation"], *info.size)
            for a in annotations
            if a.id in true
        }
        image = read(info) if masks else np.zeros((0, 0, 3), np.uint8)
        bags[info.id] = _image_bags(image, info, annotations, masks, seed, variant)
    return _with_confidence(bags, true, seed, variant)


class SimulatedGenerator:
    """The same bags as a ProposalGenerator; max_proposals of 14 or more leaves them as they are."""

    name = "simulated"

    def __init__(
        self,
        points: PointSet,
        truth: Mapping[str, Any],
        read: Callable[[ImageInfo], ByteArray],
        seed: int = 0,
        variant: Variant = "balanced",
    ) -> None:
        """Makes all bags at once. Arguments as `make_simulated`."""
        bags = make_simulated(points, truth, read, seed, variant)
        self._bags = {bag.annotation_id: bag for group in bags.values() for bag in group}

    def fingerprint(self) -> str:
        digest = hashlib.sha256(self.name.encode())
        for annotation_id, bag in sorted(self._bags.items()):
            counts = [mask["counts"] for mask in bag.masks]
            digest.update(repr((annotation_id, counts, bag.confidence.tolist())).encode())
        return digest.hexdigest()

    def propose(
        self, image: ByteArray, info: ImageInfo, annotations: Sequence[PointAnnotation]
    ) -> Iterator[RawProposals]:
        """The masks made for each annotation of the data set."""
        for annotation in annotations:
            bag = self._bags[annotation.id]
            masks = coco_mask.decode(list(bag.masks)).transpose(2, 0, 1).astype(bool)
            yield RawProposals(masks, bag.confidence, bag.sources)


def _image_bags(
    image: ByteArray,
    info: ImageInfo,
    annotations: Sequence[PointAnnotation],
    true: Mapping[int, Rle],
    seed: int,
    variant: Variant,
) -> list[Bag]:
    """The bags of one image, with confidences that mean nothing yet. true: by annotation id."""
    recipe = _RECIPES[variant]
    draws = {a.id: _generator(seed, variant, a.id, 0) for a in annotations}
    made = {
        a.id: _own_masks(image, info, a, true[a.id], recipe, draws[a.id])
        for a in annotations
        if a.id in true and coco_mask.area(true[a.id])
    }
    boxes = {id_: coco_mask.toBbox(true[id_]) for id_ in made}
    whole = {id_: [rle for kind, rle in masks if kind == "whole"] for id_, masks in made.items()}
    bags = []
    for index, annotation in enumerate(annotations):
        rng, tagged = draws[annotation.id], list(made.get(annotation.id, ()))
        if tagged:
            mates = [
                a.id
                for a in annotations
                if a.id in made
                and a.id != annotation.id
                and a.category_id == annotation.category_id
            ]
            for joined in _joined(annotation.id, mates, boxes, rng, recipe):
                members = [whole[id_][int(rng.integers(len(whole[id_])))] for id_ in joined]
                tagged.append(("group", _merged(members)))
        largest = WHOLE_IMAGE * info.height * info.width
        tagged = [(kind, rle) for kind, rle in tagged if 0 < coco_mask.area(rle) <= largest]
        if not tagged:
            xy = np.array([(a.x, a.y) for a in annotations], np.float64)
            tagged = [(DISC_SOURCE, encode(safety_disc(xy, index, info.size)[None])[0])]
        kinds, rles = zip(*tagged, strict=True)
        bags.append(bag_of(annotation.id, rles, rng.random(len(rles)).astype(np.float32), kinds))
    return bags


def _own_masks(
    image: ByteArray,
    info: ImageInfo,
    annotation: PointAnnotation,
    true: Rle,
    recipe: _Recipe,
    rng: np.random.Generator,
) -> list[tuple[str, Rle]]:
    """(kind, mask) of one object by itself."""
    view = make.View.of(image, coco_mask.decode(true).astype(bool), annotation)
    whole = make.wholes(view, rng, int(rng.integers(*recipe.wholes)))
    part = make.parts(view, rng, int(rng.integers(*recipe.parts)), whole)
    count = int(rng.integers(*recipe.bleeds))
    bleed = make.bleeds(view, rng, count, recipe.bleed_iou, recipe.bleed_alike)
    return [
        (kind, view.rle(mask, annotation, info.size))
        for kind, masks in (("whole", whole), ("part", part), ("bleed", bleed))
        for mask in masks
    ]


def _joined(
    own: int,
    mates: Sequence[int],
    boxes: Mapping[int, np.ndarray],
    rng: np.random.Generator,
    recipe: _Recipe,
) -> list[list[int]]:
    """Which objects each group joins: the nearest of the class, then the two nearest.

    boxes: xywh of the true masks, by annotation id.
    """
    gaps = sorted((_gap(boxes[own], boxes[mate]), mate) for mate in mates)
    near = [mate for gap, mate in gaps if gap <= _REACH][: int(rng.integers(*recipe.groups))]
    return [[own, *near[: count + 1]] for count in range(len(near))]


def _gap(one: np.ndarray, two: np.ndarray) -> float:
    """The gap between two xywh boxes over the longer of their diagonals."""
    apart = np.maximum(
        np.maximum(one[:2], two[:2]) - np.minimum(one[:2] + one[2:], two[:2] + two[2:]), 0
    )
    return float(np.hypot(*apart) / max(np.hypot(*one[2:]), np.hypot(*two[2:])))


def _merged(rles: Sequence[Rle]) -> Rle:
    merged = coco_mask.merge(list(rles))
    return Rle(size=[int(n) for n in merged["size"]], counts=merged["counts"].decode("ascii"))


def _with_confidence(
    bags: Mapping[int, list[Bag]],
    true: Mapping[int, Mapping[str, Any]],
    seed: int,
    variant: Variant,
) -> dict[int, list[Bag]]:
    """The same bags with confidences that are as right, over all of them, as SAM's."""
    flat = [bag for group in bags.values() for bag in group]
    longest = max(map(len, flat), default=0)
    draws = np.full((len(flat), longest), -np.inf)
    figures = np.zeros((2, len(flat), longest))
    known = np.zeros(len(flat), bool)
    for row, bag in enumerate(flat):
        draws[row, : len(bag)] = _generator(seed, variant, bag.annotation_id, 1).gumbel(
            size=len(bag)
        )
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
    for turn in range(24):
        which = turn % 2
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


def _generator(seed: int, variant: Variant, annotation_id: int, use: int) -> np.random.Generator:
    """One stream an object and use, so that no object's bag depends on the others' draws."""
    return np.random.default_rng([seed, VARIANTS.index(variant), annotation_id % 2**64, use])
