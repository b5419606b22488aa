"""Small worlds of masks, and plain references for what is measured on them."""

from types import SimpleNamespace

import numpy as np
import pytest
from pycocotools import mask as coco_mask

from sapnet.types import Bag, Category, ImageInfo, PointAnnotation, PointSet

SIZE = (24, 30)


def encode(mask):
    rle = coco_mask.encode(np.asfortranarray(mask, dtype=np.uint8))
    return {"size": [int(side) for side in rle["size"]], "counts": rle["counts"].decode()}


def iou(a, b):
    return (a & b).sum() / max((a | b).sum(), 1)


def box_of(mask):
    """Tight xyxy."""
    rows, columns = np.nonzero(mask.any(1))[0], np.nonzero(mask.any(0))[0]
    return [int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1]


def xywh(mask):
    x1, y1, x2, y2 = box_of(mask)
    return [x1, y1, x2 - x1, y2 - y1]


def bag_of(annotation_id, masks, confidence):
    return Bag(
        annotation_id=annotation_id,
        boxes=np.array([box_of(mask) for mask in masks], dtype=np.float32),
        masks=tuple(encode(mask) for mask in masks),
        confidence=np.array(confidence, dtype=np.float32),
        sources=("test",) * len(masks),
        overlaps=np.array([[iou(a, b) for b in masks] for a in masks], dtype=np.float32),
    )


def block(x1, y1, x2, y2, size=SIZE):
    mask = np.zeros(size, dtype=bool)
    mask[y1:y2, x1:x2] = True
    return mask


def blob(rng):
    """A block with holes bitten into its border."""
    height, width = SIZE
    x, y = rng.integers(0, width - 8), rng.integers(0, height - 8)
    mask = block(x, y, x + rng.integers(4, 9), y + rng.integers(4, 9))
    return mask & (rng.random(SIZE) < 0.9)


def world(seed, images=2, objects=4):
    """Points, masks of their bags, true masks and pseudo-masks, all at random."""
    rng = np.random.default_rng(seed)
    annotations, masks, confidence, true, pseudo = [], {}, {}, {}, {}
    for image_id in range(images):
        for _ in range(objects):
            id_ = len(annotations)  # 0 among them
            true[id_] = blob(rng)
            rows, columns = np.nonzero(true[id_])
            pick = rng.integers(len(rows))
            at = float(columns[pick]) + 0.5, float(rows[pick]) + 0.5
            annotations.append(PointAnnotation(id_, image_id, int(rng.integers(2)), *at))
            masks[id_] = [blob(rng) | (true[id_] & blob(rng)) for _ in range(rng.integers(1, 6))]
            masks[id_].append(true[id_] | blob(rng))
            confidence[id_] = sorted(rng.random(len(masks[id_])), reverse=True)
            pseudo[id_] = masks[id_][rng.integers(len(masks[id_]))]
    points = PointSet(
        images=tuple(ImageInfo(n, f"{n}.png", SIZE[1], SIZE[0]) for n in range(images)),
        annotations=tuple(annotations),
        categories=(Category(0, "a"), Category(1, "b"), Category(2, "unused")),
    )
    return SimpleNamespace(
        points=points,
        masks=masks,
        confidence=confidence,
        true=true,
        pseudo=pseudo,
        bags={id_: bag_of(id_, masks[id_], confidence[id_]) for id_ in masks},
        records=[
            SimpleNamespace(id=id_, segmentation=encode(mask), bbox=xywh(mask))
            for id_, mask in pseudo.items()
        ],
        truth={
            "images": [{"id": n, "width": SIZE[1], "height": SIZE[0]} for n in range(images)],
            "categories": [{"id": 0, "name": "a"}, {"id": 1, "name": "b"}],
            "annotations": [
                {
                    "id": a.id,
                    "image_id": a.image_id,
                    "category_id": a.category_id,
                    "segmentation": encode(true[a.id]),
                    "bbox": xywh(true[a.id]),
                    "area": int(true[a.id].sum()),
                    "iscrowd": 0,
                }
                for a in annotations
            ],
        },
    )


@pytest.fixture
def tools():
    """The functions above, since test modules cannot import each other."""
    return SimpleNamespace(
        encode=encode, iou=iou, box_of=box_of, xywh=xywh, bag_of=bag_of, block=block, world=world
    )
