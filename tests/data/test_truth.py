"""Ground truth: what pycocotools could crash on does not come through."""

import copy
import json

import numpy as np
import pytest
from pycocotools import mask as coco_mask

from sapnet.data.annotations.coco import read_truth
from sapnet.data.annotations.ground_truth import as_rle
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
        ({"segmentation": []}, "segmentation", "empty"),
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
        ({"segmentation": None}, "segmentation", "null"),
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
    document = spoiled(segmentation=[], id=4)
    document["images"].append({"id": 3, "width": 1, "height": 1})
    document["annotations"][1]["category_id"] = 8
    with pytest.raises(InvalidDataset) as caught:
        read(document)
    assert len(caught.value.issues) == 4
    for text in (b"{", b"[]", b"{}"):
        with pytest.raises(InvalidDataset):
            read_truth(text)


def test_real_truth(real_data):
    truth = read_truth(real_data / "instances.json")
    assert len(truth["annotations"]) > 700
