"""The threshold of the best F1, and the confusions there, against plain loops."""

import numpy as np
import pytest
from pycocotools import mask as coco_mask

from sapnet.evaluation.operating_point import best_operating_point


def square(x, size=10, side=64):
    mask = np.zeros((side, side), np.uint8, order="F")
    mask[:size, x : x + size] = 1
    rle = coco_mask.encode(mask)
    return {"size": [side, side], "counts": rle["counts"].decode()}


def truth(*objects):
    """(image, category, x) of each; images 1 to 3."""
    return {
        "images": [{"id": i, "height": 64, "width": 64} for i in (1, 2, 3)],
        "annotations": [
            {"image_id": i, "category_id": c, "segmentation": square(x), "iscrowd": 0}
            for i, c, x in objects
        ],
    }


def found(*results):
    return [
        {"image_id": i, "category_id": c, "segmentation": square(x), "score": s}
        for i, c, x, s in results
    ]


def test_the_threshold_leaves_out_what_costs_more_than_it_finds():
    true = truth((1, 1, 0), (1, 1, 20), (2, 1, 0))
    results = found((1, 1, 0, 0.9), (1, 1, 21, 0.6), (1, 1, 45, 0.5), (2, 1, 40, 0.4),
                    (3, 1, 0, 0.3), (2, 1, 1, 0.2))  # fmt: skip
    point = best_operating_point(results, true, [1, 2, 3], [1])
    assert point.score_threshold == 0.6
    assert (point.precision, point.recall) == (1, pytest.approx(2 / 3))
    assert point.f1 == pytest.approx(0.8)
    assert point.confusion == {(1, 1): 2, (1, None): 1}
    assert point.to_dict()["score_threshold"] == 0.6


def test_a_second_detection_of_an_object_is_wrong():
    point = best_operating_point(found((1, 1, 0, 0.5), (1, 1, 1, 0.5)), truth((1, 1, 0)), [1], [1])
    assert (point.precision, point.recall) == (0.5, 1)
    assert point.confusion == {(1, 1): 1, (None, 1): 1}


def test_what_is_taken_for_what():
    true = truth((1, 1, 0), (1, 2, 20), (2, 2, 40), (3, 1, 0))
    results = found((1, 1, 0, 0.9), (1, 1, 20, 0.8), (2, 2, 40, 0.7), (2, 1, 0, 0.65))
    point = best_operating_point(results, true, [1, 2], [1, 2])
    assert point.score_threshold == 0.7
    assert point.confusion == {(1, 1): 1, (2, 1): 1, (2, 2): 1}
    listed = point.to_dict()["confusion"]
    assert {"true": 2, "predicted": 1, "count": 1} in listed


def test_only_the_images_and_classes_that_count():
    true = truth((1, 1, 0), (2, 1, 0))
    results = found((1, 1, 0, 0.9), (1, 2, 20, 0.8), (3, 1, 0, 0.7))
    point = best_operating_point(results, true, [1], [1])
    assert (point.f1, point.confusion) == (1, {(1, 1): 1})


def test_nothing_to_choose_from():
    assert best_operating_point([], truth((1, 1, 0)), [1], [1]) is None
    assert best_operating_point(found((1, 1, 0, 0.9)), truth(), [1], [1]) is None


def test_against_every_threshold_tried():
    rng = np.random.default_rng(0)
    true = truth(*{(int(i), 1, int(x) * 6) for i, x in rng.integers(1, 4, (8, 2))})
    rows = [(int(rng.integers(1, 4)), 1, int(rng.integers(0, 50)), round(float(s), 2))
            for s in rng.random(40)]  # fmt: skip
    results = found(*rows)
    point = best_operating_point(results, true, [1, 2, 3], [1])

    def f1(threshold):
        kept = sorted((r for r in results if r["score"] >= threshold), key=lambda r: -r["score"])
        free, right = list(true["annotations"]), 0
        for result in kept:
            ious = [
                coco_mask.iou([result["segmentation"]], [o["segmentation"]], [0])[0, 0]
                if o["image_id"] == result["image_id"] else 0
                for o in free
            ]  # fmt: skip
            if ious and max(ious) >= 0.5:
                free.pop(int(np.argmax(ious)))
                right += 1
        return 2 * right / (len(kept) + len(true["annotations"]))

    assert point.f1 == pytest.approx(max(f1(row[3]) for row in rows))
    assert f1(point.score_threshold) == pytest.approx(point.f1)
