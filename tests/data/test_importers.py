"""Points from CVAT, Label Studio and Labelme, and what is said where they are wrong."""

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sapnet.data.annotations.coco import read_points
from sapnet.data.importers import Converted, convert
from sapnet.data.importers.label_studio import _file_name

CVAT = """<?xml version="1.0" encoding="utf-8"?>
<annotations>
  <version>1.1</version>
  <meta><task><labels>
    <label><name>unused</name><attributes><attribute><name>x</name></attribute></attributes></label>
    <label><name>Kern &amp; co</name></label><label><name>dust</name></label>
  </labels></task></meta>
  <image id="4" name="b/one.png" width="40" height="30">
    <points label="dust" source="manual" occluded="0" points="12.50,3.25" z_order="0"></points>
    <box label="dust" xtl="1" ytl="1" xbr="4" ybr="5"/>
    <points label="Kern &amp; co" points="0.00,29.90"><attribute name="a">1</attribute></points>
  </image>
  <image id="0" name="two.png" width="20" height="10">
    <tag label="s"/>
    <points label="dust" points="19,9"/>
  </image>
</annotations>"""

LINES = CVAT.replace("<points ", "<polyline ").replace("</points>", "</polyline>")


def keypoint(x: float, y: float, *labels: str, **more: Any) -> dict[str, Any]:
    return {
        "type": "keypointlabels",
        "value": {"x": x, "y": y, "width": 0.4, "keypointlabels": list(labels)},
        "original_width": 40,
        "original_height": 30,
        "image_rotation": 0,
        **more,
    }


def task(id_: int, image: str, *results: Any, **more: Any) -> dict[str, Any]:
    return {"id": id_, "data": {"image": image}, "annotations": [{"result": list(results)}], **more}


def labelme(image: str, *points: tuple[str, float, float], **more: Any) -> dict[str, Any]:
    shapes = [{"label": n, "points": [[x, y]], "shape_type": "point"} for n, x, y in points]
    size = {"imageHeight": 30, "imageWidth": 40}
    return {"version": "5.4", "flags": {}, "shapes": shapes, "imagePath": image, **size, **more}


@pytest.fixture
def converted(tmp_path: Path) -> Any:
    def run(*documents: Any, names: tuple[str, ...] = ("a.json", "b.json")) -> Converted | None:
        files = []
        for name, document in zip(names, documents, strict=False):
            path = tmp_path / name.replace("/", "-")
            text = document if isinstance(document, str | bytes) else json.dumps(document)
            path.write_bytes(text if isinstance(text, bytes) else text.encode())
            files.append((name, path))
        return convert(files, tmp_path / "points.json")

    return run


def one_point(cvat: str, place: str) -> str:
    """A document of CVAT with a single image, which has a single point."""
    head, tail = cvat.index("<image"), cvat.index("</annotations>")
    image = '<image id="4" name="a.png" width="40" height="30">'
    return f'{cvat[:head]}{image}<points label="dust" points="{place}"/></image>{cvat[tail:]}'


def points(found: Converted) -> list[tuple[str, str, float, float]]:
    """File name, class, x and y of each, as the one validator reads them."""
    assert found.issues == []
    document = read_points(found.path)
    assert document.issues == []
    files = {i.id: i.file_name for i in document.images}
    names = {c.id: c.name for c in document.categories}
    return [
        (files[a.image_id], names[a.category_id], round(a.x, 6), round(a.y, 6))
        for a in document.annotations()
    ]


def test_cvat(converted: Any) -> None:
    found = converted(CVAT)
    assert points(found) == [
        ("b/one.png", "dust", 12.5, 3.25),
        ("b/one.png", "dust", 2.5, 3.0),
        ("b/one.png", "Kern & co", 0.0, 29.9),
        ("two.png", "dust", 19.0, 9.0),
    ]
    document = read_points(found.path)
    assert [(i.id, i.size) for i in document.images] == [(4, (30, 40)), (0, (10, 20))]
    assert [(c.id, c.name) for c in document.categories] == [(2, "Kern & co"), (3, "dust")]
    (warning,) = found.warnings
    assert "1 of tag" in warning.problem


def test_label_studio(converted: Any) -> None:
    box = {"type": "rectanglelabels", "value": {}, "original_width": 40, "original_height": 30}
    tasks = [
        task(11, "/data/upload/3/0a1b2c3d-cells one.png", keypoint(50, 10, "cell"), box),
        task(12, "/data/local-files/?d=images/two%20b.png", keypoint(0, 99.9, "dust")),
        task(13, "s3://bucket/folder/three.jpg"),
    ]
    found = converted(b"\xef\xbb\xbf  " + json.dumps(tasks, indent=1).encode())
    assert points(found) == [
        ("cells one.png", "cell", 20.0, 3.0),
        ("images/two b.png", "dust", 0.0, 29.97),
    ]
    document = read_points(found.path)
    assert [i.file_name for i in document.images][2] == "three.jpg"
    assert [(i.id, i.size) for i in document.images] == [
        (11, (30, 40)),
        (12, (30, 40)),
        (13, (0, 0)),
    ]
    assert "1 of rectanglelabels" in found.warnings[0].problem


@pytest.mark.parametrize(
    ("data", "name"),
    [
        ({"image": "https://host/a/b%20c.png?sig=1"}, "b c.png"),
        ({"image": "b.png"}, "b.png"),
        ({"text": "hello", "ocr": "gs://bucket/x/scan.tiff"}, "scan.tiff"),
        ({"img": "/data/upload/deadbeef-.png"}, ".png"),
        ({"text": "hello"}, None),
    ],
)
def test_which_image_a_task_is_of(data: dict[str, str], name: str | None) -> None:
    assert _file_name(data) == name


def test_of_several_annotations_of_a_task_the_last_one(converted: Any) -> None:
    tasks = [task(1, "a.png", keypoint(10, 10, "cell"))]
    tasks[0]["annotations"] += [
        {"result": [keypoint(20, 20, "cell")]},
        {"result": [keypoint(30, 30, "cell")], "was_cancelled": True},
    ]
    found = converted(tasks)
    assert points(found) == [("a.png", "cell", 8.0, 6.0)]
    assert found.warnings[0].pointer == "/0/annotations"


def test_labelme_one_file_and_many(converted: Any) -> None:
    one = labelme("..\\images\\a.png", ("cell", 1.5, 2), imageData="A" * 100_000)
    assert points(converted(one)) == [("images/a.png", "cell", 1.5, 2.0)]
    other = labelme("b.png", ("dust", 3, 4), ("cell", 5, 6))
    other["shapes"].append({"label": "x", "points": [[0, 0], [1, 1]], "shape_type": "circle"})
    found = converted(other, one, names=("in/b.json", "in/a.json"))
    assert points(found) == [
        ("images/a.png", "cell", 1.5, 2.0),
        ("in/b.png", "dust", 3.0, 4.0),
        ("in/b.png", "cell", 5.0, 6.0),
    ]
    assert "1 of circle" in found.warnings[0].problem


@pytest.mark.parametrize(
    "document",
    [
        {"images": [], "annotations": [], "categories": []},
        {"shapes": [], "annotations": []},
        {"info": 'the "shapes" of things', "images": []},
        "",
        "hello",
        '{"shapes": [',
    ],
)
def test_what_is_read_as_coco(converted: Any, document: Any) -> None:
    assert converted(document) is None


@pytest.mark.parametrize(
    ("document", "pointer", "problem"),
    [
        (one_point(CVAT, "19"), "/annotations/image[1]/points[1]", "no point"),
        (one_point(CVAT, ""), "/annotations/image[1]/points[1]", "no point"),
        (CVAT.replace(' name="two.png"', ""), "/annotations/image[2]", "no name"),
        (CVAT[:400], "", "no well-formed XML"),
        ("<svg/>", "", "<svg>"),
        ("<annotations><track/></annotations>", "", "video"),
        ('<!DOCTYPE a [<!ENTITY x "y">]><annotations/>', "", "document type"),
        ("<annotations></annotations>", "", "no point"),
        (LINES.replace("<box ", "<ellipse "), "", "only"),
        ([1], "/0", "not of Label Studio's tasks"),
        ([{"image": "a.png", "kp": []}], "/0", "tasks"),
        ([task(1, "a.png", keypoint(1, 1, "a", "b"))], "/0/annotations/0/result/0", "2 labels"),
        ([task(1, "a.png", keypoint(1, 1))], "/0/annotations/0/result/0", "no labels"),
        (
            [task(1, "a.png", keypoint(1, 1, "a", image_rotation=90))],
            "/0/annotations/0/result/0",
            "rotated",
        ),
        (
            [task(1, "a.png", keypoint(1, 1, "a", original_width=None))],
            "/0/annotations/0/result/0",
            "missing",
        ),
        ([{"id": 1, "data": {}, "annotations": []}], "/0/data", "no image"),
        ('[{"data": {"image": "a.png"}}', "", "no JSON"),
        (labelme("a.png", ("", 1, 2)), "a.json#/shapes/0/label", "no label"),
        (
            labelme("a.png") | {"shapes": [{"label": "a", "shape_type": "point", "points": []}]},
            "a.json#/shapes/0/points",
            "one point",
        ),
        (labelme("a.png"), "", "no point and no box"),
        (labelme("", ("a", 1, 2)), "a.json#", "imagePath"),
    ],
)
def test_what_is_wrong_is_said_in_the_sources_terms(
    converted: Any, document: Any, pointer: str, problem: str
) -> None:
    found = converted(document)
    assert found is not None
    issue = found.issues[0]
    assert issue.pointer == pointer
    assert problem in issue.problem
    assert issue.hint


@pytest.mark.parametrize(
    "encoding", ["utf-8-sig", "utf-16", "utf-16-le", "utf-16-be"], ids=lambda name: name
)
def test_cvat_in_any_encoding(converted: Any, encoding: str) -> None:
    mark = "\ufeff" if encoding[-3:] in ("-le", "-be") else ""
    text = CVAT[CVAT.index("<annotations") :].replace("Kern", "Kérn")
    names = [label for _, label, _, _ in points(converted((mark + text).encode(encoding)))]
    assert names == ["dust", "dust", "Kérn & co", "dust"]


def test_labelme_in_another_encoding(converted: Any) -> None:
    """What is no UTF-8 or UTF-16 is refused in the terms of its tool, not for COCO's lists."""
    text = json.dumps(labelme("a.png", ("Käse", 1, 2)), ensure_ascii=False)
    assert points(converted(text.encode("utf-16"))) == [("a.png", "Käse", 1, 2)]
    (issue,) = converted(text.encode("latin-1")).issues
    assert (issue.pointer, "it is no JSON" in issue.problem) == ("a.json#", True)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"predictions": "annotations"}, "predictions alone"),
        ({"annotations": [{"was_cancelled": True, "result": [{}]}]}, "skipped"),
    ],
)
def test_tasks_whose_points_nobody_submitted(converted: Any, change: Any, words: str) -> None:
    """They are named, and block neither the other tasks nor those where there is nothing."""
    pending = task(2, "b.png", keypoint(50, 10, "cell"))
    submitted = pending.pop("annotations")
    pending |= {"annotations": [], "predictions": submitted} if "predictions" in change else change
    found = converted(
        [task(1, "a.png", keypoint(50, 10, "cell")), pending, {"data": {"image": "c.png"}}]
    )
    assert [name for name, *_ in points(found)] == ["a.png"]
    (warning,) = found.warnings
    assert (warning.pointer, words in warning.problem) == ("/1", True)
    (issue,) = converted([pending]).issues
    assert words in issue.problem


def test_of_several_files_each_must_be_labelmes(converted: Any) -> None:
    found = converted(labelme("a.png", ("cell", 1, 2)), "{", names=("a.json", "b.json"))
    assert [i.pointer for i in found.issues] == ["b.json#"]
    found = converted({"images": []}, labelme("b.png"), names=("coco.json", "b.json"))
    assert [i.pointer for i in found.issues] == ["coco.json#"]


def test_what_the_validator_finds_has_the_sources_places(converted: Any) -> None:
    outside = CVAT.replace("19,9", "25,9").replace('name="two.png"', 'name="b/one.png"')
    found = converted(outside)
    told = found.translated(read_points(found.path).issues)
    assert [i.pointer for i in told] == [
        "/annotations/image[2]",
        "/annotations/image[2]/points[1]",
    ]
    assert "/annotations/image[1]" in told[0].problem
    assert "outside its image" in told[1].problem
    same = converted(CVAT.replace("0.00,29.90", "12.50,3.25"))
    (warning,) = same.translated(read_points(same.path).warnings)
    assert warning.pointer == "/annotations/image[1]/points[2]"
    assert "/annotations/image[1]/points[1]" in warning.problem


JSONS = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                [
                    "id",
                    "data",
                    "image",
                    "annotations",
                    "result",
                    "type",
                    "value",
                    "x",
                    "y",
                    "keypointlabels",
                    "original_width",
                    "original_height",
                    "shapes",
                    "imagePath",
                    "shape_type",
                    "points",
                    "label",
                ]
            ),
            inner,
            max_size=5,
        )
    ),
    max_leaves=20,
)


@pytest.mark.slow
@given(st.lists(JSONS, min_size=1, max_size=3))
@settings(max_examples=300)
def test_no_json_breaks_it(tmp_path_factory: pytest.TempPathFactory, documents: list[Any]) -> None:
    folder = tmp_path_factory.mktemp("any")
    for whole in (documents, {"shapes": documents, "imagePath": "a"}, {"shapes": [], "a": 1}):
        path = folder / "a.json"
        path.write_text(json.dumps(whole))
        found = convert([("a.json", path)], folder / "points.json")
        if found is not None:
            found.translated(read_points(found.path).issues)


@pytest.mark.slow
@given(st.binary(max_size=60))
@settings(max_examples=200)
def test_no_bytes_break_it(tmp_path_factory: pytest.TempPathFactory, tail: bytes) -> None:
    folder = tmp_path_factory.mktemp("any")
    for head in (b"", b"<", b"<annotations><image ", b"[", b"[{}", b'{"shapes":['):
        path = folder / "a"
        path.write_bytes(head + tail)
        found = convert([("a", path)], folder / "points.json")
        if found is not None:
            found.translated(read_points(found.path).issues)


DEEP = "[" * 10_000 + "]" * 10_000


@pytest.mark.parametrize(
    "document",
    [
        labelme("a.png", ("x", 10**400, 1)),
        labelme("a.png", ("x", 1, 1), imageHeight=10**400, imageWidth=10**400),
        labelme("a.png", ("x", 1, 1), imageHeight=2**31, imageWidth=2**31 - 1),
        labelme("a.png", ("x", 1, 1), more="deep"),
        [task(1, "a.png", keypoint(10**400, 1, "x"))],
        [task(1, "a.png", keypoint(1, 1, "x", original_height=10**400))],
        [task(1, "a.png", keypoint(1, 1, "x"), more="deep")],
        CVAT.replace('width="40"', f'width="{"9" * 5_000}"'),
        CVAT.replace('id="4"', f'id="{"9" * 5_000}"'),
        CVAT.replace("12.50,3.25", "1e999,nan"),
        "<annotations>" + "<a>" * 200_000,
    ],
    ids=lambda document: str(document)[:30],
)
def test_absurd_numbers_and_nesting(document: Any, tmp_path: Path) -> None:
    path, target = tmp_path / "sent", tmp_path / "points.json"
    text = document if isinstance(document, str) else json.dumps(document)
    path.write_text(text.replace('"deep"', DEEP))
    found = convert([("sent", path)], target)
    refused = found is None or found.issues or read_points(target).issues
    assert refused or "9999" in text or "left out" in found.warnings[0].problem
