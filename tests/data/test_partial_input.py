"""Documents with something missing, or several points of one object: one rule for all formats."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from sapnet.data.annotations.coco import read_points
from sapnet.data.importers import convert, read_annotations
from sapnet.errors import ValidationIssue

WIDTH, HEIGHT = 96, 64
Object = dict[str, Any]
"""points: [[x, y], ...]; label; group: of the objects that have the same one, all are one."""


def coco(objects: list[Object], *, plain: bool = False) -> Any:
    """COCO with keypoints, or with a "point" each, which README's points.json has."""
    annotations = []
    for number, thing in enumerate(objects):
        record = {"id": 10 + number, "image_id": 1, "category_id": "ab".index(thing["label"])}
        points = thing["points"]
        if not plain:
            record["keypoints"] = [n for x, y in points for n in (x, y, 2)] or [0, 0, 0]
        elif len(points) == 1:
            record["point"] = points[0]
        elif points:
            record["points"] = points
        annotations.append(record | ({"group_id": thing["group"]} if "group" in thing else {}))
    categories = [{"id": n, "name": name} for n, name in enumerate("ab")]
    image = {"id": 1, "file_name": "a.png", "width": WIDTH, "height": HEIGHT}
    return {"images": [image], "annotations": annotations, "categories": categories}


def points_json(objects: list[Object]) -> Any:
    return coco(objects, plain=True)


def cvat(objects: list[Object]) -> str:
    shapes = "".join(
        f'<points label="{thing["label"]}"'
        f' points="{";".join(f"{x},{y}" for x, y in thing["points"])}"'
        f' group_id="{thing.get("group", 0)}"/>'
        for thing in objects
    )
    size = f'width="{WIDTH}" height="{HEIGHT}"'
    image = f'<image id="1" name="a.png" {size}>{shapes}</image>'
    return f"<annotations>{image}</annotations>"


def cvat_skeletons(objects: list[Object]) -> str:
    """Each joint has a label of its own; those that are outside of the image have no place."""
    shapes = ""
    for thing in objects:
        joints = "".join(f'<points label="j" points="{x},{y}"/>' for x, y in thing["points"])
        joints += '<points label="j" outside="1" points="90,60"/>'
        group = f'group_id="{thing.get("group", 0)}"'
        shapes += f'<skeleton label="{thing["label"]}" {group}>{joints}</skeleton>'
    size = f'width="{WIDTH}" height="{HEIGHT}"'
    return f'<annotations><image id="1" name="a.png" {size}>{shapes}</image></annotations>'


def label_studio(objects: list[Object]) -> Any:
    """Several points of one object are regions with the same parent: there is no other way."""
    results: list[Any] = []
    for number, thing in enumerate(objects):
        several = len(thing["points"]) > 1
        for at, place in enumerate(thing["points"] or [None]):
            value: dict[str, Any] = {"width": 1, "keypointlabels": [thing["label"]]}
            if place is not None:
                value |= {"x": place[0] / WIDTH * 100, "y": place[1] / HEIGHT * 100}
            region = {"id": f"k{number}-{at}", "type": "keypointlabels", "value": value}
            region |= {"original_width": WIDTH, "original_height": HEIGHT, "image_rotation": 0}
            if several or "group" in thing:
                region["parentID"] = f"p{thing['group']}" if "group" in thing else f"o{number}"
            results.append(region)
    data = {"image": "/data/upload/1/1a2b3c4d-a.png"}
    return [{"id": 1, "data": data, "annotations": [{"result": results}]}]


def labelme(objects: list[Object]) -> Any:
    shapes = [
        {
            "label": thing["label"],
            "points": thing["points"],
            "shape_type": "point",
            "group_id": thing.get("group"),
        }
        for thing in objects
    ]
    size = {"imageHeight": HEIGHT, "imageWidth": WIDTH}
    return {"version": "5", "shapes": shapes, "imagePath": "a.png", "imageData": None, **size}


FORMATS = [coco, points_json, cvat, cvat_skeletons, label_studio, labelme]
Read = Callable[[Any], tuple[list[tuple[str, float, float]], list[ValidationIssue]]]


@pytest.fixture
def read(tmp_path: Path) -> Read:
    """read(document): class, x and y of each object; and the warnings. Nothing may be wrong."""

    def of(document: Any) -> tuple[list[tuple[str, float, float]], list[ValidationIssue]]:
        path = tmp_path / "sent"
        path.write_text(document if isinstance(document, str) else json.dumps(document))
        converted = convert([("sent", path)], tmp_path / "points.json")
        assert converted is None or converted.issues == []
        found = read_points(path if converted is None else converted.path)
        assert found.issues == []
        warnings = found.warnings
        if converted is not None:
            warnings = converted.warnings + converted.translated(warnings)
        names = {c.id: c.name for c in found.categories}
        objects = [
            (names[a.category_id], round(a.x, 6), round(a.y, 6)) for a in found.annotations()
        ]
        return objects, warnings

    return of


def thing(*points: list[float], label: str = "a", **more: Any) -> Object:
    return {"label": label, "points": list(points), **more}


@pytest.mark.parametrize("form", FORMATS)
def test_an_object_without_a_point_is_left_out(read: Read, form: Any) -> None:
    objects, warnings = read(form([thing([35, 28]), thing(), thing([70, 35], label="b"), thing()]))
    assert objects == [("a", 35, 28), ("b", 70, 35)]
    left_out = [w for w in warnings if "left out" in w.problem]
    assert len(left_out) == 2
    assert len({w.pointer for w in left_out}) == 2
    assert all(w.pointer and w.hint for w in left_out)


@pytest.mark.parametrize("form", FORMATS)
def test_where_nothing_is_left_it_is_refused(tmp_path: Path, form: Any) -> None:
    path, document = tmp_path / "sent", form([thing(), thing()])
    path.write_text(document if isinstance(document, str) else json.dumps(document))
    converted = convert([("sent", path)], tmp_path / "points.json")
    issues = read_points(path).issues if converted is None else converted.issues
    assert issues
    assert all(issue.hint for issue in issues)


@pytest.mark.parametrize("form", FORMATS)
def test_several_points_of_one_object(read: Read, form: Any) -> None:
    """The one nearest to their median: somebody has drawn it, so it lies on the object."""
    several = thing([10, 10], [12, 11], [30, 12])
    objects, warnings = read(form([several, thing([70, 35], label="b")]))
    assert objects == [("a", 12, 11), ("b", 70, 35)]
    (warning,) = warnings
    assert "most central" in warning.problem
    assert warning.pointer


@pytest.mark.parametrize("form", FORMATS)
def test_a_group_of_points(read: Read, form: Any) -> None:
    """One object for each group and class; what has no group stands alone."""
    objects, warnings = read(
        form(
            [
                thing([10, 10], group=1),
                thing([40, 40], group=2),
                thing([12, 11], group=1),
                thing([50, 12]),
                thing([20, 12], group=1),
                thing([15, 15], group=1, label="b"),
                thing([60, 12]),
            ]
        )
    )
    assert sorted(objects) == [
        ("a", 12, 11),
        ("a", 40, 40),
        ("a", 50, 12),
        ("a", 60, 12),
        ("b", 15, 15),
    ]
    (warning,) = warnings
    assert "one object with" in warning.problem
    assert warning.pointer


@pytest.mark.parametrize("form", [coco, points_json])
def test_groups_are_of_one_image(read: Read, form: Any) -> None:
    """The other formats have them within the image's own element."""
    document = form([thing([10, 10], group=1), thing([12, 11], group=1)])
    document["images"].append({"id": 2, "file_name": "b.png", "width": WIDTH, "height": HEIGHT})
    document["annotations"][1]["image_id"] = 2
    objects, warnings = read(document)
    assert objects == [("a", 10, 10), ("a", 12, 11)]
    assert warnings == []


def test_objects_with_masks_of_their_own_are_no_group(read: Read) -> None:
    document = points_json([thing([10, 10], group=1), thing([40, 40], group=1)])
    for annotation in document["annotations"]:
        annotation["segmentation"] = [[1, 1, 20, 1, 20, 20]]
    objects, warnings = read(document)
    assert len(objects) == 2
    assert warnings == []


@pytest.mark.parametrize(
    ("change", "pointer"),
    [
        ({"group_id": [1]}, "/annotations/0/group_id"),
        ({"group_id": True}, "/annotations/0/group_id"),
        ({"point": None, "points": 3}, "/annotations/0/points"),
        ({"point": None, "points": [1, 2]}, "/annotations/0/points"),
        ({"point": None, "points": [[1, 2], [3]]}, "/annotations/0/points"),
        ({"point": None, "points": [[1, 2], [900, 900]]}, None),
        ({"point": None, "points": [[900, 900]]}, "/annotations/0/points"),
        ({"point": None, "points": [[1e308, 1e308], [-1e308, 0]]}, "/annotations/0/points"),
        ({"points": "of no use"}, None),
        ({"group_id": None}, None),
    ],
)
def test_groups_and_points_that_are_wrong(change: Any, pointer: str | None) -> None:
    document = points_json([thing([10, 10]), thing([40, 40])])
    document["annotations"][0] |= change
    issues = read_points(json.dumps(document).encode()).issues
    assert [issue.pointer for issue in issues] == ([pointer] if pointer else [])


def test_annotations_without_points_among_others_in_coco(read: Read) -> None:
    """As COCO itself has them: no keypoint visible, or a box without an area and nothing else."""
    document = points_json([thing([10, 10])])
    more = [
        {"keypoints": [0, 0, 0] * 3, "num_keypoints": 0},
        {"keypoints": []},
        {"bbox": [1, 1, 5, 0]},
        {"bbox": []},
        {"point": None},
        {"points": []},
        {},
    ]
    for number, fields in enumerate(more):
        document["annotations"].append({"id": number, "image_id": 1, "category_id": 0, **fields})
    objects, warnings = read(document)
    assert objects == [("a", 10, 10)]
    assert [w.pointer for w in warnings] == [f"/annotations/{n + 1}" for n in range(len(more))]


def region(kind: str, id_: str, x: float = 36, parent: str = "", **value: Any) -> Any:
    sizes = {"original_width": WIDTH, "original_height": HEIGHT}
    within = {"parentID": parent} if parent else {}
    place = {"x": x, "y": 43, "width": 1}
    return {"id": id_, "type": kind, **sizes, **within, "value": {**place, **value}}


def of_label_studio(*results: Any) -> Any:
    data = {"image": "/data/upload/1/1a2b3c4d-a.png"}
    return [{"id": 1, "data": data, "annotations": [{"id": 9, "result": list(results)}]}]


@pytest.mark.parametrize("tag", ["labels", "choices"])
@pytest.mark.parametrize("order", [1, -1])
def test_a_keypoint_with_the_class_of_another_tag(read: Read, tag: str, order: int) -> None:
    pair = [region("keypoint", "q"), region(tag, "q", **{tag: ["red"]})][::order]
    objects, warnings = read(of_label_studio(*pair))
    assert objects == [("red", 34.56, 27.52)]
    assert warnings == []


def test_what_is_left_out_of_label_studio(read: Read) -> None:
    no_place = region("keypointlabels", "g", keypointlabels=["red"])
    del no_place["value"]["x"]
    objects, warnings = read(
        of_label_studio(
            region("keypointlabels", "a", keypointlabels=["red"]),
            no_place,
            region("keypointlabels", "b", keypointlabels=["red", "blue"]),
            region("keypoint", "c"),
            region("keypointlabels", "d", keypointlabels=["red"], x=50) | {"is_positive": False},
            region("ellipselabels", "e", ellipselabels=["red"]),
        )
    )
    assert objects == [("red", 34.56, 27.52)]
    at = "/0/annotations/0/result"
    assert [w.pointer for w in warnings] == [f"{at}/1", f"{at}/2", f"{at}/3", ""]
    assert "1 of negative keypointlabels" in warnings[-1].problem


def test_regions_within_regions(read: Read) -> None:
    """The outermost region is the object, however deep a point lies; a ring of parents ends."""
    objects, _ = read(
        of_label_studio(
            region("rectangle", "car"),
            region("keypointlabels", "a", 10, keypointlabels=["wheel"]) | {"parentID": "car"},
            region("keypointlabels", "b", 11, keypointlabels=["wheel"]) | {"parentID": "a"},
            region("keypointlabels", "c", 60, keypointlabels=["wheel"]),
            region("keypointlabels", "x", 80, keypointlabels=["wheel"]) | {"parentID": "y"},
            region("keypointlabels", "y", 90, keypointlabels=["hub"]) | {"parentID": "x"},
        )
    )
    assert objects == [
        ("wheel", 9.6, 27.52),
        ("wheel", 57.6, 27.52),
        ("wheel", 76.8, 27.52),
        ("hub", 86.4, 27.52),
    ]


def test_prompts_of_labelme(read: Read) -> None:
    shape = {"label": "a", "shape_type": "points", "points": [[5, 5], [30, 30], [31, 30]]}
    document = labelme([]) | {"shapes": [shape | {"point_labels": [0, 1, 1]}]}
    assert read(document)[0] == [("a", 30, 30)]


@pytest.mark.parametrize("form", [cvat, label_studio, labelme])
def test_a_point_on_the_right_or_lower_border(read: Read, form: Any) -> None:
    objects, _ = read(form([thing([WIDTH, 10]), thing([10, HEIGHT])]))
    assert objects == [("a", WIDTH - 0.5, 10), ("a", 10, HEIGHT - 0.5)]


@pytest.mark.parametrize(
    "document",
    [
        [of_label_studio()[0] | {"annotations": 1}],
        [of_label_studio()[0] | {"annotations": "none"}],
        [of_label_studio()[0] | {"annotations": {"result": []}}],
        [of_label_studio()[0] | {"data": {"image": "\ud800.png"}}],
        of_label_studio(region("keypointlabels", "a", keypointlabels=["\ud800"])),
        of_label_studio(
            region("keypointlabels", "a", keypointlabels=["x"]) | {"parentID": "\ud800"}
        ),
        labelme([thing([3, 4], label="\ud800")]),
        labelme([thing([3, 4], group="\ud800")]),
        labelme([thing([3, 4])]) | {"imagePath": "\ud800"},
        labelme([thing([3, 4])]) | {"imagePath": "\udfff/../\udfff"},
    ],
)
def test_what_no_file_can_hold(tmp_path: Path, document: Any) -> None:
    """It is an issue, or a name that no image has."""
    path = tmp_path / "sent"
    path.write_text(json.dumps(document))
    read = read_annotations([("sent", path)], tmp_path / "points.json").document
    names = {image.file_name for image in read.images}
    assert read.issues or "?" in "".join(names)
