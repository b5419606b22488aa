"""Metrics of pseudo-masks against plain pixels, and worlds whose figures are known by hand."""

import json
from types import SimpleNamespace

import numpy as np
import pytest

from sapnet.errors import InvalidDataset
from sapnet.evaluation import pseudo_mask_metrics
from sapnet.evaluation.adjacency import adjacent_pairs
from sapnet.types import Category, ImageInfo, PointAnnotation, PointSet


def box_iou(a, b):
    """Two xyxy boxes."""
    width = max(0.0, min(a[2], b[2]) - max(a[0], b[0]))
    height = max(0.0, min(a[3], b[3]) - max(a[1], b[1]))
    both = width * height
    areas = [(box[2] - box[0]) * (box[3] - box[1]) for box in (a, b)]
    return both / (sum(areas) - both)


def slow_metrics(world, tools):
    def filled(mask):
        x1, y1, x2, y2 = tools.box_of(mask)
        return mask.sum() / ((x2 - x1) * (y2 - y1)), (x2 - x1) * (y2 - y1)

    most = {id_: max(filled(m)[0] for m in masks) for id_, masks in world.masks.items()}
    threshold = np.mean(list(most.values()))
    figures = {name: [] for name in ("mask", "box", "best", "best_box", "top", "local", "group")}
    for a in world.points.annotations:
        true, mine, masks = world.true[a.id], world.pseudo[a.id], world.masks[a.id]
        figures["mask"].append(tools.iou(mine, true))
        figures["box"].append(box_iou(tools.box_of(mine), tools.box_of(true)))
        figures["best"].append(max(tools.iou(m, true) for m in masks))
        figures["best_box"].append(max(box_iou(tools.box_of(m), tools.box_of(true)) for m in masks))
        figures["top"].append(tools.iou(masks[0], true))
        figures["group"].append(
            any(
                mine[int(b.y), int(b.x)]
                for b in world.points.annotations
                if (b.image_id, b.category_id) == (a.image_id, a.category_id) and b.id != a.id
            )
        )
        if most[a.id] > threshold and filled(mine)[1] < filled(true)[1]:
            figures["local"].append(filled(mine)[0] - filled(true)[0])
    return {name: np.mean(values) if values else None for name, values in figures.items()}


@pytest.mark.parametrize("seed", range(8))
def test_against_pixels(tools, seed):
    world = tools.world(seed, objects=6)
    got = pseudo_mask_metrics(world.records, world.bags, world.points, world.truth)
    slow = slow_metrics(world, tools)
    assert got["count"] == 12
    for name, figure in (
        ("mask", got["miou_mask"]),
        ("box", got["miou_box"]),
        ("group", got["gap_group"]),
        ("best", got["proposals"]["best_of_bag_miou_mask"]),
        ("best_box", got["proposals"]["best_of_bag_miou_box"]),
        ("top", got["proposals"]["sam_top1_miou_mask"]),
        ("local", got["gap_local"]),
    ):
        assert figure == pytest.approx(slow[name], abs=1e-6), name
    weights = [row["count"] for row in got["per_class"]]
    assert sum(weights) == 12
    mean = np.average([row["miou_mask"] for row in got["per_class"]], weights=weights)
    assert mean == pytest.approx(got["miou_mask"])
    json.dumps(got, allow_nan=False)


def test_perfect_masks(tools):
    world = tools.world(0)
    for record, mask in zip(world.records, world.true.values(), strict=True):
        record.segmentation, record.bbox = tools.encode(mask), tools.xywh(mask)
    got = pseudo_mask_metrics(world.records, world.bags, world.points, world.truth)
    assert got["miou_mask"] == got["miou_box"] == 1.0
    assert got["gap_local"] is None  # no box is smaller than its own


def two_neighbours(tools):
    """Two objects of one class side by side, and three proposals: a part, the whole, both."""
    part, both = tools.block(2, 2, 4, 4), tools.block(2, 2, 14, 8)
    both[2, 5:11] = False
    whole = tools.block(2, 2, 8, 8)
    whole[2, 5:8] = False
    points = PointSet(
        images=(ImageInfo(1, "a.png", 30, 24),),
        annotations=(PointAnnotation(1, 1, 9, 3, 3), PointAnnotation(2, 1, 9, 11, 5)),
        categories=(Category(9, "x"),),
    )
    other = tools.block(8, 2, 14, 8)
    other[2, 8:11] = False
    bags = {
        1: tools.bag_of(1, [part, both, whole], [0.9, 0.8, 0.7]),
        2: tools.bag_of(2, [both, other], [0.6, 0.5]),
    }
    truth = {
        "images": [{"id": 1, "width": 30, "height": 24}],
        "categories": [{"id": 9, "name": "x"}],
        "annotations": [
            {
                "id": id_,
                "image_id": 1,
                "category_id": 9,
                "segmentation": tools.encode(mask),
                "bbox": tools.xywh(mask),
                "area": int(mask.sum()),
                "iscrowd": 0,
            }
            for id_, mask in ((1, whole), (2, other))
        ],
    }
    return points, bags, truth, part, whole, both, other


def record(tools, id_, mask):
    return SimpleNamespace(id=id_, segmentation=tools.encode(mask), bbox=tools.xywh(mask))


def test_the_gaps_by_hand(tools):
    points, bags, truth, part, _, both, _ = two_neighbours(tools)
    records = [record(tools, 1, part), record(tools, 2, both)]
    got = pseudo_mask_metrics(records, bags, points, truth)
    assert got["gap_group"] == 0.5  # the second holds the first's point
    # Largest fills: 1.0 (the part) and 66/72 (both): only the first is above their mean.
    assert got["gap_local"] == pytest.approx(1.0 - 33 / 36)
    assert got["miou_mask"] == pytest.approx(np.mean([4 / 33, 33 / 66]))
    proposals = got["proposals"]
    assert proposals["best_of_bag_miou_mask"] == 1.0
    assert proposals["sam_top1_miou_mask"] == pytest.approx(got["miou_mask"])
    assert proposals["consensus_miou_mask"] == 1.0  # "both" is excluded for both
    assert proposals["consensus_miou_box"] == 1.0


def test_a_point_without_a_record_counts_as_nothing(tools):
    points, bags, truth, _, whole, _, _ = two_neighbours(tools)
    got = pseudo_mask_metrics([record(tools, 1, whole)], bags, points, truth)
    assert got["count"] == 2
    assert got["miou_mask"] == 0.5
    assert got["gap_group"] == 0.0


def test_truth_of_other_ids_and_of_crowds_is_left_out(tools):
    points, bags, truth, _, whole, _, _ = two_neighbours(tools)
    truth["annotations"][1]["iscrowd"] = 1
    truth["annotations"].append({**truth["annotations"][0], "id": 77})
    got = pseudo_mask_metrics([record(tools, 1, whole)], bags, points, truth)
    assert (got["count"], got["miou_mask"]) == (1, 1.0)
    truth["annotations"] = []
    got = pseudo_mask_metrics([record(tools, 1, whole)], bags, points, truth)
    assert got["count"] == 0
    assert got["miou_mask"] is None
    assert got["proposals"]["best_of_bag_miou_mask"] is None
    assert got["per_class"] == []


def test_no_points_at_all():
    empty = {"images": [], "annotations": [], "categories": []}
    got = pseudo_mask_metrics([], {}, PointSet((), (), ()), empty)
    assert (got["count"], got["miou_mask"], got["gap_group"]) == (0, None, None)


def test_truth_of_another_size_is_refused(tools):
    points, bags, truth, *_ = two_neighbours(tools)
    truth["images"][0]["width"] = 60
    with pytest.raises(InvalidDataset, match="/annotations/0") as caught:
        pseudo_mask_metrics([], bags, points, truth)
    assert len(caught.value.issues) == 2


def test_polygons_as_truth(tools):
    points, bags, truth, *_ = two_neighbours(tools)
    truth["annotations"][0]["segmentation"] = [[2, 2, 8, 2, 8, 8, 2, 8]]
    got = pseudo_mask_metrics([record(tools, 1, tools.block(2, 2, 8, 8))], bags, points, truth)
    assert got["miou_mask"] == 0.5


@pytest.mark.parametrize("seed", range(6))
def test_adjacent_pairs_pixel_by_pixel(tools, seed):
    """Of one class and image, with two pixels at most 3 apart; the rates count these and all."""
    world = tools.world(seed, objects=6)
    pairs, missed = [], []
    for _, annotations in world.points:
        ious = {a.id: tools.iou(world.pseudo[a.id], world.true[a.id]) for a in annotations}
        missed += [iou < 0.5 for iou in ious.values()]
        for place, a in enumerate(annotations):
            for b in annotations[place + 1 :]:
                ends = [np.argwhere(world.true[one.id]) for one in (a, b)]
                gaps = np.linalg.norm(ends[0][:, None] - ends[1], axis=2)
                if a.category_id == b.category_id and gaps.min() <= 3:
                    pairs.append(min(ious[a.id], ious[b.id]) >= 0.5)
    got = pseudo_mask_metrics(world.records, world.bags, world.points, world.truth)
    assert got["missing_rate"] == pytest.approx(np.mean(missed))
    assert got["adjacent_pairs"] == len(pairs)
    assert got["adjacent_rate"] == (pytest.approx(np.mean(pairs)) if pairs else None)


@pytest.mark.parametrize(("gap", "near"), [(0, True), (2, True), (3, False), (9, False)])
def test_how_far_adjacent_objects_are(tools, gap, near):
    """Pixels at a distance of 3 have two others between them; far apart in y, x does not count."""
    masks = {1: tools.block(2, 2, 6, 8), 2: tools.block(6 + gap, 2, 10 + gap, 8)}
    known = [PointAnnotation(id_, 1, 1, 3, 3) for id_ in masks]
    true = {id_: tools.encode(mask) for id_, mask in masks.items()}
    assert list(adjacent_pairs(known, true)) == ([(1, 2)] if near else [])
    assert not list(adjacent_pairs([known[0], PointAnnotation(2, 1, 2, 3, 3)], true))
    assert not list(adjacent_pairs(known[:1], true))
