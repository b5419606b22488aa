"""A tiny finished run: two images, three masks, with truth or without."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as coco_mask

from sapnet.config.resolve import resolve_config
from sapnet.data.masks import area, mask_iou, tight_box, tight_boxes
from sapnet.evaluation.calibration import reliability
from sapnet.evaluation.pseudo_masks import ious_with, pseudo_mask_metrics
from sapnet.evaluation.report import ReportInputs
from sapnet.types import Bag, Category, ImageInfo, PointAnnotation, PointSet, PseudoMask, Rle

SIZE = (60, 80)


def disc(x: float, y: float, radius: float) -> Rle:
    ys, xs = np.mgrid[: SIZE[0], : SIZE[1]]
    pixels = ((xs - x) ** 2 + (ys - y) ** 2 <= radius**2).astype(np.uint8)
    rle = coco_mask.encode(np.asfortranarray(pixels))
    return {"size": [int(v) for v in rle["size"]], "counts": rle["counts"].decode()}


def delivered(annotation: PointAnnotation, mask: Rle, quality: float) -> PseudoMask:
    return PseudoMask(
        id=annotation.id,
        image_id=annotation.image_id,
        category_id=annotation.category_id,
        segmentation=mask,
        bbox=tight_box(mask),
        area=area(mask),
        source="refined",
        selected=mask,
        quality=quality,
    )


def one_mask(annotation: PointAnnotation, mask: Rle) -> Bag:
    one = np.ones(1, np.float32)
    return Bag(annotation.id, tight_boxes([mask]), (mask,), one, ("",), mask_iou([mask]))


@pytest.fixture
def make_inputs(tmp_path: Path) -> Callable[..., ReportInputs]:
    """make_inputs(truth=True, names=…, rows=…, **report)"""

    def make(
        truth: bool = True,
        names: tuple[str, str] = ("ant", "bee"),
        annotated: bool = True,
        **report: Any,
    ) -> ReportInputs:
        paths = {}
        for number in (1, 2):
            paths[number] = tmp_path / f"{number}.png"
            pixels = np.random.default_rng(number).integers(0, 255, (*SIZE, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(paths[number])
        annotations = (
            PointAnnotation(11, 1, 3, 20.5, 20.5),
            PointAnnotation(12, 1, 7, 79.5, 59.5),
            PointAnnotation(21, 2, 3, 40.5, 30.5),
        )
        points = PointSet(
            images=tuple(ImageInfo(n, f"{n}.png", SIZE[1], SIZE[0]) for n in (1, 2)),
            annotations=annotations if annotated else (),
            categories=(Category(3, names[0]), Category(7, names[1])),
        )
        masks = [disc(20, 20, 9), disc(79, 59, 1), disc(40, 30, 4)]
        known = [disc(20, 20, 10), disc(79, 59, 1), disc(40, 30, 12)]
        told = zip(annotations, masks, (0.9, 0.8, 0.2), strict=True)
        delivered_masks = [delivered(*one) for one in told] if annotated else []
        bags = {a.id: one_mask(a, m) for a, m in zip(annotations, masks, strict=True)}
        true = {a.id: m for a, m in zip(annotations, known, strict=True)} if truth else {}
        ious = ious_with(delivered_masks, true)
        metrics: dict[str, Any] = {"pseudo_masks": None, "model": None, "proposals": {}}
        if truth:
            document = {
                "images": [{"id": n, "height": SIZE[0], "width": SIZE[1]} for n in (1, 2)],
                "annotations": [
                    {
                        "id": a.id,
                        "image_id": a.image_id,
                        "segmentation": true[a.id],
                        "bbox": coco_mask.toBbox(true[a.id]).tolist(),
                        "iscrowd": 0,
                    }
                    for a in annotations
                ],
            }
            figures = pseudo_mask_metrics(delivered_masks, bags, points, document)
            figures["selected_miou_mask"] = 0.5
            figures["quality"] = reliability(delivered_masks, ious)
            metrics["proposals"] = figures.pop("proposals")
            metrics |= {"pseudo_masks": figures, "model": {"segm": {"AP50": 0.25}}}
        return ReportInputs(
            report={
                "config": resolve_config("sapnet++", "demo").to_dict(),
                "weights": {"kind": "file", "detail": "w.pt", "sha256": "ab" * 32},
                "seed": 5,
                "proposals": {
                    "generator": "hierarchy",
                    "fingerprint": "cd" * 32,
                    "settings": {"kind": "hierarchy"},
                },
                "images": 2,
                "versions": {"sapnet": "0", "torch": "2"},
                "set_aside": [],
                "seconds": {"proposals": 1.5, "train": 4000.0},
                "peak_memory_mb": 900,
                "undecided_bags": 0,
                "losses": [{"step": s, "losses": {"psm": 1 / s}} for s in range(1, 9)],
                "metrics": metrics,
                **report,
            },
            points=points,
            masks=delivered_masks,
            bag_sizes=[len(bag) for bag in bags.values()] if annotated else [],
            paths=paths,
            overrides={"train.epochs": 6},
            true=true,
            ious=ious,
        )

    return make
