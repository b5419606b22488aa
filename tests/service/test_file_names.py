"""Images are found however other tools spell their names, or it is said what was sent instead."""

import io
import json
import lzma
import tarfile
from typing import Any

import pytest
from PIL import Image
from starlette.testclient import TestClient

CVAT = (
    "<annotations><meta><task><labels><label><name>red</name></label></labels></task></meta>"
    '<image id="0" name="{}" width="40" height="30"><points label="red" points="3.5,2.5"/></image>'
    "</annotations>"
)


def image_bytes(seed: int = 0) -> bytes:
    """A PNG, another one for each seed."""
    buffer = io.BytesIO()
    Image.new("RGB", (40, 30), (37 * seed % 256, 0, 0)).save(buffer, "PNG")
    return buffer.getvalue()


IMAGES = {"1.png": image_bytes(seed=1), "2.png": image_bytes(seed=2)}


def tasks(*addresses: str) -> bytes:
    value = {"x": 36, "y": 43, "keypointlabels": ["red"]}
    result = {"type": "keypointlabels", "original_width": 40, "original_height": 30, "value": value}
    documents = [
        {"id": number, "data": {"image": address}, "annotations": [{"result": [result]}]}
        for number, address in enumerate(addresses, 1)
    ]
    return json.dumps(documents).encode()


def points(kit: Any, *names: str) -> dict[str, Any]:
    document = kit.points(len(names), 1)
    for image, name in zip(document["images"], names, strict=True):
        image["file_name"] = name
    return dict(document)


def stored(client: TestClient, answer: Any) -> dict[str, bytes]:
    """The bytes of each image of a data set, by its file name."""
    assert answer.status_code == 201, answer.text
    url = answer.headers["location"]
    listed = client.get(f"{url}/images").json()["images"]
    return {i["file_name"]: client.get(f"{url}/images/{i['id']}").content for i in listed}


@pytest.mark.slow
def test_names_with_backslashes(client: TestClient, kit: Any) -> None:
    a, b = image_bytes(seed=1), image_bytes(seed=2)
    document = points(kit, "photos\\a.png", "photos\\deep\\b.png")
    archive = kit.zipped({"photos/a.png": a, "photos/deep/b.png": b})
    assert stored(client, kit.upload(client, document, archive)) == {
        "photos\\a.png": a,
        "photos\\deep\\b.png": b,
    }


@pytest.mark.slow
@pytest.mark.parametrize(
    ("address", "sent", "name"),
    [
        ("/data/upload/1/1a2b3c4d-a.png", "1a2b3c4d-a.png", "a.png"),
        ("/data/upload/1/1a2b3c4d-a.png", "a.png", "a.png"),
        ("/data/upload/1/1a2b3c4d-my_photo.png", "my photo.png", "my_photo.png"),
        (
            "https://ls.org/data/upload/12/00aa11bb-My_Cell_2.png",
            "My Cell (2).PNG",
            "My_Cell_2.png",
        ),
        ("/data/local-files/?d=set%20one/a.png", "set one/a.png", "set one/a.png"),
        ("s3://bucket/raw/a.png", "a.png", "a.png"),
        ("C:\\cells\\a.png", "a.png", "cells/a.png"),
    ],
)
def test_label_studios_names(
    client: TestClient, kit: Any, address: str, sent: str, name: str
) -> None:
    a = image_bytes(seed=1)
    answer = kit.upload(client, tasks(address), kit.zipped({sent: a, "x/other.png": b"?"}))
    assert stored(client, answer) == {name: a}
    assert answer.json()["report"]["ignored_files"]["examples"] == ["x/other.png"]


@pytest.mark.slow
def test_label_studios_uploads_of_one_name(client: TestClient, kit: Any) -> None:
    a, b = image_bytes(seed=1), image_bytes(seed=2)
    two = tasks("/data/upload/1/1a2b3c4d-a.png", "/data/upload/1/9f8e7d6c-a.png")
    archive = kit.zipped({"9f8e7d6c-a.png": b, "1a2b3c4d-a.png": a})
    assert stored(client, kit.upload(client, two, archive)) == {
        "1a2b3c4d-a.png": a,
        "9f8e7d6c-a.png": b,
    }
    one = tasks("/data/upload/1/9f8e7d6c-a.png")  # the other one is of another project
    assert stored(client, kit.upload(client, one, archive)) == {"a.png": b}
    buckets = tasks("s3://bucket/train/a.png", "s3://bucket/val/a.png")
    archive = kit.zipped({"val/a.png": b, "train/a.png": a})
    assert stored(client, kit.upload(client, buckets, archive)) == {
        "train/a.png": a,
        "val/a.png": b,
    }


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "sent"),
    [
        ("frame_000000", "frame_000000.PNG"),
        ("clip/frame_000000", "frame_000000.png"),
        ("frame.000000", "frames/frame.000000.png"),
        ("A.JPG", "a.jpg"),
    ],
)
def test_cvats_frames(client: TestClient, kit: Any, name: str, sent: str) -> None:
    files = {sent: image_bytes(), "frame_000001.PNG": b"not asked for"}
    answer = kit.upload(client, CVAT.format(name).encode(), kit.zipped(files))
    assert stored(client, answer) == {name: image_bytes()}


@pytest.mark.slow
def test_addresses_as_names_in_coco(client: TestClient, kit: Any) -> None:
    a, b = image_bytes(seed=1), image_bytes(seed=2)
    document = points(
        kit, "https://host/train/a%20b.png?sig=1", "..\\..\\media\\upload\\3\\1a2b3c4d-b.png"
    )
    answer = kit.upload(client, document, kit.zipped({"x/train/a b.png": a, "b.png": b}))
    assert stored(client, answer) == {"train/a b.png": a, "1a2b3c4d-b.png": b}


@pytest.mark.slow
def test_another_kind_of_image_is_taken_and_reported(client: TestClient, kit: Any) -> None:
    answer = kit.upload(client, points(kit, "a.jpg"), {"a.png": image_bytes()})
    assert stored(client, answer) == {"a.jpg": image_bytes()}
    (warning,) = answer.json()["report"]["warnings"]
    assert "another kind of image: 'a.png' for 'a.jpg'" in warning["detail"]


@pytest.mark.slow
def test_which_of_two_is_not_guessed(client: TestClient, kit: Any) -> None:
    archive = kit.zipped({"train/1.png": image_bytes(seed=1), "val/1.png": image_bytes(seed=2)})
    answer = kit.upload(client, points(kit, "1.png"), archive)
    assert answer.status_code == 422
    (error,) = answer.json()["errors"]
    assert error["detail"] == "both 'train/1.png' and 'val/1.png' could be the image '1.png'"
    answer = kit.upload(client, points(kit, "train/1.png", "val/1.png"), {"1.png": image_bytes()})
    assert [error["pointer"] for error in answer.json()["errors"]] == [
        "/images/0/file_name",
        "/images/1/file_name",
    ]
    for error in answer.json()["errors"]:
        assert "'1.png' could be any of 'train/1.png' and 'val/1.png'" in error["detail"]


@pytest.mark.slow
def test_subsets_in_an_archive_each(client: TestClient, kit: Any) -> None:
    a, b = image_bytes(seed=1), image_bytes(seed=2)
    archives = {"val.tar.zip": kit.zipped({"1.png": b}), "train.zip": kit.zipped({"1.png": a})}
    answer = kit.upload(client, points(kit, "train/1.png", "set/val/1.PNG"), archives)
    assert stored(client, answer) == {"train/1.png": a, "set/val/1.PNG": b}
    answer = kit.upload(client, points(kit, "1.png"), archives)
    (error,) = answer.json()["errors"]
    assert error["detail"] == (
        "both 'val.tar.zip/1.png' and 'train.zip/1.png' could be the image '1.png'"
    )
    answer = kit.upload(
        client, points(kit, "train/1.png", "val/1.png"), {"train.zip": archives["train.zip"]}
    )
    (error,) = answer.json()["errors"]
    assert error["detail"] == "there is no image 'val/1.png'"


@pytest.mark.slow
def test_two_that_fit_do_not_matter_once_a_better_one_comes(client: TestClient, kit: Any) -> None:
    images = {name: image_bytes(seed=n) for n, name in enumerate(("x/1.png", "y/1.png", "1.png"))}
    answer = kit.upload(client, points(kit, "1.png"), kit.zipped(images))
    assert stored(client, answer) == {"1.png": images["1.png"]}


@pytest.mark.slow
def test_near_misses_are_suggested(client: TestClient, kit: Any) -> None:
    answer = kit.upload(client, points(kit, "cat_01.png"), {"cat01.png": image_bytes()})
    (error,) = answer.json()["errors"]
    assert error["detail"] == "there is no image 'cat_01.png'"
    assert "did you mean 'cat01.png'?" in error["hint"]


def packed(name: str, kit: Any) -> tuple[bytes, str]:
    """An archive that holds 1.png, and what it is called in the answer."""
    files = {"1.png": image_bytes(seed=1)}
    if name == "hidden.zip":
        return kit.zipped({f".data/{n}": data for n, data in files.items()}), "'.data/1.png'"
    if name == "outer.zip":
        return kit.zipped({"inner.zip": kit.zipped(files)}), "'inner.zip' in 'outer.zip'"
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        info = tarfile.TarInfo("1.png")
        info.size = len(files["1.png"])
        archive.addfile(info, io.BytesIO(files["1.png"]))
    if name == "outer.tar":
        inner = kit.zipped({"a.tar": buffer.getvalue(), "b.7z": b"7z\xbc\xaf\x27\x1c"})
        return inner, "'b.7z' in 'outer.tar'"
    heads = {
        "i.rar": b"Rar!\x1a\x07\x01\0",
        "i.7z": b"7z\xbc\xaf\x27\x1c",
        "i.zst": b"\x28\xb5\x2f\xfd",
    }
    return heads.get(name) or lzma.compress(buffer.getvalue()), repr(name)


@pytest.mark.slow
@pytest.mark.parametrize(
    "name", ["i.tar.xz", "photos", "outer.zip", "outer.tar", "hidden.zip", "i.rar", "i.7z", "i.zst"]
)
def test_what_was_not_read_is_named(client: TestClient, kit: Any, name: str) -> None:
    data, told = packed(name, kit)
    answer = kit.upload(client, points(kit, "1.png"), {name: data})
    assert answer.status_code == 422
    missing, *others = sorted(answer.json()["errors"], key=lambda error: error["part"])
    assert missing["detail"] == "there is no image '1.png'"
    assert any(told in e["detail"] and "was not read" in e["detail"] for e in others), others
    assert all("zip, tar or tar.gz" in error["hint"] for error in others)
    answer = kit.upload(client, points(kit, "1.png"), {name: data, "1.png": image_bytes()})
    assert answer.status_code == 201
    warnings = [warning["detail"] for warning in answer.json()["report"]["warnings"]]
    assert any(told in warning for warning in warnings) == (name != "hidden.zip")


@pytest.mark.slow
def test_a_corrected_version_may_spell_its_parents_names_otherwise(
    client: TestClient, kit: Any
) -> None:
    a, b = image_bytes(seed=1), image_bytes(seed=2)
    first = kit.upload(client, points(kit, "x\\1.PNG", "2.png"), {"x/1.PNG": a, "2.png": b})
    parent = first.json()["id"]
    answer = kit.upload(client, points(kit, "x/1.png", "2.png"), None, parent=parent)
    assert stored(client, answer) == {"x/1.png": a, "2.png": b}
    answer = kit.upload(client, points(kit, "2.png", "_3.png"), None, parent=parent)
    assert [error["detail"] for error in answer.json()["errors"]] == ["there is no image '_3.png'"]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("names", "words"),
    [
        (["apple", "apple"], "names are equal, but for case and spaces: 'apple' (id 0) = 'apple'"),
        (["Apple", " apple "], "names are equal"),
        (["", "x"], "names are empty: '' (id 0)"),
        (["a/b", "x"], "unsafe as those of files"),
        (["../../x", "y"], "unsafe"),
        ([".hidden", "x"], "unsafe"),
        (["x" * 101, "x"], "unsafe"),
        (["a\u202eb", "x"], "unsafe"),
        (["a, b", "x"], "read differently from CSV or YAML"),
        (["=1+1", "no"], "read differently from CSV or YAML"),
    ],
)
def test_categories_that_other_tools_trip_over(
    client: TestClient, kit: Any, names: list[str], words: str
) -> None:
    categories = [{"id": id_, "name": name} for id_, name in zip((0, 7), names, strict=True)]
    answer = kit.upload(client, kit.points(categories=categories), IMAGES)
    assert answer.status_code == 201, answer.text
    assert [c["name"] for c in answer.json()["categories"]] == names
    details = [warning["detail"] for warning in answer.json()["report"]["warnings"]]
    assert any(words in detail for detail in details), details


@pytest.mark.slow
def test_a_root_category_without_objects_is_named(client: TestClient, kit: Any) -> None:
    categories = [
        {"id": 1, "name": "objects", "supercategory": "none"},
        {"id": 0, "name": "dog", "supercategory": "objects"},
        {"id": 7, "name": "cat", "supercategory": "objects"},
    ]
    answer = kit.upload(client, kit.points(categories=categories), IMAGES)
    (warning,) = answer.json()["report"]["warnings"]
    assert "root categories without annotations" in warning["detail"]
    assert "'objects' (id 1)" in warning["detail"]
    categories[0] |= {"name": "dog"}  # is used
    categories[1] |= {"name": "none"}
    answer = kit.upload(client, kit.points(categories=categories[1:]), IMAGES)
    assert answer.json()["report"]["warnings"] == []
