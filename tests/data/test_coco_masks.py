"""Masks that a points document brings with it: read, checked, and handed on as they are."""

import json
from pathlib import Path

import numpy as np
import pytest
from pycocotools import mask as coco_mask

from sapnet.data.annotations.coco import check_against_images, load_points, read_points


def rle(rows=slice(2, 5), columns=slice(1, 4), size=(6, 8)):
    mask = np.zeros(size, np.uint8, order="F")
    mask[rows, columns] = 1
    found = coco_mask.encode(mask)
    return {"size": list(size), "counts": found["counts"].decode()}


def document(*masks, size=True):
    image = {"id": 1, "file_name": "1.png"} | ({"width": 8, "height": 6} if size else {})
    annotations = [
        {"id": 10 + i, "image_id": 1, "category_id": 3, "point": [1.5, 2.5]} | extra
        for i, extra in enumerate(masks)
    ]
    whole = {"images": [image], "annotations": annotations}
    return json.dumps({**whole, "categories": [{"id": 3, "name": "cell"}]}).encode()


def test_a_mask_stays_with_its_annotation(tmp_path: Path):
    path = tmp_path / "points.json"
    path.write_bytes(document({}, {"mask": rle()}, {"mask": None}, {"segmentation": rle()}))
    points = load_points(path)
    assert [a.mask for a in points.annotations] == [None, rle(), None, None]
    assert "mask" not in repr(points)  # as runs before masks were known by


def test_plain_runs_are_compressed():
    plain = {"size": [6, 8], "counts": [8, 3, 3, 3, 31]}
    read = read_points(document({"mask": plain}))
    assert not read.issues
    (annotation,) = read.annotations()
    assert annotation.mask["size"] == [6, 8]
    assert coco_mask.area(annotation.mask) == 6


@pytest.mark.parametrize(
    ("mask", "pointer", "words"),
    [
        ({"size": [6, 8]}, "/annotations/0/mask", "should be an RLE"),
        ("a mask", "/annotations/0/mask", "should be an RLE"),
        ([[1, 1, 5, 1, 5, 5]], "/annotations/0/mask", "should be an RLE"),
        ({"size": [0, 8], "counts": ""}, "/annotations/0/mask", "should be an RLE"),
        ({"size": [6, 8], "counts": "\x7f"}, "/annotations/0/mask", "character"),
        ({"size": [6, 8], "counts": [8, -3, 43]}, "/annotations/0/mask", "do not add up"),
        ({"size": [6, 8], "counts": [40]}, "/annotations/0/mask", "do not add up"),
        ({"size": [6, 8], "counts": [48]}, "/annotations/0/mask", "empty"),
        (rle(size=(8, 6)), "/annotations/0/mask", "the image has [6, 8]"),
    ],
)
def test_what_is_no_mask(mask, pointer, words):
    read = read_points(document({"mask": mask}, {}))
    assert [issue.pointer for issue in read.issues] == [pointer]
    assert words in read.issues[0].problem
    assert [a.id for a in read.annotations()] == [11]


def test_against_a_size_that_was_not_declared():
    read = read_points(document({}, {"mask": rle(size=(8, 6))}, {"mask": rle()}, size=False))
    assert not read.issues
    (issue,) = check_against_images(read, {"1.png": (6, 8)})
    assert issue.pointer == "/annotations/1/mask"
    assert not check_against_images(
        read_points(document({"mask": rle()}, size=False)), {"1.png": (6, 8)}
    )
