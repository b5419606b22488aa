"""Each reader against the masks that its files were made of, pixel by pixel."""

import json

import numpy as np
import pytest
from pycocotools.coco import COCO
from typer.testing import CliRunner

from sapnet.cli.main import app
from sapnet.data.annotations.coco import load_points
from sapnet.data.annotations.ground_truth import read_truth
from sapnet.data.images import read_rgb
from sapnet.data.public import export, read_split


def test_coco(worlds, tmp_path):
    split = read_split("coco", worlds.coco(tmp_path), "train")
    rows = {row["id"]: row for row in split.instances["annotations"]}
    assert set(rows) == {70, 0, 71, 72}  # 73 has no polygon of three points
    oracle = COCO(tmp_path / "annotations" / "instances_train2017.json")
    for id_ in (70, 0, 71):
        want = oracle.annToMask(oracle.anns[id_]).astype(bool)
        assert np.array_equal(worlds.decode(rows[id_]), want)
    assert np.array_equal(worlds.decode(rows[72]), worlds.block(50, 30, 56, 40))
    assert {id_: row["iscrowd"] for id_, row in rows.items()} == {70: 0, 0: 0, 71: 1, 72: 0}
    assert (rows[70]["bbox"], rows[70]["area"]) == ([1, 2, 3, 4], 5.5)  # the file's own
    assert [image["id"] for image in split.instances["images"]] == [9, 0, 4]
    assert split.instances["categories"][1] == {"id": 90, "name": "toothbrush"}
    assert (split.images / "000000000009.jpg").is_file()


def test_coco_with_images_in_a_folder_of_their_own(worlds, tmp_path):
    root = worlds.coco(tmp_path, "val")
    (root / "images").mkdir()
    (root / "val2017").rename(root / "images" / "val2017")
    assert read_split("coco", root, "val").images == root / "images" / "val2017"


def test_isaid_numbers_classes_by_name(worlds, tmp_path):
    """The kit's numbers follow the order of appearance, which differs between its files."""
    file = "instancesonly_filtered_train.json"
    worlds.isaid(tmp_path, "train", ["Small_Vehicle", "ship", "Harbor"], file)
    file = "instance_only_filtered_val.json"
    worlds.isaid(tmp_path, "val", ["plane", "small-vehicle"], file)
    train, val = (read_split("isaid", tmp_path, split) for split in ("train", "val"))
    assert [row["category_id"] for row in train.instances["annotations"]] == [9, 1, 15]
    assert [row["category_id"] for row in val.instances["annotations"]] == [14, 9]
    assert train.instances["categories"] == val.instances["categories"]
    assert len(train.instances["categories"]) == 15
    second = worlds.decode(train.instances["annotations"][1])
    assert np.array_equal(second, worlds.block(10, 5, 18, 15))
    worlds.isaid(tmp_path / "odd", "val", ["submarine"], file)
    with pytest.raises(ValueError, match="submarine"):
        read_split("isaid", tmp_path / "odd", "val")


def test_voc(worlds, tmp_path):
    """train_aug: VOC's train and all of SBD but for VOC's val; VOC's own masks where it has any."""
    root, truth = worlds.voc(tmp_path)
    a, b, c, d, e = sorted(truth)
    for split, names in (("train", [a, b, d, e]), ("val", [c])):
        found = read_split("voc", root, split)
        images = found.instances["images"]
        assert [image["file_name"] for image in images] == [f"{name}.jpg" for name in names]
        assert [image["id"] for image in images] == [int(name.replace("_", "")) for name in names]
        for image, name in zip(images, names, strict=True):
            assert (image["height"], image["width"]) == (40, 56)
            assert (found.images / image["file_name"]).is_file()
            rows = [r for r in found.instances["annotations"] if r["image_id"] == image["id"]]
            assert [row["category_id"] for row in rows] == [category for category, _ in truth[name]]
            for row, (_, mask) in zip(rows, truth[name], strict=True):
                mask = mask.copy()
                mask[-1] &= name == d  # void in VOC's own
                assert np.array_equal(worlds.decode(row), mask)
                assert row["area"] == mask.sum()
                x, y, w, h = (int(v) for v in row["bbox"])
                assert mask[y : y + h, x : x + w].any(0).all()
                assert mask[y : y + h, x : x + w].any(1).all()
                assert not mask.sum() - mask[y : y + h, x : x + w].sum()
    ids = [row["id"] for row in found.instances["annotations"]]
    assert len(set(ids)) == len(ids)


def test_voc_val_needs_no_sbd(worlds, tmp_path):
    root, _ = worlds.voc(tmp_path)
    (root / "benchmark_RELEASE").rename(root / "elsewhere")
    assert len(read_split("voc", root, "val").instances["images"]) == 1
    with pytest.raises(FileNotFoundError, match="benchmark_RELEASE/dataset/inst"):
        read_split("voc", root, "train")


def test_cityscapes(worlds, tmp_path):
    root, values = worlds.cityscapes(tmp_path)
    split = read_split("cityscapes", root, "train")
    rows = split.instances["annotations"]
    found = [(row["category_id"], row["iscrowd"]) for row in rows]
    assert found == [(24, 1), (24, 0), (26, 0), (26, 0), (33, 0)]
    for row, value in zip(rows, (24, 24003, 26000, 26001, 33012), strict=True):
        assert np.array_equal(worlds.decode(row), values == value)
    assert rows[-1]["bbox"] == [55, 39, 1, 1]
    assert [row["image_id"] for row in rows] == [1] * 5
    images = split.instances["images"]
    assert [image["file_name"].split("/")[0] for image in images] == ["aachen", "zurich"]
    assert all((split.images / image["file_name"]).is_file() for image in images)
    assert len(split.instances["categories"]) == 8


def command(*arguments):
    return CliRunner().invoke(app, ["points", *(str(a) for a in arguments)])


def test_what_is_written_is_what_a_run_reads(worlds, tmp_path):
    """points.json, instances.json and images/, by the project's own readers."""
    root, _ = worlds.cityscapes(tmp_path / "city")
    out = tmp_path / "out"
    result = command("--from", "cityscapes", "--root", root, "--split", "train", "--out", out)
    assert result.exit_code == 0, result.output
    assert result.stdout.strip() == "2 images, 4 objects, 1 crowds, 4 points"
    points, truth = load_points(out / "points.json"), read_truth(out / "instances.json")
    assert [image.id for image in points.images] == [1]  # the street without an object is left out
    assert len(truth["images"]) == 2
    masks = {row["id"]: worlds.decode(row) for row in truth["annotations"]}
    for annotation in points.annotations:
        assert masks[annotation.id][int(annotation.y), int(annotation.x)]
    (image,) = points.images
    assert read_rgb(out / "images" / image.file_name).shape[:2] == image.size
    before = (out / "points.json").read_text()
    assert command("--from", "cityscapes", "--root", root, "--out", out).exit_code == 0
    assert (out / "points.json").read_text() == before


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"--from": "imagenet"}, "'imagenet' is not one of coco"),
        ({"--split": "test"}, "'test'"),
        ({"--rule": "edge"}, "'edge'"),
        ({"--root": "nowhere"}, "nowhere/annotations/instances_train2017.json"),
        ({"--from": "voc"}, "SegmentationObject"),
        ({"--from": "cityscapes"}, "_gtFine_instanceIds.png"),
    ],
)
def test_refuses_in_words(worlds, tmp_path, changes, words):
    options = {"--from": "coco", "--root": worlds.coco(tmp_path / "coco"), "--out": tmp_path / "o"}
    result = command(*(part for pair in {**options, **changes}.items() for part in pair))
    assert result.exit_code == 1
    assert words in result.output.replace("\n", "")
    assert "Traceback" not in result.output


def test_images_that_are_no_link_are_left_alone(worlds, tmp_path):
    (tmp_path / "out" / "images").mkdir(parents=True)
    split = read_split("coco", worlds.coco(tmp_path), "train")
    with pytest.raises(FileExistsError):
        export(split, tmp_path / "out")
    assert not (tmp_path / "out" / "points.json").exists()


def test_truth_as_its_own_prediction(worlds, tmp_path):
    """`sapnet evaluate` on a split: what is all right is 1, crowds cost nothing."""
    root, _ = worlds.cityscapes(tmp_path / "city")
    out = tmp_path / "out"
    assert command("--from", "cityscapes", "--root", root, "--out", out).exit_code == 0
    truth = json.loads((out / "instances.json").read_text())
    rows = [
        {**{k: row[k] for k in ("image_id", "category_id", "segmentation", "bbox")}, "score": 0.9}
        for row in truth["annotations"]  # in the group, a detection that must not count
    ]
    results, figures = tmp_path / "results.json", tmp_path / "figures.json"

    def evaluated(found):
        results.write_text(json.dumps(found))
        options = ["--truth", out / "instances.json", "--out", figures]
        call = CliRunner().invoke(app, ["evaluate", str(results), *map(str, options)])
        assert call.exit_code == 0, call.output
        assert json.loads(figures.read_text()) == json.loads(call.stdout)
        return json.loads(call.stdout)["segm"]

    assert evaluated(rows)["AP"] == pytest.approx(1)
    halved = evaluated([row for row in rows if row["category_id"] != 33])
    assert halved["AP50"] == pytest.approx(2 / 3)  # of person, car and bicycle
    assert halved["AP25"] == pytest.approx(2 / 3)
