"""How good masks from one click are: the most confident, the best of the bag, by size."""

import json
import time
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from pycocotools import mask as coco_mask

from sapnet.proposals import ProposalGenerator
from sapnet.proposals.bags import make_bags
from sapnet.types import Bag, ImageInfo, PointAnnotation

SHARES = ((0.0, 0.005), (0.005, 0.03), (0.03, 0.15), (0.15, 1.01))  # of the image's area


@dataclass(frozen=True)
class LabeledImage:
    """image: (H, W, 3) uint8. truth: an RLE a point."""

    info: ImageInfo
    image: np.ndarray
    points: list[PointAnnotation]
    truth: list[dict[str, Any]]


def labeled_images(folder: Path, most: int | None = None) -> Iterator[LabeledImage]:
    """Of a folder with images/, points.json and instances.json."""
    content = json.loads((folder / "points.json").read_text())
    instances = json.loads((folder / "instances.json").read_text())["annotations"]
    segments = {a["id"]: a["segmentation"] for a in instances}
    listed = defaultdict(list)
    for annotation in content["annotations"]:
        listed[annotation["image_id"]].append(annotation)
    for entry in content["images"][:most]:
        annotations = listed[entry["id"]]
        if not annotations:
            continue
        image = read(folder / "images" / entry["file_name"])
        height, width = image.shape[:2]
        points = [
            PointAnnotation(a["id"], a["image_id"], a["category_id"], *a["point"])
            for a in annotations
        ]
        truth = [_rle(segments[a["id"]], height, width) for a in annotations]
        info = ImageInfo(entry["id"], entry["file_name"], width, height)
        yield LabeledImage(info, image, points, truth)


def read(path: Path) -> np.ndarray:
    """(H, W, 3) uint8 RGB."""
    with Image.open(path) as source:
        return np.asarray(source.convert("RGB"))


def _rle(segment: Any, height: int, width: int) -> dict[str, Any]:
    if isinstance(segment, list):
        merged: dict[str, Any] = coco_mask.merge(coco_mask.frPyObjects(segment, height, width))
        return merged
    if isinstance(segment["counts"], list):
        plain: dict[str, Any] = coco_mask.frPyObjects(segment, height, width)
        return plain
    return dict(segment)


@dataclass(frozen=True)
class Row:
    """One object. iou: (M,) of the bag's masks. share: of the image's area."""

    iou: np.ndarray
    bag: Bag
    share: float


def rows(
    generator: ProposalGenerator, folder: Path, most: int | None = None, masks: int = 16
) -> tuple[list[Row], dict[str, float]]:
    """Bags of a folder's points beside the truth, and the cost: CPU seconds an image, a point."""
    out, cpu, count = [], 0.0, 0
    for labeled in labeled_images(folder, most):
        began = time.process_time()
        bags = make_bags(
            generator, labeled.image, labeled.info, labeled.points, max_proposals=masks
        )
        cpu += time.process_time() - began
        count += 1
        for bag, truth in zip(bags, labeled.truth, strict=True):
            iou = coco_mask.iou(list(bag.masks), [truth], [0])[:, 0]
            size = labeled.info.height * labeled.info.width
            out.append(Row(np.asarray(iou), bag, float(coco_mask.area(truth)) / size))
    return out, {
        "images": count,
        "cpu_per_image": cpu / max(count, 1),
        "cpu_a_point": cpu / max(len(out), 1),
    }


def figures(found: list[Row]) -> dict[str, Any]:
    """Mean IoU of the most confident mask and of the best of the bag, overall and by size."""

    def means(chosen: list[Row]) -> dict[str, float]:
        if not chosen:
            return {"objects": 0}
        return {
            "objects": len(chosen),
            "most_confident": round(float(np.mean([r.iou[0] for r in chosen])), 4),
            "best": round(float(np.mean([r.iou.max() for r in chosen])), 4),
            "over_half": round(float(np.mean([r.iou[0] > 0.5 for r in chosen])), 4),
        }

    by_size = {
        f"{low:.1%}-{min(high, 1):.1%}": means([r for r in found if low <= r.share < high])
        for low, high in SHARES
    }
    confidence = np.array([r.bag.confidence[0] for r in found])
    hit = np.array([r.iou[0] for r in found])
    error = {"confidence_error": round(float(np.abs(confidence - hit).mean()), 4)}
    return means(found) | error | {"by_size": by_size}
