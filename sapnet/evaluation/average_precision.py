"""AP by COCO's rules, counted by faster-coco-eval; the tests hold it against pycocotools."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from faster_coco_eval import COCO, COCOeval_faster

THRESHOLDS = (0.25, *np.linspace(0.5, 0.95, 10).tolist())
MAX_DETECTIONS = 100
OF_COCO = slice(1, None)
AT = {threshold: n for n, threshold in enumerate(THRESHOLDS)}
AREAS = ("all", "small", "medium", "large")

Kind = Literal["segm", "bbox"]


def average_precision(
    detections: Sequence[dict[str, Any]],
    truth: dict[str, Any],
    kind: Kind = "segm",
    *,
    image_ids: Collection[int] | None = None,
    category_ids: Collection[int] | None = None,
) -> dict[str, float | None]:
    """AP, AP50, AP75, AP25, APs, APm, APl of COCO results, each in [0, 1].

    Args:
        detections: image_id, category_id, score, and segmentation (RLE) or bbox (xywh), as `kind`
            asks; at most 100 an image count.
        truth: ground truth as `read_truth` gives it, `iscrowd` included, which costs no detection
            anything.
        image_ids, category_ids: what to count, all of the ground truth's where None; detections
            and objects outside of these are left out.

    Returns:
        AP is the mean over IoU 0.50 to 0.95; AP25 lies outside of that mean. A figure is None where
        no object is of its size.
    """
    counted = count(detections, truth, kind, image_ids=image_ids, category_ids=category_ids)
    if counted is None:
        return dict.fromkeys(("AP", "AP50", "AP75", "AP25", "APs", "APm", "APl"))
    precision = counted.precision
    return {
        "AP": mean(precision[OF_COCO, ..., 0]),
        "AP50": mean(precision[AT[0.5], ..., 0]),
        "AP75": mean(precision[AT[0.75], ..., 0]),
        "AP25": mean(precision[AT[0.25], ..., 0]),
        "APs": mean(precision[OF_COCO, ..., AREAS.index("small")]),
        "APm": mean(precision[OF_COCO, ..., AREAS.index("medium")]),
        "APl": mean(precision[OF_COCO, ..., AREAS.index("large")]),
    }


@dataclass(frozen=True)
class Counted:
    """Precision of detections, before any mean.

    Attributes:
        precision: (T thresholds, 101 recalls, K classes, A areas), -1 where a class has no true
            object.
        recalls: (101,) from 0 to 1.
        category_ids: the K classes.
    """

    precision: npt.NDArray[np.float64]
    recalls: npt.NDArray[np.float64]
    category_ids: tuple[int, ...]


def count(
    detections: Sequence[dict[str, Any]],
    truth: dict[str, Any],
    kind: Kind = "segm",
    *,
    image_ids: Collection[int] | None = None,
    category_ids: Collection[int] | None = None,
) -> Counted | None:
    """Match detections with the ground truth; None where there is no object at all.

    Arguments are those of `average_precision`.
    """
    images, categories = _of(truth["images"], image_ids), _of(truth["categories"], category_ids)
    kept_images = {image["id"] for image in images}
    kept_categories = {category["id"] for category in categories}

    def counts(item: dict[str, Any]) -> bool:
        return item["image_id"] in kept_images and item["category_id"] in kept_categories

    objects = [item for item in truth["annotations"] if counts(item)]
    if not any(not item["iscrowd"] for item in objects):
        return None
    true = COCO(
        {
            "images": images,
            "categories": categories,
            # Numbered anew: an id of 0 would read as "not matched".
            "annotations": [{**item, "id": n} for n, item in enumerate(objects, start=1)],
        }
    )
    # Only the asked kind goes along: with a box at hand, the area of a mask would be the box's.
    field = "segmentation" if kind == "segm" else "bbox"
    results = true.loadRes(
        [
            {key: item[key] for key in ("image_id", "category_id", "score", field)}
            for item in detections
            if counts(item)
        ]
    )
    evaluation = COCOeval_faster(true, results, kind)
    evaluation.params.iouThrs = np.array(THRESHOLDS)
    evaluation.params.maxDets = [MAX_DETECTIONS]
    evaluation.evaluate()
    evaluation.accumulate()
    params = evaluation.params
    ids = tuple(int(category) for category in params.catIds)
    return Counted(evaluation.eval["precision"][..., 0], np.asarray(params.recThrs), ids)


def _of(items: list[dict[str, Any]], ids: Collection[int] | None) -> list[dict[str, Any]]:
    wanted = None if ids is None else set(ids)
    return [dict(item) for item in items if wanted is None or item["id"] in wanted]


def mean(precision: npt.NDArray[np.float64]) -> float | None:
    """The mean of the values that are defined (not -1); None where none is."""
    defined = precision[precision > -1]
    return float(defined.mean()) if defined.size else None
