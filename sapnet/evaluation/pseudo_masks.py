"""Metrics of pseudo-masks, and of the bags that they were selected from, against the truth.

Truth is tied to a point by the annotation's id. All figures are shares in [0, 1], None where there
is nothing to count (JSON knows no NaN).
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
from msgspec.structs import replace
from pycocotools import mask as coco_mask

from sapnet.data.annotations.ground_truth import as_rle
from sapnet.data.masks import holds_points, tight_box
from sapnet.errors import InvalidDataset, ValidationIssue
from sapnet.evaluation.adjacency import adjacent_pairs
from sapnet.evaluation.calibration import RIGHT
from sapnet.labelers.consensus import consensus_pick
from sapnet.labelers.same_class_points import point_containment, same_class_points
from sapnet.types import Bag, PointAnnotation, PointSet, PseudoMask, Rle

Floats = npt.NDArray[np.float64]


class Delivered(Protocol):
    """A mask for an annotation: its id, the mask as RLE at image size, and the mask's box, xywh."""

    @property
    def id(self) -> int:
        """The annotation's id."""

    @property
    def segmentation(self) -> Rle:
        """Compressed RLE at image size."""

    @property
    def bbox(self) -> Sequence[float]:
        """x, y, width, height in pixels."""


@dataclass(frozen=True, slots=True)
class _Match:
    """One object with truth. `*_mask`, `*_box` are IoUs with it; `rv` is mask area / box area."""

    id: int
    category_id: int
    mask: float
    box: float
    bag: dict[str, float]
    smaller_box: bool
    most_filled: float
    rv_excess: float


def pseudo_mask_metrics(
    records: Iterable[Delivered],
    bags: Mapping[int, Bag],
    points: PointSet,
    truth: Mapping[str, Any],
) -> dict[str, Any]:
    """mIoU, Gap_local and Gap_group (SAPNet++ section 4.3.4, Eq. 29) of pseudo-masks.

    A point with truth but without a record counts as an IoU of 0.

    Args:
        records: one an annotation, each a `PseudoMask` or like one.
        bags: annotation id -> bag, for all of them.
        truth: as `read_truth` gives it; other ids than the points' are ignored, and so is
            `iscrowd`.

    Returns:
        count, miou_mask, miou_box, gap_local, gap_group, per_class; missing_rate, the share of
        objects with an IoU below 0.5; adjacent_rate, of the adjacent_pairs, which are of one class
        and at most 3 pixels apart, the share in which both have at least 0.5; and under "proposals"
        the same mIoUs of the best of each bag, of the most confident proposal, and of the medoid.

    Raises:
        InvalidDataset: the masks of the truth are not of the size of the points' images.
    """
    recorded = {record.id: record for record in records}
    true = _truth_of(points, truth)
    fill = {id_: float(_fill(bag.masks, _xywh(bag.boxes)).max()) for id_, bag in bags.items()}
    threshold = float(np.mean(list(fill.values()))) if fill else 0.0  # T_rv
    matches = [
        _match(annotation, siblings, recorded.get(annotation.id), bags[annotation.id], *true_mask)
        for _, siblings in points
        for annotation in siblings
        if (true_mask := true.get(annotation.id))
    ]
    right = {match.id for match in matches if match.mask >= RIGHT}
    masks = {id_: mask for id_, (mask, _) in true.items()}
    adjacent = [pair for _, siblings in points for pair in adjacent_pairs(siblings, masks)]
    local = [m.rv_excess for m in matches if m.smaller_box and m.most_filled > threshold]
    return {
        "count": len(matches),
        "miou_mask": _mean(m.mask for m in matches),
        "miou_box": _mean(m.box for m in matches),
        "gap_local": _mean(local),
        "gap_group": _gap_group(recorded, points),
        "missing_rate": _mean(match.id not in right for match in matches),
        "adjacent_rate": _mean(right.issuperset(pair) for pair in adjacent),
        "adjacent_pairs": len(adjacent),
        "per_class": _per_class(matches, points),
        "proposals": {
            name: _mean(m.bag[name] for m in matches)
            for name in (
                "best_of_bag_miou_mask",
                "best_of_bag_miou_box",
                "sam_top1_miou_mask",
                "sam_top1_miou_box",
                "consensus_miou_mask",
                "consensus_miou_box",
            )
        },
    }


def _match(
    annotation: PointAnnotation,
    siblings: Sequence[PointAnnotation],
    record: Delivered | None,
    bag: Bag,
    true_mask: Rle,
    true_box: Floats,
) -> _Match:
    boxes = _xywh(bag.boxes)
    mask_ious = coco_mask.iou(list(bag.masks), [true_mask], [0])[:, 0]
    box_ious = coco_mask.iou(boxes, true_box[None], [0])[:, 0]
    confident = int(np.argmax(bag.confidence))
    medoid = consensus_pick(bag, point_containment(bag, annotation, siblings)[0])
    mask_iou, box_iou, excess, smaller = 0.0, 0.0, 0.0, False
    if record is not None:
        mask, box = record.segmentation, np.asarray(record.bbox, dtype=np.float64)
        mask_iou = float(coco_mask.iou([mask], [true_mask], [0])[0, 0])
        box_iou = float(coco_mask.iou(box[None], true_box[None], [0])[0, 0])
        excess = float(_fill([mask], box[None])[0] - _fill([true_mask], true_box[None])[0])
        smaller = bool(box[2] * box[3] < true_box[2] * true_box[3])
    return _Match(
        id=annotation.id,
        category_id=annotation.category_id,
        mask=mask_iou,
        box=box_iou,
        bag={
            "best_of_bag_miou_mask": float(mask_ious.max()),
            "best_of_bag_miou_box": float(box_ious.max()),
            "sam_top1_miou_mask": float(mask_ious[confident]),
            "sam_top1_miou_box": float(box_ious[confident]),
            "consensus_miou_mask": float(mask_ious[medoid]),
            "consensus_miou_box": float(box_ious[medoid]),
        },
        smaller_box=smaller,
        most_filled=float(_fill(bag.masks, boxes).max()),
        rv_excess=excess,
    )


def true_masks(points: PointSet, truth: Mapping[str, Any]) -> dict[int, Rle]:
    """The true mask of each annotation that has one, by id.

    Raises:
        InvalidDataset: as `pseudo_mask_metrics` does.
    """
    return {id_: mask for id_, (mask, _) in _truth_of(points, truth).items()}


def ious_with(records: Iterable[Delivered], true: Mapping[int, Rle]) -> dict[int, float]:
    """IoU of each record's mask with the true one, by annotation id, of those that have one."""
    return {
        record.id: float(coco_mask.iou([record.segmentation], [true[record.id]], [0])[0, 0])
        for record in records
        if record.id in true
    }


def as_selected(mask: PseudoMask) -> PseudoMask:
    """A pseudo-mask as if M_srm itself had been delivered, before any refinement."""
    return replace(mask, segmentation=mask.selected, bbox=tight_box(mask.selected))


def _truth_of(points: PointSet, truth: Mapping[str, Any]) -> dict[int, tuple[Rle, Floats]]:
    """Map annotation ids to (true mask, true box xywh), for the points' own annotations."""
    sizes = {image["id"]: (image["height"], image["width"]) for image in truth["images"]}
    wanted = {annotation.id: image for image, group in points for annotation in group}
    true_masks: dict[int, tuple[Rle, Floats]] = {}
    issues = []
    for index, item in enumerate(truth["annotations"]):
        image = wanted.get(item["id"])
        if image is None or item["iscrowd"]:
            continue
        height, width = sizes[item["image_id"]]
        if (height, width) != image.size:
            problem = f"the truth is for {width}×{height} pixels, the image has "
            problem += f"{image.width}×{image.height}"
            issues.append(
                ValidationIssue(f"/annotations/{index}", problem, "draw it on the same image")
            )
            continue
        box = np.asarray(item["bbox"], dtype=np.float64)
        true_masks[item["id"]] = (as_rle(item["segmentation"], height, width), box)
    if issues:
        raise InvalidDataset(issues)
    return true_masks


def _gap_group(recorded: Mapping[int, Delivered], points: PointSet) -> float | None:
    """Share of pseudo-masks that hold another annotation's point of their class."""
    containing = []
    for _, siblings in points:
        for annotation in siblings:
            if annotation.id in recorded:
                others = same_class_points(annotation, siblings)
                xy = np.array([(other.x, other.y) for other in others]).reshape(-1, 2)
                containing.append(
                    bool(holds_points(recorded[annotation.id].segmentation, xy).any())
                )
    return _mean(containing)


def _per_class(matches: Sequence[_Match], points: PointSet) -> list[dict[str, Any]]:
    """The classes that have truth, by ascending id."""
    of_class: dict[int, list[_Match]] = {}
    for match in matches:
        of_class.setdefault(match.category_id, []).append(match)
    return [
        {
            "category_id": category.id,
            "name": category.name,
            "count": len(of_class[category.id]),
            "miou_mask": _mean(m.mask for m in of_class[category.id]),
            "miou_box": _mean(m.box for m in of_class[category.id]),
        }
        for category in sorted(points.categories, key=lambda category: category.id)
        if category.id in of_class
    ]


def _fill(masks: Sequence[Rle], boxes: Floats) -> Floats:
    """Rv: mask area over box area, (M,). boxes: (M, 4) xywh."""
    areas = np.asarray(coco_mask.area(list(masks)), dtype=np.float64)
    return areas / np.maximum(boxes[:, 2] * boxes[:, 3], 1.0)


def _xywh(boxes: npt.NDArray[np.floating]) -> Floats:
    boxes = np.asarray(boxes, dtype=np.float64)
    return np.concatenate([boxes[:, :2], boxes[:, 2:] - boxes[:, :2]], axis=1)


def _mean(values: Iterable[float]) -> float | None:
    listed = list(values)
    return float(np.mean(listed)) if listed else None
