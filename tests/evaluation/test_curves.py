"""The curves whose means are the figures, and their drawing."""

import json

import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as coco_mask

from sapnet.evaluation import average_precision
from sapnet.evaluation.curves import NAMES, as_metrics, draw_curves, precision_recall

SIZE = (60, 80)


def square(x, y, side=10):
    mask = np.zeros(SIZE, np.uint8, order="F")
    mask[y : y + side, x : x + side] = 1
    rle = coco_mask.encode(mask)
    return {"size": list(SIZE), "counts": rle["counts"].decode()}


def true_object(n, category, x, y):
    rle = square(x, y)
    box = [float(x), float(y), 10.0, 10.0]
    return {"id": n, "image_id": 1, "category_id": category, "segmentation": rle, "bbox": box} | {
        "area": 100.0,
        "iscrowd": 0,
    }


def found(category, x, y, score):
    return {"image_id": 1, "category_id": category, "segmentation": square(x, y), "score": score}


@pytest.fixture
def truth():
    return {
        "images": [{"id": 1, "file_name": "1.png", "height": SIZE[0], "width": SIZE[1]}],
        "categories": [{"id": i, "name": n} for i, n in [(0, "cell"), (7, "dust"), (9, "none")]],
        "annotations": [true_object(n, c, 20 * n, 5) for n, c in enumerate([0, 0, 7])],
    }


def test_a_curve_by_hand(truth):
    """Two cells: one found, then a false one, then the other. Recall 0.5 at precision 1, recall 1
    at 2/3. The dust is found. `none` has no object, and counts for nothing."""
    detections = [found(0, 0, 5, 0.9), found(0, 60, 40, 0.8), found(0, 20, 5, 0.7)]
    curves = precision_recall([*detections, found(7, 40, 5, 0.5)], truth)
    expected = np.where(curves.recalls <= 0.5, 1, 2 / 3)
    for name in NAMES:
        assert curves.classes[0][name] == pytest.approx(expected)
        assert curves.classes[7][name] == pytest.approx(np.ones(101))
        assert curves.overall[name] == pytest.approx((expected + 1) / 2)
    assert set(curves.classes) == {0, 7}


def test_its_mean_is_the_figure(truth):
    rng = np.random.default_rng(0)
    detections = [
        found(int(rng.choice([0, 7])), *rng.integers(0, 45, 2).tolist(), float(rng.random()))
        for _ in range(60)
    ]
    detections += [found(0, 1, 5, 0.3), found(7, 40, 6, 0.9)]
    curves, figures = precision_recall(detections, truth), average_precision(detections, truth)
    for name in NAMES:
        assert 0 < figures[name] < 1
        assert curves.overall[name].mean() == pytest.approx(figures[name])


def test_metrics_are_bounded(truth):
    truth["categories"] = [{"id": i, "name": f"c{i}"} for i in range(300)]
    truth["annotations"] = [true_object(n, n, 5, 5) for n in range(300)]
    metrics = as_metrics(precision_recall([found(3, 5, 5, 0.5)], truth))
    assert len(metrics["recall"]) == len(metrics["AP"]) == 21
    assert (metrics["recall"][0], metrics["recall"][-1]) == (0.0, 1.0)
    assert len(metrics["classes"]) == 100
    assert metrics["classes"][3] == {"category_id": 3, "AP50": 1.0, "AP75": 1.0, "AP": 1.0}
    assert len(json.dumps(metrics)) < 10_000


def test_nothing_true_and_nothing_found(truth):
    assert precision_recall([], {**truth, "annotations": []}) is None
    assert precision_recall([found(0, 5, 5, 0.5)], truth, image_ids=[]) is None
    nothing = precision_recall([], truth)
    assert nothing.overall["AP"].max() == 0


@pytest.mark.slow
@pytest.mark.parametrize("classes", [1, 3, 30])
def test_the_figure(truth, tmp_path, classes):
    truth["categories"] = [{"id": i, "name": "a long name " * 9} for i in range(classes)]
    truth["annotations"] = [true_object(n, n, 5, 5) for n in range(classes)]
    curves = precision_recall([found(0, 5, 5, 0.5)], truth)
    draw_curves(tmp_path / "curves.png", curves, {0: "cell"})
    image = Image.open(tmp_path / "curves.png").convert("RGB")
    colours = {rgb for _, rgb in image.getcolors(1 << 24)}
    assert {(230, 159, 0), (86, 180, 233), (255, 255, 255)} <= colours
