"""Boxes of annotations: beside a point or alone, cut to their images, in stored pixels."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from sapnet.data.annotations.boxes import xywh
from sapnet.data.annotations.coco import load_points, read_points, settle_undeclared
from sapnet.data.annotations.document import PointDocument
from sapnet.data.annotations.frames import in_stored_pixels
from sapnet.data.importers import read_annotations
from sapnet.errors import ValidationIssue
from sapnet.types import PointAnnotation
from tests.data.test_orientation import METHODS

WIDTH, HEIGHT = 64, 48
MASK = {"size": [HEIGHT, WIDTH], "counts": [10, 5, WIDTH * HEIGHT - 15]}
Fields = dict[str, Any]


def document(*objects: Fields, sizes: bool = True, **image: Any) -> Any:
    size = {"width": WIDTH, "height": HEIGHT} if sizes else {}
    return {
        "images": [{"id": 1, "file_name": "a.png", **size, **image}],
        "categories": [{"id": 1, "name": "cell"}],
        "annotations": [
            {"id": number, "image_id": 1, "category_id": 1, **fields}
            for number, fields in enumerate(objects)
        ],
    }


def read(*objects: Fields, boxes: Any = "use", **more: Any) -> PointDocument:
    return read_points(json.dumps(document(*objects, **more)).encode(), boxes=boxes)


def known(annotation: PointAnnotation) -> Any:
    return annotation.x, annotation.y, annotation.box, annotation.pointed


def at(issues: list[ValidationIssue]) -> list[str]:
    return [issue.pointer for issue in issues]


def test_points_boxes_and_masks_in_one_image() -> None:
    found = read(
        {"point": [5, 6], "bbox": [2, 3, 10, 8.5]},
        {"bbox": [20, 10, 6, 8]},
        {"point": [40.5, 20.5]},
        {"keypoints": [0, 0, 0, 30, 30, 2], "bbox": [28, 28, 4, 4]},
        {"points": [[50, 40], [51, 41], [52, 40]], "bbox": [48, 38, 6, 6], "mask": MASK},
        {"mask": MASK, "bbox": [8, 0, 5, 5]},
        {"bbox": [3, 4, 0, 0]},
    )
    assert (found.issues, found.warnings[1:]) == ([], [])  # the object with three points is named
    assert list(map(known, found.annotations())) == [
        (5, 6, (2, 3, 12, 11.5), True),
        (23, 14, (20, 10, 26, 18), False),
        (40.5, 20.5, None, True),
        (30, 30, (28, 28, 32, 32), True),
        (50, 40, (48, 38, 54, 44), True),
        (10.5, 2.5, (8, 0, 13, 5), False),
        (3, 4, None, True),
    ]
    assert found.counts == {"points": 5, "boxes": 5, "masks": 2}


def test_ignored_boxes_leave_what_was_read_before_there_were_any() -> None:
    """And a box without an area, or one of a crowd, counts for nothing either way."""
    odd = [{"bbox": [1, 1, -3, 2]}, {"bbox": [1, 1, 3, 0]}, {"bbox": [1, 1, 3]}, {"bbox": []}]
    objects = [{"point": [5, 6]} | fields for fields in (*odd, {})]
    objects += [{"iscrowd": 1, "bbox": [1, 1, 9, 9]}]
    for boxes in ("use", "ignore"):
        found = read(*objects, boxes=boxes)
        assert found.counts == {"points": 5, "boxes": 0, "masks": 0}
        assert len(found.rows.boxes) == 0
        assert found.crowd_count == 1
    told = [{"point": [40, 6], "bbox": [1, 1, 5, 5]}, {"bbox": [1, 1, 5, 5]}]
    found = read(*told, boxes="ignore")
    assert list(map(known, found.annotations())) == [(40, 6, None, True)]
    assert (found.issues, at(found.warnings)) == ([], ["/annotations/1"])


@pytest.mark.parametrize(
    ("point", "outside"),
    [
        ([20, 10], 0),
        ([30, 20], 0),
        ([18, 22], 0),
        ([32, 8], 0),
        ([17.9, 15], 2.1),
        ([25, 22.5], 2.5),
        ([63, 15], 33),
    ],
)
def test_a_point_outside_its_box_is_an_issue(point: list[float], outside: float) -> None:
    found = read({"point": [1, 1]}, {"point": point, "bbox": [20, 10, 10, 10]})
    assert at(found.issues) == ["/annotations/1/bbox"] * bool(outside)
    if outside:
        assert f"is {outside:g} pixels outside" in found.issues[0].problem
        assert "boxes=ignore" in found.issues[0].hint


@pytest.mark.parametrize("sizes", [True, False])
def test_boxes_end_where_their_image_does(sizes: bool) -> None:
    found = read(
        {"point": [60, 40], "bbox": [50, 30, 100, 100]},
        {"bbox": [-10, -5, 14, 9]},
        {"bbox": [0, 0, WIDTH + 0.6, HEIGHT]},
        {"bbox": [62, 46, 2, 2]},
        {"point": [0, 5], "bbox": [-4, 4, 3, 3]},
        {"bbox": [0, 0, 1e308, 1e308]},
        sizes=sizes,
    )
    cut, issues, warnings = settle_undeclared(found, {"a.png": (HEIGHT, WIDTH)})
    assert found.issues + issues == []
    assert list(map(known, cut.annotations())) == [
        (60, 40, (50, 30, 64, 48), True),
        (2, 2, (0, 0, 4, 4), False),
        (32, 24, (0, 0, 64, 48), False),
        (63, 47, (62, 46, 64, 48), False),
        (0, 5, None, True),
        (32, 24, (0, 0, 64, 48), False),
    ]
    told = found.warnings + warnings
    assert {w.pointer for w in told} >= {f"/annotations/{n}/bbox" for n in (0, 1, 4, 5)}
    assert not any(w.pointer.startswith(("/annotations/2/", "/annotations/3/")) for w in told)


@pytest.mark.parametrize("sizes", [True, False])
@pytest.mark.parametrize("bbox", [[WIDTH, 5, 0.8, 9], [-9, 5, 9, 9], [1e9, 0, 5, 5]])
def test_a_box_beside_its_image(bbox: list[float], sizes: bool) -> None:
    """It is as a point there: a few are left out, more than a tenth are an issue each."""
    for others in (30, 3):
        on = [{"bbox": [n, n, 5, 5]} for n in range(others)]
        found = read(*on, {"bbox": bbox}, sizes=sizes)
        cut, issues, warnings = settle_undeclared(found, {"a.png": (HEIGHT, WIDTH)})
        issues, warnings = found.issues + issues, found.warnings + warnings
        assert at(issues) == [f"/annotations/{others}/bbox"] * (others == 3)
        assert len(cut.kept) == others
        assert "the box [" in (issues or warnings)[0].problem


def test_two_equal_boxes_are_named_and_nested_ones_are_not() -> None:
    found = read({"bbox": [9, 9, 4, 4]}, {"bbox": [9, 9, 4, 4]}, {"bbox": [5, 5, 12, 12]})
    (warning,) = found.warnings
    assert warning.pointer == "/annotations/1"
    assert "same box as /annotations/0" in warning.problem
    assert len(found.kept) == 3


@pytest.mark.parametrize(
    ("objects", "expected"),
    [
        ([{"point": [5, 6]}, {"bbox": [2, 3, 10, 8]}], (5, 6, (2, 3, 12, 11), True)),
        ([{"bbox": [2, 3, 10, 8]}, {"point": [5, 6]}], (5, 6, (2, 3, 12, 11), True)),
        ([{"bbox": [2, 3, 4, 4]}, {"bbox": [8, 3, 4, 8]}], (7, 7, (2, 3, 12, 11), False)),
    ],
)
def test_point_and_box_of_one_group_are_one_object(objects: list[Fields], expected: Any) -> None:
    found = read(*({"group_id": 7} | fields for fields in objects), {"point": [40, 40]})
    first, other = map(known, found.annotations())
    assert found.issues == []
    assert first == expected
    assert other == (40, 40, None, True)


def test_a_group_whose_point_is_far_from_its_box() -> None:
    found = read({"group_id": 7, "bbox": [2, 3, 10, 8]}, {"group_id": 7, "point": [40, 6]})
    assert at(found.issues) == ["/annotations/0/bbox"]


@pytest.mark.parametrize("orientation", [1, *METHODS])
def test_boxes_of_upright_images(orientation: int) -> None:
    """A box at the left upper corner of the upright image, 3 × 2 pixels; and one with a point."""
    turned = orientation >= 5
    size = {"width": HEIGHT, "height": WIDTH} if turned else {}
    found = read({"bbox": [0, 0, 3, 2]}, {"point": [1, 1], "bbox": [0, 0, 3, 2]}, **size)
    assert found.issues == []
    files = {"a.png": ((HEIGHT, WIDTH), orientation)}
    alone, pointed = in_stored_pixels(replace(found, frame="upright"), files).annotations()
    width, height = (2, 3) if turned else (3, 2)
    right, low = orientation in (2, 3, 7, 8), orientation in (3, 4, 6, 7)
    left, top = (WIDTH - width) * right, (HEIGHT - height) * low
    assert alone.box == pointed.box == (left, top, left + width, top + height)
    assert (alone.x, alone.y) == (left + width / 2, top + height / 2)


def test_boxes_take_little_memory() -> None:
    """36 bytes each, and nothing where there are none."""
    found = read({"point": [1, 1]}, *({"bbox": [n, n, 3, 3]} for n in range(9)))
    columns = (found.rows.boxes, found.rows.box_rows)
    assert sum(column.itemsize * len(column) for column in columns) == 9 * 36


def test_what_was_read_is_read_again_alike(tmp_path: Any) -> None:
    """As the worker writes it for the trainer."""
    first = list(read({"bbox": [0.1, 0.2, 0.3, 0.7]}, {"bbox": [-3, 3, 70.1, 9]}).annotations())
    path = tmp_path / "points.json"
    boxes = [xywh(annotation.box) for annotation in first if annotation.box]
    path.write_text(json.dumps(document(*({"bbox": box} for box in boxes))))
    for box, again in zip(boxes, load_points(path).annotations, strict=True):
        assert again.box is not None
        assert xywh(again.box) == pytest.approx(box, rel=1e-12)


def cvat(*shapes: str) -> str:
    image = f'<image id="1" name="a.png" width="{WIDTH}" height="{HEIGHT}">'
    return f"<annotations>{image}{''.join(shapes)}</image></annotations>"


def label_studio(*results: Fields) -> Any:
    size = {"original_width": WIDTH, "original_height": HEIGHT}
    data = {"image": "/data/upload/1/1a2b3c4d-a.png"}
    return [{"data": data, "annotations": [{"result": [size | result for result in results]}]}]


def rectangle(**more: Any) -> Fields:
    """The box (16, 12, 32, 36), in per cent."""
    value = {"x": 25, "y": 25, "width": 25, "height": 50, "rectanglelabels": ["cell"]}
    return {"id": "r", "type": "rectanglelabels", "value": value | more}


def labelme(*shapes: Fields) -> Any:
    size = {"imageHeight": HEIGHT, "imageWidth": WIDTH}
    listed = [{"label": "cell", "group_id": None} | shape for shape in shapes]
    return {"shapes": listed, "imagePath": "a.png", **size}


CVAT_BOX = '<box label="cell" xtl="16" ytl="12" xbr="32" ybr="36"{}/>'
CVAT_POINT = '<points label="cell" points="20,20"{}/>'
CORNERS = {"shape_type": "rectangle", "points": [[32, 12], [16, 36]]}
KEYPOINT = {"id": "k", "type": "keypointlabels", "parentID": "r"} | {
    "value": {"x": 31.25, "y": 125 / 3, "keypointlabels": ["cell"]}
}
ALONE = [
    cvat(CVAT_BOX.format("")),
    cvat(CVAT_BOX.format(' rotation="0.0"')),
    label_studio(rectangle()),
    labelme(CORNERS),
]
WITH_POINT = [
    cvat(CVAT_BOX.format(' group_id="3"'), CVAT_POINT.format(' group_id="3"')),
    label_studio(rectangle(), KEYPOINT),
    labelme(
        CORNERS | {"group_id": 3}, {"shape_type": "point", "points": [[20, 20]], "group_id": 3}
    ),
]


def drawn(found: Any, tmp_path: Path, boxes: Any = "use") -> PointDocument:
    path = tmp_path / "sent"
    path.write_text(found if isinstance(found, str) else json.dumps(found))
    read = read_annotations([("sent", path)], tmp_path / "points.json", boxes=boxes)
    return read.document


@pytest.mark.parametrize("pointed", [False, True])
@pytest.mark.parametrize("number", range(4))
def test_boxes_that_were_drawn_in_other_tools(number: int, pointed: bool, tmp_path: Path) -> None:
    """Alone; and grouped with a point they are one object."""
    forms = WITH_POINT if pointed else ALONE
    document = drawn(forms[number % len(forms)], tmp_path)
    assert document.issues == []
    (only,) = document.annotations()
    x, y = (20, 20) if pointed else (24, 24)
    assert known(only) == (pytest.approx(x), pytest.approx(y), (16, 12, 32, 36), pointed)


@pytest.mark.parametrize("form", [ALONE[0], ALONE[2], ALONE[3]])
def test_drawn_boxes_are_ignored_where_that_is_asked(form: Any, tmp_path: Path) -> None:
    document = drawn(form, tmp_path, "ignore")
    assert len(document.kept) == 0
    assert "no annotation to train on" in document.issues[0].problem


@pytest.mark.parametrize(
    ("form", "reason"),
    [
        (cvat(CVAT_POINT.format(""), CVAT_BOX.format(' rotation="30"')), "rotated box"),
        (cvat(CVAT_POINT.format(""), CVAT_BOX.format("").replace("16", "x")), "four numbers"),
        (cvat(CVAT_POINT.format(""), CVAT_BOX.format("").replace("32", "16")), "no area"),
        (label_studio(rectangle(rotation=5), KEYPOINT), "rotated rectanglelabels"),
        (label_studio(rectangle(width="a"), KEYPOINT), "missing"),
        (labelme(CORNERS, {"shape_type": "rectangle", "points": [[1, 1]]}), "two corners"),
        (labelme(CORNERS, {"shape_type": "rectangle", "points": [[1, 1], [1, 5]]}), "no area"),
    ],
)
def test_drawn_boxes_that_are_none(form: Any, reason: str, tmp_path: Path) -> None:
    document = drawn(form, tmp_path)
    assert document.issues == []
    assert len(document.kept) == 1
    assert any(reason in warning.problem for warning in document.warnings)
