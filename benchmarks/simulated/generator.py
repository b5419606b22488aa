"""Bags as SAM would give them, made from the true masks. For benchmarks and tests alone.

They tell selection from generation, without SAM's weights. `build_generator` does not offer them:
the truth must never reach a training that is for use.
"""

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from pycocotools import mask as coco_mask

from sapnet.data.annotations.ground_truth import as_rle
from sapnet.data.masks import decode, decode_all, merge
from sapnet.data.masks import encode_all as encode
from sapnet.labelers.same_class_points import same_class_points
from sapnet.proposals.bags import DISC_SOURCE, WHOLE_IMAGE, bag_of, safety_disc
from sapnet.types import (
    Bag,
    ByteArray,
    ImageInfo,
    PointAnnotation,
    PointSet,
    RawProposals,
    Rle,
)
from simulated import masks as make
from simulated.confidence import with_confidence

Variant = Literal["balanced", "oversized"]
VARIANTS: tuple[Variant, ...] = ("balanced", "oversized")

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
    "balanced": _Recipe((2, 4), (5, 8), (1, 3), (1, 3), (0.35, 0.7), 0.4),
    "oversized": _Recipe((2, 4), (2, 4), (1, 3), (5, 7), (0.3, 0.6), 0.75),
}


def make_simulated(
    points: PointSet,
    truth: Mapping[str, Any],
    read: Callable[[ImageInfo], ByteArray],
    seed: int = 0,
    variant: Variant = "balanced",
) -> dict[int, list[Bag]]:
    """image id -> a bag per annotation, in the order of `points`; at most 14 masks in each.

    truth: as `read_truth` gives it, tied to the points by annotation id; a point without truth
    gets a disc. read: the image of an ImageInfo, (H, W, 3) uint8 RGB. variant: `balanced`, or
    `oversized`, where the masks that are too large outnumber the whole ones and agree with each
    other. Sources are whole, part, group, bleed. The same arguments give the same bags. Raises
    ValueError for an unknown variant, and where an image or a mask is not of the size told.
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
        image = read(info) if masks else np.zeros((*info.size, 3), np.uint8)
        if image.shape != (*info.size, 3) or any(m["size"] != [*info.size] for m in masks.values()):
            raise ValueError(f"image {info.id} or its truth is not {info.width}×{info.height}")
        bags[info.id] = _image_bags(image, info, annotations, masks, seed, variant)
    return with_confidence(bags, true, lambda id_: _stream(seed, variant, id_, 1))


class SimulatedGenerator:
    """Hands out what `make_simulated` made, to go through the pipeline as any generator.

    With max_proposals of 14 or more, `make_bags` gives the same bags again.
    """

    name = "simulated"
    calibrated = False

    def __init__(self, bags: Mapping[int, Sequence[Bag]]) -> None:
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
        """The masks made for each annotation of the dataset."""
        for annotation in annotations:
            bag = self._bags[annotation.id]
            masks = decode_all(bag.masks).transpose(2, 0, 1).astype(bool)
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
    recipe, largest = _RECIPES[variant], WHOLE_IMAGE * info.height * info.width
    streams = {a.id: _stream(seed, variant, a.id, 0) for a in annotations}
    made = {
        a.id: _own_masks(image, info, a, true[a.id], recipe, streams[a.id])
        for a in annotations
        if a.id in true and coco_mask.area(true[a.id])
    }
    bags = []
    for index, annotation in enumerate(annotations):
        rng, tagged = streams[annotation.id], []
        if annotation.id in made:
            mates = [a.id for a in same_class_points(annotation, annotations) if a.id in made]
            joined = _joined(annotation.id, mates, true, rng, recipe)
            groups = [("group", _union(made, members, rng)) for members in joined]
            tagged = [
                (kind, mask)
                for kind, mask in (*made[annotation.id], *groups)
                if coco_mask.area(mask) <= largest
            ]
        if not tagged:
            xy = np.array([(a.x, a.y) for a in annotations], np.float64)
            tagged = [(DISC_SOURCE, encode(safety_disc(xy, index, info.size)[None])[0])]
        kinds, masks = zip(*tagged, strict=True)
        bags.append(bag_of(annotation.id, masks, rng.random(len(masks)).astype(np.float32), kinds))
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
    view = make.View.of(image, decode(true), annotation)
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
    true: Mapping[int, Rle],
    rng: np.random.Generator,
    recipe: _Recipe,
) -> list[list[int]]:
    """Which objects each group joins: the nearest of the class, then the two nearest."""
    boxes = coco_mask.toBbox([true[id_] for id_ in (own, *mates)])
    gaps = _gaps(boxes[0], boxes[1:])
    middles = boxes[:, :2] + boxes[:, 2:] / 2
    away = np.hypot(*(middles[1:] - middles[0]).T)
    near = [mates[i] for i in np.lexsort((np.asarray(mates), away, gaps)) if gaps[i] <= _REACH]
    near = near[: int(rng.integers(*recipe.groups))]
    return [[own, *near[: count + 1]] for count in range(len(near))]


def _gaps(box: np.ndarray, others: np.ndarray) -> np.ndarray:
    """(N,) gap from one box to each of (N, 4), over the longer of the two diagonals; all xywh."""
    ends, other_ends = box[:2] + box[2:], others[:, :2] + others[:, 2:]
    apart = np.maximum(np.maximum(box[:2], others[:, :2]) - np.minimum(ends, other_ends), 0)
    diagonals = np.maximum(np.hypot(*box[2:]), np.hypot(others[:, 2], others[:, 3]))
    return np.asarray(np.hypot(apart[:, 0], apart[:, 1]) / diagonals)


def _union(
    made: Mapping[int, Sequence[tuple[str, Rle]]],
    members: Sequence[int],
    rng: np.random.Generator,
) -> Rle:
    """One of the wholes of each member, joined."""
    wholes = [[mask for kind, mask in made[id_] if kind == "whole"] for id_ in members]
    return merge([masks[int(rng.integers(len(masks)))] for masks in wholes])


def _stream(seed: int, variant: Variant, annotation_id: int, use: int) -> np.random.Generator:
    """One stream an object and use, so that no object's bag depends on the others' draws."""
    return np.random.default_rng([seed, VARIANTS.index(variant), annotation_id % 2**64, use])
