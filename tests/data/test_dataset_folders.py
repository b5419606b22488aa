"""Datasets with subsets as other programs write them; what is wrong in them; and the way back."""

import json
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image as PILImage

from sapnet.data.annotations.coco import read_points, read_truth
from sapnet.data.dataset_folder import DatasetFolder, read_dataset
from sapnet.data.importers import read_annotations
from sapnet.data.subsets import subset_of_path, told_apart
from sapnet.errors import InvalidDataset

from .folders import FOLDERS, SQUARE, coco, datumaro, shares, write, xml

BOX = (8.0, 6.0, 20.0, 18.0)


def read(root: Path) -> tuple[DatasetFolder, list[str]]:
    warnings: list[str] = []
    return read_dataset(root, root, lambda issue: warnings.append(issue.problem)), warnings


def refused(root: Path) -> list[tuple[str, str]]:
    with pytest.raises(InvalidDataset) as caught:
        read(root)
    return [(issue.pointer, issue.problem) for issue in caught.value.issues]


@pytest.mark.parametrize("kind", FOLDERS)
def test_the_same_objects_and_subsets_of_each_format(kind: str, tmp_path: Path) -> None:
    found, _ = read(write(tmp_path, FOLDERS[kind]))
    points = found.points
    assert sorted(str(i.subset) for i in points.images) == ["test", "train", "train", "val"]
    assert all(
        (image.subset or "")[:3] in str(found.files[image.id]) or kind == "voc"
        for image in points.images
    )
    assert [c.name for c in points.categories] == ["cat"]
    assert len(points.annotations) == 4
    for annotation in points.annotations:
        assert annotation.box == pytest.approx(BOX, abs=1e-4)
        assert not annotation.pointed
    assert len({a.image_id for a in points.annotations}) == 4


@pytest.mark.parametrize("kind", ["coco, a folder a subset", "yolo", "datumaro"])
def test_outlines_are_ground_truth(kind: str, tmp_path: Path) -> None:
    root = write(tmp_path / "in", FOLDERS[kind])
    found = (path for path in root.rglob("*") if path.is_file() and path.suffix != ".png")
    files = [(path.relative_to(root).as_posix(), path) for path in found]
    annotations = read_annotations(files, tmp_path / "points.json")
    sizes = {image.file_name: ((30, 40), "a.png") for image in annotations.document.images}
    annotations = annotations.sized(sizes)
    assert annotations.document.has_truth
    assert annotations.source is not None
    truth = read_truth(annotations.source)
    outlines = [a["segmentation"][0] for a in truth["annotations"]]
    assert outlines
    assert all(outline == pytest.approx(SQUARE, abs=1e-4) for outline in outlines)
    shown = [side - n for n, side in zip(SQUARE, (40, 30) * 4, strict=True)]  # at orientation 3
    of_id = {image.id: (30, 40) for image in annotations.document.images}
    turned = read_truth(annotations.source, of_id, lambda id_: 3)
    for annotation in turned["annotations"]:
        expected = SQUARE if kind.startswith("coco") else shown
        assert annotation["segmentation"][0] == pytest.approx(expected, abs=1e-4)


@pytest.mark.parametrize("kind", FOLDERS)
def test_coco_is_stored_and_others_are_as_shown(kind: str, tmp_path: Path) -> None:
    """Of photographs that are upside down, which no size tells."""
    root = write(tmp_path, FOLDERS[kind])
    exif = PILImage.Exif()
    exif[0x0112] = 3
    for path in root.rglob("*.png"):
        PILImage.open(path).save(path, exif=exif)
    left, top, right, bottom = BOX
    shown = (40 - right, 30 - bottom, 40 - left, 30 - top)
    for annotation in read(root)[0].points.annotations:
        assert annotation.box == pytest.approx(BOX if "coco" in kind else shown, abs=1e-4)


def test_ids_and_names_stay_where_they_are_unique(tmp_path: Path) -> None:
    found, warnings = read(write(tmp_path, FOLDERS["coco, annotations apart"]))
    assert [(i.id, i.file_name) for i in found.points.images] == [
        (1, "a.png"),
        (2, "b.png"),
        (3, "d.png"),
        (4, "c.png"),
    ]
    assert [a.id for a in found.points.annotations] == [1, 2, 3, 4]
    assert warnings == ["read as coco; passed over: annotations/captions_val2017.json"]


def test_ids_of_several_files_that_are_equal_are_moved_up(tmp_path: Path) -> None:
    found, warnings = read(write(tmp_path, FOLDERS["coco, a folder a subset"]))
    assert [(i.id, i.file_name) for i in found.points.images] == [
        (0, "train/a.png"),
        (1, "train/b.png"),
        (2, "valid/a.png"),
        (3, "test/c.png"),
    ]
    assert [(a.id, a.image_id) for a in found.points.annotations] == [
        (0, 0),
        (1, 1),
        (2, 2),
        (3, 3),
    ]
    assert any("annotation ids of different files are equal" in w for w in warnings)


def test_classes_of_several_files_go_by_name_where_their_ids_differ(tmp_path: Path) -> None:
    files = {
        "train.json": coco("a.png", "b.png", classes=("cat", "dog")),
        "val.json": coco("c.png", "d.png", start=3, classes=("dog", "cat")),
        **dict.fromkeys(("a.png", "b.png", "c.png", "d.png")),
    }
    found, warnings = read(write(tmp_path, files))
    names = {c.id: c.name for c in found.points.categories}
    assert [names[a.category_id] for a in found.points.annotations] == ["cat", "dog", "dog", "cat"]
    assert any("by their names" in w for w in warnings)


def test_one_file_tells_no_subsets_apart(tmp_path: Path) -> None:
    for folder in ("a", "b"):
        files = {"train/_annotations.coco.json": coco("a.png"), "train/a.png": None}
        if folder == "b":
            files = {"train.json": coco("a.png"), "train2.json": coco("b.png", start=2)}
            files |= dict.fromkeys(("a.png", "b.png"))
        found, _ = read(write(tmp_path / folder, files))
        assert {image.subset for image in found.points.images} == {None}
    assert told_apart({1: "train", 2: None}) == {}


def test_what_an_image_says_itself_counts(tmp_path: Path) -> None:
    document = coco("a.png", "b.png", "c.png", "d.png")
    more = [{"subset": "Valid", "group": 7}, {"subset": "holiday"}, {"group": ["x"]}, {}]
    for image, given_ in zip(document["images"], more, strict=True):
        image |= given_
    path = tmp_path / "points.json"
    path.write_text(json.dumps(document))
    read_ = read_points(path)
    assert read_.issues == []
    assert [(i.subset, i.group) for i in read_.images] == [("val", "7"), *[(None, None)] * 3]
    assert read_.subsets == {"val": 1}
    assert sorted(w.pointer for w in read_.warnings if "passed over" in w.problem) == [
        "/images/1/subset",
        "/images/2/group",
    ]


@pytest.mark.parametrize(
    ("path", "subset"),
    [
        ("annotations/instances_val2017.json", "val"),
        ("Valid/a.json", "val"),
        ("data\\TEST\\x\\a.json", "test"),
        ("trainval.json", None),
        ("train_val.json", None),
        ("train/test.json", "test"),
        ("contest/latest.json", None),
        ("dev/points.json", "val"),
        ("data.v2.test.json", "test"),
        ("train/data.v2.json", "train"),
        ("cells.val.coco.json", "val"),
        ("a.train.test.json", None),
    ],
)
def test_what_names_say(path: str, subset: str | None) -> None:
    assert subset_of_path(path) == subset


YAML = "train: images/train\nval: images/val\nnames: [cat, dog]\n"


def yolo(line: str, yaml: str = YAML) -> dict[str, Any]:
    return {"data.yaml": yaml, "labels/train/a.txt": line, "images/train/a.png": None}


@pytest.mark.parametrize(
    ("line", "yaml", "expected"),
    [
        (f"1 {shares(20, 15)}", YAML, (20.0, 15.0, None)),
        (f"0 {shares(20, 15, 8, 6)}", YAML, (20.0, 15.0, (16.0, 12.0, 24.0, 18.0))),
        (
            f"0 {shares(20, 15, 8, 6)} {shares(18, 14)} 2 {shares(1, 1)} 0",
            YAML + "kpt_shape: [2, 3]\n",
            (18.0, 14.0, (16.0, 12.0, 24.0, 18.0)),
        ),
        (
            f"0 {shares(20, 15, 8, 6)} {shares(18, 14)} {shares(0, 0)}",
            YAML + "kpt_shape: [2, 2]\n",
            (18.0, 14.0, (16.0, 12.0, 24.0, 18.0)),
        ),
    ],
)
def test_lines_of_yolo(line: str, yaml: str, expected: Any, tmp_path: Path) -> None:
    found, _ = read(write(tmp_path, yolo(line, yaml)))
    (annotation,) = found.points.annotations
    x, y, box = expected
    assert (annotation.x, annotation.y) == pytest.approx((x, y), abs=1e-4)
    assert annotation.box == (box and pytest.approx(box, abs=1e-4))
    assert [i.file_name for i in found.points.images] == ["images/train/a.png"]


@pytest.mark.parametrize("before", ["./", "/home/anna/sets/coco/", "D:\\sets\\", "../coco/"])
def test_lists_that_were_written_elsewhere(tmp_path: Path, before: str) -> None:
    described = "train: train.txt\nval: val.txt\ntest: not-there.txt\nnames: [cat]\n"
    files: dict[str, Any] = {"coco/data.yaml": described}
    files |= {f"coco/labels/{n}.txt": "0 .5 .5 .2 .2\n" for n in "abc"}
    files |= dict.fromkeys(f"coco/images/{n}.png" for n in "abc")
    files["coco/train.txt"] = f"{before}images/a.png\n{before}images/b.png\n"
    files["coco/val.txt"] = f"{before}images/b.png\n"
    found, warnings = read(write(tmp_path / "lists", files))
    assert [w for w in warnings if "not there" in w] == [
        "lists of images that are not there, or too long: not-there.txt"
    ]
    by_name = {Path(i.file_name).stem: i.subset for i in found.points.images}
    assert by_name == {"a": "train", "b": "val", "c": None}, "of two lists the stricter"


def test_names_of_classes_are_texts(tmp_path: Path) -> None:
    """YAML 1.1 takes these for truths, numbers (some of base 60, or 8), a date and nothing."""
    names = ["yes", "off", "1:30", "012", "1_000", "2026-11-30", "null", "1.50", "0x1f"]
    lines = "\n".join(f"{n} {shares(20, 15)}" for n in range(len(names)))
    numbered = ", ".join(f"{number}: {name}" for number, name in enumerate(names))
    for yaml in (f"[{', '.join(names)}]", f"{{{numbered}}}"):
        root = write(tmp_path / str(len(yaml)), yolo(lines, f"names: {yaml}\nkpt_shape: null\n"))
        assert [c.name for c in read(root)[0].points.categories] == names


def test_a_list_of_two_subsets_is_of_the_stricter(tmp_path: Path) -> None:
    lists = "train: train.txt\nval: val.txt\ntest: val.txt\n"
    files = yolo("0 0.5 0.5", f"{lists}names: [cat]\n")
    files |= {"val.txt": "images/train/a.png", "labels/train/b.txt": "", "images/train/b.png": None}
    found, _ = read(write(tmp_path, files | {"train.txt": "images/train/b.png"}))
    assert [image.subset for image in found.points.images] == ["test", "train"]


def test_what_datumaro_itself_wrote(tmp_path: Path) -> None:
    """Recorded of release 1.13 (recorded/make.py), in the folders that it writes."""
    subsets = {"train": (0, 1), "val": (2,), "test": (3,)}
    files: dict[str, Any] = {}
    for subset, numbers in subsets.items():
        recorded = Path(__file__).parent / "recorded" / f"datumaro_{subset}.json"
        files[f"annotations/{subset}.json"] = recorded.read_text()
        files |= {f"images/{subset}/cell_{number}.png": None for number in numbers}
    files = {name: text and text.replace(".jpg", ".png") for name, text in files.items()}
    found, warnings = read(write(tmp_path, files))
    by_name = {Path(i.file_name).name: i.subset for i in found.points.images}
    assert by_name == {f"cell_{n}.png": s for s, numbers in subsets.items() for n in numbers}
    names = {c.id: c.name for c in found.points.categories}
    for _, annotations in found.points:
        point, box, polygon = annotations
        assert (names[point.category_id], point.x, point.y) == ("cell", 10.5, 12.5)
        assert box.box == polygon.box == BOX
        assert names[box.category_id] == names[polygon.category_id] == "dust"
    assert any("4 of label" in warning for warning in warnings)


def test_what_is_left_out_is_told_in_a_line(tmp_path: Path) -> None:
    document = datumaro("a.png", "b.png")
    shapes = [{"type": f"{n}" + "x" * 500} for n in range(300)]
    document["items"][0]["annotations"] += shapes
    _, warnings = read(write(tmp_path, {"a.json": document, "a.png": None, "b.png": None}))
    (told,) = (w for w in warnings if "neither points nor boxes" in w)
    assert "and 290 more" in told
    assert len(told) < 1000


def test_a_class_that_a_file_does_not_have_is_not_another_files(tmp_path: Path) -> None:
    """Where the files number their classes differently, and they are numbered anew."""
    for subset, classes in {"train": ["cat", "dog"], "val": ["dog"]}.items():
        document = {
            "images": [{"id": 1, "file_name": f"{subset}.png", "width": 40, "height": 30}],
            "categories": [{"id": n + 1, "name": name} for n, name in enumerate(classes)],
            "annotations": [{"id": 1, "image_id": 1, "category_id": 2, "point": [5, 5]}],
        }
        (tmp_path / subset).mkdir()
        (tmp_path / subset / "_annotations.coco.json").write_text(json.dumps(document))
        PILImage.new("RGB", (40, 30)).save(tmp_path / subset / f"{subset}.png")
    with pytest.raises(InvalidDataset, match=r"val/_annotations\.coco\.json#/annotations/0"):
        read_dataset(tmp_path, tmp_path, lambda issue: None)


def test_lists_of_images_and_a_folder_that_is_two_subsets(tmp_path: Path) -> None:
    lists = "train: lists/train.txt\nval: lists/val.txt\nnames: [cat]\n"
    labels = {f"labels/{n}.txt": f"0 {shares(20, 15)}" for n in "abc"}
    files: dict[str, Any] = {"data.yaml": lists, **labels, "lists/train.txt": "./images/a.png\n"}
    files |= {"lists/val.txt": "images/b.png\n", **dict.fromkeys(f"images/{n}.png" for n in "abc")}
    found, _ = read(write(tmp_path / "lists", files))
    assert [i.subset for i in found.points.images] == ["train", "val", None]
    del files["lists/train.txt"], files["lists/val.txt"]
    files["data.yaml"] = "train: images\nval: images\nnames: [cat]\n"
    found, _ = read(write(tmp_path / "same", files))
    assert {i.subset for i in found.points.images} == {None}


@pytest.mark.parametrize(
    ("files", "pointer", "problem"),
    [
        (yolo("7 0.5 0.5"), "labels/train/a.txt:1", "number of no class"),
        (yolo("0 nan 0.5"), "labels/train/a.txt:1", "no point"),
        (yolo("0 0.5 0.5 inf 0.1"), "labels/train/a.txt:1", "no point"),
        (yolo("0 0.5 0.5 0.1"), "labels/train/a.txt:1", "3 numbers"),
        (yolo("0 1.5 0.5"), "labels/train/a.txt:1", "outside its image"),
        (yolo("0 0.5 0.5", "train: x\nnames: [cat"), "", "no YAML"),
        (yolo("0 0.5 0.5", "train: x\nnames: {a: cat}"), "", "no list of classes"),
        (yolo("0 0.5 0.5", YAML + "kpt_shape: [99999999, 3]"), "", "kpt_shape"),
        (yolo("0 0.5 0.5", "a: &a [x]\nnames: !!python/name:os.system"), "", "no list of classes"),
        (
            {"a.xml": xml("a.png", "cat").replace("<xmin>9", "<xmin>nine"), "a.png": None},
            "a.xml#/object[1]",
            "four numbers",
        ),
        (
            {"a.xml": "<!DOCTYPE a [<!ENTITY x 'y'>]>" + xml("a.png", "&x;"), "a.png": None},
            "a.xml#",
            "document type",
        ),
        ({"a.xml": xml("a.png", "cat")[:-20], "b.xml": xml("b.png", "c")}, "a.xml#", "well-formed"),
        ({"a.xml": "<annotation>" + "<a>" * 70, "b.xml": xml("b.png", "c")}, "a.xml#", "64 levels"),
        (
            {"train.json": coco("a.png"), "val.json": '{"images": [], "annotations": [NaN]}'},
            "val.json#/annotations/0",
            "not a number",
        ),
        (
            {"train.json": coco("a.png"), "val.json": '{"images": [{}], "annotations": ['},
            "val.json#",
            "no valid JSON",
        ),
        (
            {"train.json": coco("../a.png"), "val.json": coco("b.png", start=2)},
            "train.json#/images/0",
            "leaves the folder",
        ),
        (
            {
                "train.json": coco("a.png"),
                "val.json": {**coco("b.png", start=2), "categories": []},
                **dict.fromkeys(("a.png", "b.png")),
            },
            "",
            "",
        ),
        ({"a.json": {**datumaro("a.png"), "items": [3]}, "a.png": None}, "a.json#/items/0", "id"),
        (
            {
                "a.geojson": {"type": "FeatureCollection", "crs": {"type": "name"}, "features": []},
                "a.png": None,
            },
            "a.geojson#/crs",
            "of the earth",
        ),
    ],
)
def test_what_is_wrong_is_said_where_it_is(
    files: dict[str, Any], pointer: str, problem: str, tmp_path: Path
) -> None:
    root = write(tmp_path, files)
    if not problem:  # a file may leave out what the other one has
        found, _ = read(root)
        assert len(found.points.annotations) == 2
        return
    issues = refused(root)
    assert any(p == pointer and problem in said for p, said in issues), issues


def test_geojson(tmp_path: Path) -> None:
    def feature(kind: str, coordinates: Any, **properties: Any) -> dict[str, Any]:
        geometry = {"type": kind, "coordinates": coordinates}
        return {"type": "Feature", "geometry": geometry, "properties": properties}

    features = [
        feature("Point", [3, 4], classification={"name": "Tumor", "color": [1, 2, 3]}),
        feature("MultiPoint", [[5, 6], [7, 8, 0]], **{"class": "Stroma", "image": "b.png"}),
        feature("Polygon", [[[0, 0], [1, 1], [2, 0]]], label="x"),
        feature("Point", ["x", None], label="x"),
        {"type": "Feature", "geometry": None, "properties": None},
    ]
    collection = {"type": "FeatureCollection", "features": features}
    files = {"a.geojson": collection, "a.png": None, "b.png": None}
    found, warnings = read(write(tmp_path, files))
    names = {i.id: i.file_name for i in found.points.images}
    assert [(names[a.image_id], a.x, a.y) for a in found.points.annotations] == [
        ("a", 3, 4),
        ("b.png", 5, 6),
        ("b.png", 7, 8),
    ]
    assert any("1 of Polygon" in w for w in warnings)
    assert any("no points" in w for w in warnings)


@settings(max_examples=15, deadline=None)
@given(
    st.lists(st.text(st.sampled_from("01 .-eninf\n#"), max_size=30), min_size=1, max_size=3),
    st.text(st.sampled_from("[]{}:,*&!ab \n"), max_size=30),
)
def test_any_text_is_read_or_refused_in_words(
    tmp_path_factory: Any, lines: list[str], yaml: str
) -> None:
    root = tmp_path_factory.mktemp("any")
    write(root, yolo("\n".join(lines), f"names: [a]\n{yaml}"))
    with suppress(InvalidDataset):
        read(root)
