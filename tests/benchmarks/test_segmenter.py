"""The benchmark of the trained segmenter in small: its split, its true masks, and the command."""

import json

import pytest
import segmenter
from ladder_data import DataSet
from pycocotools import mask as coco_mask
from typer.testing import CliRunner

from sapnet.data.synthetic import make_scenes
from sapnet.evaluation.pseudo_masks import true_masks
from sapnet.types import PseudoMask

from ..pipeline.conftest import TINY

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data") / "small"
    make_scenes(folder, 4, (96, 128), seed=3)
    return folder


def test_images_are_held_out_by_their_content(small):
    data = DataSet.read(small)
    part = segmenter.split(data, 0.5)
    trained = {image.id for image in part.points.images}
    assert len(part.measured) == len(trained) == 2
    assert not trained & part.measured
    assert {a.image_id for a in part.points.annotations} <= trained
    assert segmenter.split(data, 0.25).measured < part.measured
    whole = segmenter.split(data, 0)
    assert {image.id for image in whole.points.images} == whole.measured == trained | part.measured


def test_only_the_most_frequent_classes(small):
    data = DataSet.read(small)
    counts = {c.id: 0 for c in data.points.categories}
    for annotation in data.points.annotations:
        counts[annotation.category_id] += 1
    most = max(counts, key=counts.get)
    part = segmenter.split(data, 0, classes=1)
    assert part.categories == {most} == {a.category_id for a in part.points.annotations}
    assert len(part.points.annotations) == counts[most]


def test_true_masks_are_confirmed_ones(small):
    data = DataSet.read(small)
    truth = {**data.truth, "annotations": data.truth["annotations"][1:]}
    lacking = data.truth["annotations"][0]["id"]
    points = segmenter.with_true_masks(data.points, truth)
    assert {a.id for a in points.annotations} == {a.id for a in data.points.annotations} - {lacking}
    masks = {item["id"]: item["segmentation"] for item in truth["annotations"]}
    assert all(a.mask["counts"] == masks[a.id]["counts"] for a in points.annotations)


def test_delivered_masks_beside_the_truth(small, tmp_path):
    data = DataSet.read(small)
    true = true_masks(data.points, data.truth)
    ids = sorted(true)
    lines = []
    for place, id_ in enumerate(ids):
        wrong = place % 2 == 1
        mask = true[ids[place - 1]] if wrong else true[id_]
        box = [0.0, 0.0, 1.0, 1.0]
        quality = 0.3 if wrong else 0.8
        lines.append(
            PseudoMask(id_, 0, 0, mask, box, 1, "selected", mask, quality=quality).to_json()
        )
    (tmp_path / "pseudo_masks.ndjson").write_bytes(b"".join(lines))
    found = segmenter.delivered(tmp_path, data, data.points)
    right = (len(ids) + 1) // 2
    overlap = sum(
        float(coco_mask.iou([true[a]], [true[b]], [0])[0, 0])
        for a, b in zip(ids[::2], ids[1::2], strict=False)
    )
    assert found["delivered"] == pytest.approx((right + overlap) / len(ids))
    assert found["over_half"] == right / len(ids)
    assert found["auroc"] == 1
    assert found["brier"] == pytest.approx((right * 0.04 + (len(ids) - right) * 0.09) / len(ids))


def test_the_command(small, weights, tmp_path):
    app = segmenter.typer.Typer()
    app.command()(segmenter.main)
    settings = {**TINY, "data.short_sides": [48], "train.epochs": 1}
    asked = [f"--override={name}={json.dumps(value)}" for name, value in settings.items()]
    asked += ["--proposals", "hierarchy", "--weights", str(weights)]
    asked += ["--data", str(small), "--hold-out", "0.5", "--seeds", "1"]
    rows = tmp_path / "rows.json"
    done = CliRunner().invoke(app, [*asked, "--json", str(rows)], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    (row,) = json.loads(rows.read_text())
    assert (row["data"], row["seed"], row["images"], row["measured_on"]) == ("small", 0, 2, 2)
    for name in ("ap", "ap50", "ap75", "ap50_true_masks", "delivered", "over_half", "brier"):
        assert 0 <= row[name] <= 1
    assert "| small | 1 |" in done.output
