"""Ground truth: what pycocotools could crash on does not come through."""

import copy
import json

import numpy as np
import pytest
from pycocotools import mask as coco_mask

from sapnet.data.annotations.coco import read_truth
from sapnet.data.annotations.ground_truth import as_rle
from sapnet.data.annotations.skipped import what_figures_lack
from sapnet.errors import InvalidDataset

MASK = np.zeros((10, 12), np.uint8)
MASK[2:6, 3:8] = 1
PACKED = coco_mask.encode(np.asfortranarray(MASK))
RLE = {"size": [10, 12], "counts": PACKED["counts"].decode()}
DOCUMENT = {
    "images": [{"id": 3, "width": 12, "height": 10, "file_name": "a.png"}],
    "categories": [{"id": 0, "name": "x", "supercategory": "y"}],
    "annotations": [
        {"id": 0, "image_id": 3, "category_id": 0, "segmentation": RLE},
        {
            "id": 4,
            "image_id": 3,
            "category_id": 0,
            "segmentation": [[3, 2, 8, 2, 8, 6, 3, 6]],
            "bbox": [3, 2, 5, 4],
            "area": 20.5,
            "iscrowd": 1,
        },
    ],
}


def read(document):
    return read_truth(json.dumps(document).encode())


def spoiled(**change):
    document = copy.deepcopy(DOCUMENT)
    document["annotations"][0] |= change
    return document


def test_boxes_and_areas_are_completed():
    truth = read(DOCUMENT)
    first, second = truth["annotations"]
    assert first == {
        "id": 0,
        "image_id": 3,
        "category_id": 0,
        "segmentation": RLE,
        "bbox": [3, 2, 5, 4],
        "area": 20.0,
        "iscrowd": 0,
    }
    assert second["area"] == 20.5
    assert second["iscrowd"] == 1
    assert truth["categories"] == [{"id": 0, "name": "x"}]
    mask = coco_mask.decode(as_rle(second["segmentation"], 10, 12))
    assert np.array_equal(mask, MASK)


def test_uncompressed_runs_are_compressed():
    runs = [32, 4, 6, 4, 6, 4, 6, 4, 6, 4, 44]
    truth = read(spoiled(segmentation={"size": [10, 12], "counts": runs}))
    assert truth["annotations"][0]["segmentation"] == RLE


def test_no_annotation_is_no_error():
    assert read({**DOCUMENT, "annotations": []})["annotations"] == []


@pytest.mark.parametrize(
    ("change", "field", "words"),
    [
        ({"segmentation": []}, "segmentation", "without a segmentation"),
        ({"segmentation": [[1, 2, 3, 4]]}, "segmentation", "three points"),
        ({"segmentation": [[1, 2, 3, 4, 5, 6, 7]]}, "segmentation", "three points"),
        ({"segmentation": [[1, 2, 3, 4, 5, 1e9]]}, "segmentation", "far outside"),
        ({"segmentation": [1, 2, 3]}, "segmentation", "polygons"),
        ({"segmentation": [[1, 2, 3, 4, 5, float("nan")]]}, "segmentation/0/5", "nan"),
        ({"segmentation": {"size": [12, 10], "counts": RLE["counts"]}}, "segmentation", "size"),
        ({"segmentation": {"size": [10, 12], "counts": RLE["counts"][:-1]}}, "segmentation", ""),
        ({"segmentation": {"size": [10, 12], "counts": "~~~"}}, "segmentation", "character"),
        ({"segmentation": {"size": [10, 12], "counts": "ooo"}}, "segmentation", "cut off"),
        ({"segmentation": {"size": [10, 12], "counts": [60, 61]}}, "segmentation", "add up"),
        ({"segmentation": {"size": [10, 12], "counts": [-1, 121]}}, "segmentation", "add up"),
        ({"segmentation": {"size": [10, 12]}}, "segmentation", "RLE"),
        ({"segmentation": None}, "segmentation", "without a segmentation"),
        ({"image_id": 9}, "image_id", "no image"),
        ({"category_id": 9}, "category_id", "no category"),
        ({"bbox": [1, 2]}, "bbox", "width"),
    ],
)
def test_a_wrong_annotation(change, field, words):
    with pytest.raises(InvalidDataset) as caught:
        read(spoiled(**change))
    assert [issue.pointer for issue in caught.value.issues] == [f"/annotations/0/{field}"]
    assert words in caught.value.issues[0].problem


def test_all_errors_at_once():
    document = spoiled(id=4)
    document["images"].append({"id": 3, "width": 1, "height": 1})
    document["images"].append({"id": 5, "width": -1, "height": 1})
    document["categories"].append({"id": 0, "name": "z"})
    with pytest.raises(InvalidDataset) as caught:
        read(document)
    assert len(caught.value.issues) == 4
    for text in (b"{", b"[]", b"{}"):
        with pytest.raises(InvalidDataset):
            read_truth(text)


THIN = [1, 2, 3, 4]
SQUARE = [3, 2, 8, 2, 8, 6, 3, 6]


def with_more(*segmentations):
    """DOCUMENT, with objects that have these segmentations, or none at all where it is `...`."""
    document = copy.deepcopy(DOCUMENT)
    document["images"].append({"id": 5, "width": 12, "height": 10, "file_name": "b.png"})
    for number, segmentation in enumerate(segmentations, 10):
        record = {"id": number, "image_id": 5, "category_id": 0, "segmentation": segmentation}
        document["annotations"].append({k: v for k, v in record.items() if v is not ...})
    return document


def read_warned(document):
    told = []
    truth = read_truth(json.dumps(document).encode(), warn=told.append)
    return truth, told


@pytest.mark.parametrize("thin", [[], [1, 2], THIN])
def test_a_polygon_that_covers_nothing_is_left_out_of_its_object(thin):
    truth, told = read_warned(with_more([SQUARE, thin, SQUARE]))
    assert truth["annotations"][2]["segmentation"] == [SQUARE, SQUARE]
    assert truth["incomplete"] == []
    assert [issue.pointer for issue in told] == ["/annotations/2/segmentation/1"]
    assert "left out" in told[0].problem


@pytest.mark.parametrize("nothing", [..., None, [], [THIN], [[], [1, 2]]])
def test_an_object_without_a_mask_is_left_out(nothing):
    truth, told = read_warned(with_more([SQUARE], nothing, nothing))
    assert [item["id"] for item in truth["annotations"]] == [0, 4, 10]
    assert truth["incomplete"] == [5]
    pointers = " ".join(f"{issue.pointer} {issue.problem}" for issue in told)
    assert "/annotations/3/segmentation" in pointers
    assert "/annotations/4/segmentation" in pointers
    assert all("left out" in issue.problem for issue in told)


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ([[1, 2, 3, 4, 5, 1e9]], "far outside"),
        ({"size": [12, 10], "counts": RLE["counts"]}, "size"),
        ({"size": [10, 12], "counts": "~~"}, "character"),
        ([SQUARE, "x"], "should be polygons"),
        ([[1, 2, 3, 4, 5, float("nan")]], "nan"),
        ("x", "should be polygons"),
    ],
)
def test_one_wrong_object_among_good_ones(wrong, words):
    """It is left out and named, with its reason, and figures are of the other images."""
    truth, told = read_warned(with_more([SQUARE], wrong))
    assert [item["id"] for item in truth["annotations"]] == [0, 4, 10]
    assert truth["incomplete"] == [5]
    assert told == truth["left_out"]
    assert told[0].pointer.startswith("/annotations/3/segmentation")
    assert words in told[0].problem
    lacking = what_figures_lack(truth)
    assert "1 of 2 images: AP is that of the other images; /annotations/3/seg" in lacking
    assert words in lacking
    with pytest.raises(InvalidDataset) as caught:  # nothing to go on with
        read(spoiled(segmentation=wrong))
    assert words in caught.value.issues[0].problem


def test_where_nothing_is_left_out_nothing_is_said():
    truth, told = read_warned(with_more([SQUARE]))
    assert (told, truth["left_out"], what_figures_lack(truth)) == ([], [], None)


def test_what_is_not_of_one_object_alone_is_refused():
    document = with_more([SQUARE])
    document["annotations"][2]["id"] = 0
    with pytest.raises(InvalidDataset, match="used before"):
        read(document)
    document["images"][0]["width"] = -1
    with pytest.raises(InvalidDataset, match="/images/0"):
        read(document)


def test_many_without_a_mask_are_one_warning():
    _, told = read_warned(with_more([SQUARE], *[...] * 500))
    assert len(told) == 1
    assert "500 annotations without a segmentation: /annotations/3/" in told[0].problem
    assert "and 490 more" in told[0].problem


@pytest.mark.slow
def test_real_truth(real_data):
    truth = read_truth(real_data / "instances.json")
    assert len(truth["annotations"]) > 700
