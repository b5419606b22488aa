"""AP against pycocotools, on worlds with crowds, sizes, ties, and ids of 0."""

import contextlib
import copy
import io

import numpy as np
import pytest
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from sapnet.data.annotations.ground_truth import read_truth
from sapnet.evaluation import average_precision

SIZE = (160, 220)


def oracle(detections, truth, kind):
    """pycocotools' own stats; AP25 by a second run at that threshold alone."""
    truth = copy.deepcopy(truth)
    for n, item in enumerate(truth["annotations"], start=1):
        item["id"] = n
    field = "segmentation" if kind == "segm" else "bbox"
    kept = ("image_id", "category_id", "score", field)
    found = [{key: copy.deepcopy(item[key]) for key in kept} for item in detections]
    with contextlib.redirect_stdout(io.StringIO()):
        true = COCO()
        true.dataset = truth
        true.createIndex()
        dets = true.loadRes(found)
        run = COCOeval(true, dets, kind)
        run.evaluate()
        run.accumulate()
        run.summarize()
        low = COCOeval(true, dets, kind)
        low.params.iouThrs = np.array([0.25])
        low.evaluate()
        low.accumulate()
    at25 = low.eval["precision"][..., 0, -1]
    at25 = at25[at25 > -1]
    names = ("AP", "AP50", "AP75", "APs", "APm", "APl")
    stats = dict(zip(names, run.stats[:6].tolist(), strict=True)) | {"AP25": float(at25.mean())}
    return {name: None if value == -1 else value for name, value in stats.items()}


def random_world(tools, seed):
    """About 60 objects of all sizes in 4 images, and detections near and far of them."""
    rng = np.random.default_rng(seed)

    def blob(x, y, side):
        mask = tools.block(
            max(int(x), 0), max(int(y), 0), int(x + side) + 1, int(y + side * 0.8) + 1, SIZE
        )
        return mask & (rng.random(SIZE) < 0.95)

    truth = {
        "images": [{"id": n, "width": SIZE[1], "height": SIZE[0]} for n in range(4)],
        "categories": [{"id": n, "name": str(n)} for n in (0, 3, 8)],
        "annotations": [],
    }
    detections = []
    for id_ in range(60):
        side = float(rng.choice([6, 20, 45, 120]))
        x, y = rng.uniform(0, SIZE[1] - side / 2), rng.uniform(0, SIZE[0] - side / 2)
        common = {"image_id": int(rng.integers(4)), "category_id": int(rng.choice([0, 3]))}
        mask = blob(x, y, side)
        truth["annotations"].append(
            {
                "id": id_,
                **common,
                "segmentation": tools.encode(mask),
                "bbox": tools.xywh(mask),
                "area": float(mask.sum()),
                "iscrowd": int(rng.random() < 0.15),
            }
        )
        for _ in range(rng.integers(0, 4)):
            jitter = rng.normal(0, side * 0.1, 2)
            shifted = blob(x + jitter[0], y + jitter[1], side * rng.uniform(0.8, 1.2))
            if not shifted.any():
                continue
            if rng.random() < 0.1:
                common = {**common, "category_id": 8}  # a class without true objects
            detections.append(
                {
                    **common,
                    "segmentation": tools.encode(shifted),
                    "bbox": tools.xywh(shifted),
                    "score": float(rng.integers(1, 20)) / 20,  # many ties
                }
            )
    return detections, truth


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["segm", "bbox"])
@pytest.mark.parametrize("seed", range(4))
def test_equal_to_pycocotools(tools, seed, kind):
    detections, truth = random_world(tools, seed)
    before = copy.deepcopy((detections, truth))
    got = average_precision(detections, truth, kind)
    assert got == pytest.approx(oracle(detections, truth, kind), abs=1e-9)
    assert 0 < got["AP"] < got["AP50"] <= got["AP25"] < 1
    assert (detections, truth) == before


def test_only_the_images_and_classes_asked_for(tools):
    detections, truth = random_world(tools, 7)
    got = average_precision(detections, truth, image_ids={0, 2}, category_ids=[3])

    def kept(items):
        return [d for d in items if d["image_id"] in (0, 2) and d["category_id"] == 3]

    smaller = {
        "images": [image for image in truth["images"] if image["id"] in (0, 2)],
        "categories": truth["categories"][1:2],
        "annotations": kept(truth["annotations"]),
    }
    assert got == pytest.approx(oracle(kept(detections), smaller, "segm"), abs=1e-9)
    assert got != average_precision(detections, truth)


def test_detections_in_unknown_images_are_left_out(tools):
    detections, truth = random_world(tools, 2)
    stray = {**detections[0], "image_id": 12345, "score": 1.0}
    assert average_precision([stray, *detections], truth) == average_precision(detections, truth)


def test_perfect_one_object_one_class_and_a_missing_size(tools):
    _, truth = random_world(tools, 0)
    truth["annotations"] = [{**truth["annotations"][0], "iscrowd": 0, "area": 500.0}]
    found = [{**truth["annotations"][0], "score": 0.5}]
    for kind in ("segm", "bbox"):
        got = average_precision(found, truth, kind)
        assert got["AP"] == got["AP50"] == got["AP25"] == got["APs"] == pytest.approx(1.0)
        assert got["APm"] is None
        assert got["APl"] is None


def test_no_detections_and_no_truth(tools):
    detections, truth = random_world(tools, 0)
    assert average_precision([], truth)["AP"] == 0.0
    assert average_precision(detections, truth, image_ids=[]) == dict.fromkeys(
        ("AP", "AP50", "AP75", "AP25", "APs", "APm", "APl")
    )
    for item in truth["annotations"]:
        item["iscrowd"] = 1
    assert average_precision(detections, truth)["AP"] is None


def test_polygons_as_truth(tools):
    document = (
        b'{"images": [{"id": 1, "width": 220, "height": 160}],'
        b'"categories": [{"id": 1, "name": "x"}],'
        b'"annotations": [{"id": 0, "image_id": 1, "category_id": 1,'
        b'"segmentation": [[10, 10, 40, 10, 40, 30, 10, 30]]}]}'
    )
    mask = tools.block(10, 10, 40, 30, SIZE)
    found = {"image_id": 1, "category_id": 1, "score": 1.0, "segmentation": tools.encode(mask)}
    assert average_precision([found], read_truth(document))["AP"] == pytest.approx(1.0)


@pytest.mark.slow
def test_more_than_a_hundred_detections_in_an_image(tools):
    detections, truth = random_world(tools, 1)
    many = [
        {**detection, "image_id": 0, "score": n / 1000} for n, detection in enumerate(detections)
    ]
    many = (many * 4)[:250]
    got = average_precision(many, truth, "bbox")
    assert got == pytest.approx(oracle(many, truth, "bbox"), abs=1e-9)
