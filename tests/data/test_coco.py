"""The reader of points: what is right comes through whole, what is wrong is all listed."""

import copy
import json
import subprocess
import sys
from pathlib import Path

import pytest

from sapnet.data.annotations.coco import (
    check_against_images,
    load_points,
    read_points,
    settle_undeclared,
)
from sapnet.data.annotations.decoding import MAX_ISSUES
from sapnet.errors import InvalidDataset
from sapnet.types import PointAnnotation


def pointers(issues):
    return [issue.pointer for issue in issues]


def problem_at(issues, pointer):
    found = [issue for issue in issues if issue.pointer == pointer]
    assert found, f"nothing said about {pointer}: {issues}"
    assert all(issue.problem and issue.hint for issue in found)
    return "; ".join(issue.problem for issue in found)


def test_all_three_kinds_of_point_and_user_ids(document, read):
    result = read(document)
    assert result.issues == []
    assert result.warnings == []
    assert result.points.annotations == (
        PointAnnotation(0, 0, 90, 63.5, 0.0),
        PointAnnotation(5, 7, 0, 4.0, 5.5),
        PointAnnotation(9, 0, 0, 3.0, 4.0),
    )
    assert result.crowds == ((12, 0, 0),)
    assert result.points.label_of == {0: 0, 90: 1}
    assert [image.size for image in result.points.images] == [(48, 64), (0, 0)]


def test_ground_truth_beside_the_points_is_known_and_not_used(document, read):
    for annotation in document["annotations"]:
        annotation["segmentation"] = [[0, 0, 5, 0, 5, 5]]
    for nothing in (None, []):
        document["annotations"][0]["segmentation"] = nothing
        result = read(document)
        assert result.issues == []
        assert result.has_truth
    for annotation in document["annotations"][:3]:
        annotation["segmentation"] = nothing
    assert not read(document).has_truth  # the crowd's alone
    document["annotations"][0]["segmentation"] = {"size": [48, 64], "counts": "x"}
    assert read(document).has_truth


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (b"", "empty"),
        (b'{"images": [', "line 1, column 13"),
        (b'{"images": [],\n "annotations" []}', "line 2, column 16"),
        (b"[1, 2]", "not an object"),
        (b"null", "not an object"),
        (b'{"images": [{"file_name": "\xff"}]}', "UTF-8"),
        (b'{"images": ' + b"[" * 100_000, "no valid JSON"),
        (b"\x89PNG\r\n\x1a\n\0\0\0", "no valid JSON"),
    ],
)
def test_text_that_is_no_document(text, words):
    issues = read_points(text).issues
    assert issues
    assert words in "; ".join(f"{i.problem} {i.hint}" for i in issues)


def test_utf8_with_a_byte_order_mark_is_read(document):
    text = b"\xef\xbb\xbf" + json.dumps(document).encode()
    assert read_points(text).issues == []


def test_missing_lists_are_all_named(read):
    assert sorted(i.problem for i in read({}).issues) == [
        f'the list "{name}" is missing' for name in ("annotations", "categories", "images")
    ]
    issues = read({"images": {}, "annotations": 3, "categories": None}).issues
    assert pointers(issues) == ["/images", "/annotations", "/categories"]


def test_empty_lists(document, read):
    assert pointers(read({"images": [], "annotations": [], "categories": []}).issues) == [
        "/categories",
        "/images",
        "/annotations",
    ]
    document["annotations"] = document["annotations"][-1:]  # a crowd alone trains nothing
    assert "no annotation to train on" in problem_at(read(document).issues, "/annotations")


def test_an_image_without_annotations_is_fine(document, read):
    document["images"].append({"id": 8, "file_name": "empty.png"})
    result = read(document)
    assert result.issues == []
    assert result.points.annotations_of[8] == ()


def test_one_class_one_object(read):
    result = read(
        {
            "images": [{"id": 1, "file_name": "a.png", "width": 1, "height": 1}],
            "categories": [{"id": 3, "name": "x"}],
            "annotations": [{"id": 1, "image_id": 1, "category_id": 3, "point": [0, 0]}],
        }
    )
    assert result.issues == []
    assert len(result.points.annotations) == 1


@pytest.mark.parametrize(
    ("change", "pointer", "words"),
    [
        ({"point": [1]}, "/annotations/0/point", "two numbers"),
        ({"point": [1, 2, 3]}, "/annotations/0/point", "two numbers"),
        ({"point": ["1", 2]}, "/annotations/0/point", "two numbers"),
        ({"point": [True, 2]}, "/annotations/0/point", "two numbers"),
        ({"point": None, "keypoints": [1, 1]}, "/annotations/0/keypoints", "multiple of 3"),
        ({"point": [float("nan"), 2]}, "/annotations/0/point/0", "nan"),
        ({"point": [1, float("inf")]}, "/annotations/0/point/1", "inf"),
        ({"score": float("-inf")}, "/annotations/0/score", "inf"),
        ({"point": [64, 1]}, "/annotations/0/point", "outside"),
        ({"point": [1, 48]}, "/annotations/0/point", "outside"),
        ({"point": [-0.1, 1]}, "/annotations/0/point", "outside"),
        ({"point": None, "bbox": [70, 1, 0, 0]}, "/annotations/0/bbox", "outside"),
        (
            {"point": None, "keypoints": [0, 0, 0, 70, 1, 2]},
            "/annotations/0/keypoints/3",
            "outside",
        ),
        ({"image_id": 99}, "/annotations/0/image_id", "no image with id 99"),
        ({"image_id": "0"}, "/annotations/0/image_id", "whole number"),
        ({"image_id": 0.5}, "/annotations/0/image_id", "whole number"),
        ({"category_id": 1}, "/annotations/0/category_id", "no category with id 1"),
        ({"category_id": None}, "/annotations/0/category_id", "null"),
        ({"id": 5}, "/annotations/1/id", "used before"),
        ({"id": 2**63}, "/annotations/0/id", "whole number"),
        ({"iscrowd": "no"}, "/annotations/0/iscrowd", "0 or 1"),
    ],
)
def test_a_wrong_annotation(document, read, change, pointer, words):
    document["annotations"][0] |= change
    result = read(document)
    assert words in problem_at(result.issues, pointer)
    assert len(result.issues) == 1, "one mistake, one issue"


@pytest.mark.parametrize(
    ("change", "pointer", "words"),
    [
        ({"file_name": ""}, "/images/1/file_name", "empty"),
        ({"file_name": " "}, "/images/1/file_name", "empty"),
        ({"file_name": "."}, "/images/1/file_name", "empty"),
        ({"file_name": "../b.png"}, "/images/1/file_name", "leaves the folder"),
        ({"file_name": "x/../../b.png"}, "/images/1/file_name", "leaves the folder"),
        ({"file_name": "/etc/passwd"}, "/images/1/file_name", "leaves the folder"),
        ({"file_name": "C:\\b.png"}, "/images/1/file_name", "leaves the folder"),
        ({"file_name": "..\\b.png"}, "/images/1/file_name", "leaves the folder"),
        ({"file_name": "b\0.png"}, "/images/1/file_name", "no text"),
        ({"file_name": "\ud800"}, "/images/1/file_name", "no text"),
        ({"file_name": 3}, "/images/1/file_name", "a text"),
        ({"file_name": "a.png"}, "/images/1/file_name", "used before"),
        ({"width": 5}, "/images/1", "only one of width and height"),
        ({"width": 0, "height": 5}, "/images/1/width", "at least 1"),
        ({"width": 5, "height": "5"}, "/images/1/height", "whole number"),
        ({"width": float("nan"), "height": 5}, "/images/1/width", "nan"),
    ],
)
def test_a_wrong_image(document, read, change, pointer, words):
    document["images"][1] |= change
    result = read(document)
    assert words in problem_at(result.issues, pointer)
    assert len(result.issues) == 1


def test_duplicate_ids_point_at_the_first(document, read):
    document["images"].append({"id": 7, "file_name": "c.png"})
    document["categories"].append({"id": 90, "name": "again"})
    document["annotations"].append(copy.copy(document["annotations"][1]))
    issues = read(document).issues
    assert "/categories/1/id" in problem_at(issues, "/categories/2/id")
    assert "/images/1/id" in problem_at(issues, "/images/2/id")
    assert "/annotations/1/id" in problem_at(issues, "/annotations/4/id")
    assert len(issues) == 3


def test_missing_fields_and_records_of_the_wrong_kind(document, read):
    document["annotations"] += [{}, 3, None, "x"]
    issues = read(document).issues
    assert "object" in problem_at(issues, "/annotations/5")
    for name in ("id", "image_id", "category_id"):
        assert f'"{name}" is missing' in problem_at(issues, "/annotations/4")


def test_every_error_of_every_record_is_listed_at_once(document, read):
    document["images"][0]["width"] = "wide"
    document["categories"][1]["name"] = 4
    document["annotations"][0] = {"id": "a", "image_id": 99, "category_id": [], "point": [1, "y"]}
    document["annotations"][1]["category_id"] = 44
    document["annotations"][2] |= {"bbox": [float("nan"), 1, 0, 0], "image_id": 55}
    assert sorted(pointers(read(document).issues)) == [
        "/annotations/0/category_id",
        "/annotations/0/id",
        "/annotations/0/image_id",
        "/annotations/0/point",
        "/annotations/1/category_id",
        "/annotations/2/bbox/0",
        "/annotations/2/image_id",
        "/categories/1/name",
        "/images/0/width",
    ]


def test_pointers_are_escaped(document, read):
    document["a/b~c"] = [float("nan")]
    assert pointers(read(document).issues) == ["/a~1b~0c/0"]


def test_a_number_too_large_for_a_float_is_infinite(document):
    text = json.dumps(document).replace("63.5", "1e999").encode()
    assert "inf" in problem_at(read_points(text).issues, "/annotations/0/point/0")


@pytest.mark.slow
def test_the_list_of_issues_ends(document, read):
    bad = {"id": "x", "image_id": 0, "category_id": 0, "point": [0, 0]}
    document["annotations"] += [bad] * (MAX_ISSUES + 234)
    issues = read(document).issues
    assert len(issues) == MAX_ISSUES + 1
    assert "234 more" in issues[-1].problem


def test_identical_points_are_legal_and_noted(document, read):
    document["annotations"].append({"id": 1, "image_id": 0, "category_id": 0, "point": [3, 4]})
    result = read(document)
    assert result.issues == []
    assert len(result.points.annotations) == 4
    assert "/annotations/2" in problem_at(result.warnings, "/annotations/4")


def test_three_hundred_objects_in_one_image(document, read):
    document["annotations"] = [
        {"id": n, "image_id": 0, "category_id": 0, "point": [n % 64, n // 64]} for n in range(300)
    ]
    result = read(document)
    assert result.issues == []
    assert len(result.points.annotations_of[0]) == 300


def test_checked_against_its_images(document, read):
    document["images"].append({"id": 8, "file_name": "c.png", "width": 5, "height": 5})
    document["images"].append({"id": 9, "file_name": "d.png", "width": 5, "height": 5})
    result = read(document)
    found = {"a.png": (48, 64), "sub/b.png": (6, 5), "c.png": "the file is empty", "d.png": (5, 5)}
    assert pointers(check_against_images(result, found)) == ["/images/2/file_name"]
    assert result.with_sizes({"sub/b.png": (6, 5)}).images[1].size == (6, 5)
    issues = check_against_images(result, {"a.png": (64, 48), "sub/b.png": (5, 5)})
    assert "64×48" in problem_at(issues, "/images/0")
    assert "48×64" in problem_at(issues, "/images/0")
    assert "no image 'c.png'" in problem_at(issues, "/images/2/file_name")
    assert "no image 'd.png'" in problem_at(issues, "/images/3/file_name")
    assert len(issues) == 3
    part = check_against_images(result, {"a.png": (64, 48)}, complete=False)
    assert pointers(part) == ["/images/0"]


def test_points_are_held_against_sizes_of_files_that_are_not_declared(document, read):
    result = read(document)
    assert settle_undeclared(result, {"a.png": (1, 1), "sub/b.png": (6, 5)}) == (result, [], [])
    _, issues, _ = settle_undeclared(result, {"sub/b.png": (5, 5)})
    assert "outside" in problem_at(issues, "/annotations/1/keypoints/3")


@pytest.mark.parametrize("declared", [True, False])
def test_a_few_points_outside_do_not_stop_the_others(document, read, declared):
    """Up to a tenth: those within a pixel are moved in, others left out, each is named."""
    size = {"width": 64, "height": 48} if declared else {}
    document["images"] = [{"id": 0, "file_name": "a.png", **size}]
    places = [[n, 5] for n in range(18)] + [[64, -1], [20, 49.5]]
    document["annotations"] = [
        {"id": n, "image_id": 0, "category_id": 0, "point": place} for n, place in enumerate(places)
    ]

    def settled():
        result = read(document)
        found, outside, warnings = settle_undeclared(result, {"a.png": (48, 64)})
        return found, result.issues + outside, result.warnings + warnings

    found, issues, warnings = settled()
    assert issues == []
    kept = [(a.id, a.x, a.y) for a in found.annotations()]
    assert kept[17:] == [(17, 17, 5), (18, 63.5, 0)]
    assert "moved to (63.5, 0)" in problem_at(warnings, "/annotations/18/point")
    assert problem_at(warnings, "/annotations/19/point").startswith(
        "left out: the point (20, 49.5)"
    )
    document["annotations"].pop(0)  # two of nineteen are more than a tenth
    _, issues, _ = settled()
    assert pointers(issues) == ["/annotations/17/point", "/annotations/18/point"]


def test_images_are_checked_although_the_document_is_wrong(document, read):
    document["annotations"][0]["category_id"] = 1
    result = read(document)
    assert len(result.issues) == 1
    assert len(check_against_images(result, {"a.png": "cut off"})) == 2


def test_load_points_raises_everything(document, tmp_path: Path):
    path = tmp_path / "points.json"
    path.write_text(json.dumps(document))
    with pytest.raises(InvalidDataset, match=r"/images/1: width and height of 'sub/b\.png'"):
        load_points(path)
    points = load_points(path, {0: (48, 64), 7: (20, 10)})
    assert [image.size for image in points.images] == [(48, 64), (20, 10)]
    document["annotations"][0]["point"] = [1e6, 1]
    document["annotations"][2]["category_id"] = 3
    path.write_text(json.dumps(document))
    with pytest.raises(InvalidDataset) as caught:
        load_points(path, {0: (48, 64)})
    assert len(caught.value.issues) == 3


@pytest.mark.slow
def test_reading_loads_no_torch():
    code = "import sys, sapnet.data.annotations.coco, sapnet.data.images, sapnet.evaluation as _; "
    code += "assert not {'torch', 'numba', 'scipy'} & set(sys.modules), 'loaded'"
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.slow
def test_real_documents(real_data: Path):
    result = read_points(real_data / "points.json")
    assert result.issues == []
    assert len(result.points.annotations) > 500
    truth = read_points(real_data / "instances.json", boxes="ignore")
    assert truth.points.annotations == ()  # boxes are no points
    boxed = read_points(real_data / "instances.json")
    assert boxed.issues == []
    assert boxed.counts == {"points": 0, "boxes": len(boxed.kept), "masks": 0}


@pytest.mark.parametrize(
    ("name", "right"),
    [("a\0b", False), ("a\nb", False), ("\ud800", False), ("りんご 🍎", True), ("a\u00a0b", True)],
)
def test_names_of_classes_are_texts(document, read, name, right):
    document["categories"][0]["name"] = name
    issues = read(document).issues
    if right:
        assert issues == []
    else:
        assert "no text" in problem_at(issues, "/categories/0/name")


def test_images_that_are_to_be_labelled_need_no_annotations(tmp_path):
    document = {
        "info": {"unannotated": True},
        "images": [{"id": 1, "file_name": "a.png", "width": 4, "height": 3}],
        "annotations": [],
        "categories": [{"id": 1, "name": "cell"}],
    }
    path = tmp_path / "points.json"
    path.write_text(json.dumps(document))
    assert read_points(path).issues == []
    with pytest.raises(InvalidDataset, match="no annotation to train on"):
        load_points(path)
    for info in ({}, {"unannotated": "yes"}, None, {"unannotated": False}):
        path.write_text(json.dumps(document | {"info": info}))
        assert [issue.pointer for issue in read_points(path).issues] == ["/annotations"]
