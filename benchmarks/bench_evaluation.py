"""The twelve figures of COCO's evaluation of masks, 100 detections an image."""

import contextlib
import io
import time
from collections.abc import Callable
from typing import Any

import numpy as np
from comparison import Row, compare
from faster_coco_eval import COCO as FastCOCO
from faster_coco_eval import COCOeval_faster
from pycocotools import mask as coco_mask
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

SIZE = (480, 640)
Document = dict[str, Any]


def world(
    images: int, detections: int, objects: int = 8, classes: int = 80
) -> tuple[Document, list[Document]]:
    """Truth and results: ellipses of COCO's sizes, found more or less well, and false ones. The
    same every time."""
    rng = np.random.default_rng(0)
    annotations, results = [], []
    for image in range(1, images + 1):
        true = [_ellipse(rng) for _ in range(objects)]
        labels = rng.integers(1, classes + 1, objects)
        for place, label in zip(true, labels, strict=True):
            rle = _rle(*place)
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": image,
                    "category_id": int(label),
                    "segmentation": rle,
                    "bbox": coco_mask.toBbox(rle).tolist(),
                    "area": float(coco_mask.area(rle)),
                    "iscrowd": int(rng.random() < 0.02),
                }
            )
        for _ in range(detections):
            n = int(rng.integers(objects))
            near = rng.random() < 0.5
            place = true[n] * rng.normal(1, 0.08, 4) if near else _ellipse(rng)
            label = int(labels[n]) if near else int(rng.integers(1, classes + 1))
            score = round(float(rng.random() * (1 if near else 0.6)), 4)
            results.append(
                {
                    "image_id": image,
                    "category_id": label,
                    "segmentation": _rle(*place),
                    "score": score,
                }
            )
    truth = {
        "images": [{"id": i + 1, "height": SIZE[0], "width": SIZE[1]} for i in range(images)],
        "categories": [{"id": c + 1, "name": str(c)} for c in range(classes)],
        "annotations": annotations,
    }
    return truth, results


def _ellipse(rng: np.random.Generator) -> np.ndarray:
    """Centre x, y and half axes."""
    return np.array([*rng.uniform((0, 0), SIZE[::-1]), *np.exp(rng.uniform(1.5, 5, 2))])


def _rle(cx: float, cy: float, a: float, b: float) -> Document:
    angles = np.linspace(0, 2 * np.pi, 40, endpoint=False)
    corners = np.stack([cx + a * np.cos(angles), cy + b * np.sin(angles)], axis=1)
    corners = corners.clip((0, 0), SIZE[::-1]).ravel().tolist()
    (rle,) = coco_mask.frPyObjects([corners], *SIZE)
    return {"size": list(SIZE), "counts": rle["counts"].decode("ascii")}


def stats(
    truth: Document,
    results: list[Document],
    coco: Callable[[], Any],
    evaluation: Callable[..., Any],
) -> list[float]:
    """The twelve figures, by either library."""
    with contextlib.redirect_stdout(io.StringIO()):
        true = coco()
        true.dataset = truth
        true.createIndex()
        run = evaluation(true, true.loadRes([dict(result) for result in results]), "segm")
        run.evaluate()
        run.accumulate()
        run.summarize()
    return [float(value) for value in run.stats[:12]]


def measure(small: bool) -> list[Row]:
    images, detections = (4, 20) if small else (1000, 100)
    truth, results = world(images, detections)

    def ours() -> list[float]:
        return stats(truth, results, FastCOCO, COCOeval_faster)

    def peer() -> list[float]:
        return stats(truth, results, COCO, COCOeval)

    assert np.allclose(ours(), peer(), rtol=0, atol=1e-9)
    return [
        compare(
            f"evaluation, {images} images × {detections} masks",
            ours,
            peer,
            against="pycocotools",
            goal=2,
            rounds=1 if small else 3,
            sample=0,
            clock=time.process_time,
        )
    ]
