"""Of a folder the client sends what the service finds under the names of the document."""

import json
import os
import zipfile
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import pytest
from PIL import Image

from sapnet_client import Client
from sapnet_client.errors import Invalid


@pytest.fixture
def client(server: str) -> Client:
    return Client(url=server)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Images of different colours, and files that nobody asks for."""
    root = tmp_path / "photos"
    names = (
        "a.png",
        "B.PNG",
        "train/c.png",
        "val/c.png",
        "1a2b3c4d-d.png",
        "my photo.png",
        "e.png",
    )
    for number, name in enumerate(names):
        path = root / name
        path.parent.mkdir(exist_ok=True, parents=True)
        Image.new("RGB", (40, 30), (9 * number, 0, 0)).save(path)
    (root / "huge.bin").write_bytes(b"\0" * 1000)
    os.utime(root / "a.png", (0, 0))  # before a zip's first year
    return root


def points(path: Path, *names: str) -> Path:
    document = {
        "images": [{"id": number, "file_name": name} for number, name in enumerate(names)],
        "annotations": [
            {"id": number, "image_id": number, "category_id": 1, "point": [3, 4]}
            for number in range(len(names))
        ],
        "categories": [{"id": 1, "name": "cell"}],
    }
    file = path.with_name("points.json")
    file.write_text(json.dumps(document))
    return file


def stored(client: Client, dataset: Any) -> dict[str, bytes]:
    return {i.file_name: client.image_bytes(dataset, i.id) for i in client.images(dataset)}


@pytest.mark.slow
def test_however_the_document_spells_them(client: Client, folder: Path, server: str) -> None:
    files = {
        "photos\\a.png": "a.png",
        "b.png": "B.PNG",
        "train/c.jpg": "train/c.png",
        "images/val/c.png": "val/c.png",
        "d.png": "1a2b3c4d-d.png",
        "my_photo.png": "my photo.png",
        "e": "e.png",
    }
    dataset = client.create_dataset(folder, points(folder, *files))
    read = {name: (folder / file).read_bytes() for name, file in files.items()}
    assert stored(client, dataset) == read
    with urlopen(f"{server}/datasets/{dataset.id}") as answer:
        report = json.load(answer)["report"]
    assert report["ignored_files"]["count"] == 0  # nothing else was sent


@pytest.mark.slow
def test_what_fits_no_name_or_several_is_told_by_the_service(client: Client, folder: Path) -> None:
    with pytest.raises(Invalid, match=r"both 'train/c.png' and 'val/c.png' could be"):
        client.create_dataset(folder, points(folder, "c.png"))
    with pytest.raises(Invalid, match=r"did you mean 'my photo\.png'") as refused:
        client.create_dataset(folder, points(folder, "my-photo.png", "a.png"))
    assert len(refused.value.errors) == 1
    given = [folder / "train/c.png", folder / "a.png"]
    assert set(stored(client, client.create_dataset(given, points(folder, "C.png", "a")))) == {
        "C.png",
        "a",
    }


@pytest.mark.slow
def test_a_folder_of_labelme(client: Client, folder: Path, tmp_path: Path) -> None:
    """Upper-case suffixes, links to folders and files of 1970 go too; a ring of links ends."""
    marks, more = tmp_path / "marks", tmp_path / "more"
    for place, name, image in ((marks, "A.JSON", "a.png"), (more, "b.json", "e.png")):
        place.mkdir()
        shape = {"label": "x", "points": [[3, 4]], "shape_type": "point"}
        document = {"shapes": [shape], "imagePath": image, "imageHeight": 30, "imageWidth": 40}
        (place / name).write_text(json.dumps(document))
        os.utime(place / name, (0, 0))
    (marks / "linked").symlink_to(more)
    (more / "back").symlink_to(marks)
    dataset = client.create_dataset(folder, marks)
    assert sorted(name.rpartition("/")[2] for name in stored(client, dataset)) == ["a.png", "e.png"]


@pytest.mark.slow
def test_archives_in_the_folder_are_sent_where_images_are_missing(
    client: Client, folder: Path
) -> None:
    with zipfile.ZipFile(folder / "more.zip", "w") as archive:
        archive.write(folder / "e.png", "inside.png")
    (folder / "rest.7z").write_bytes(b"7z\xbc\xaf\x27\x1c")
    dataset = client.create_dataset(folder, points(folder, "a.png", "inside.png"))
    assert stored(client, dataset)["inside.png"] == (folder / "e.png").read_bytes()
    with pytest.raises(Invalid, match=r"'rest.7z' was not read: it is a 7z archive"):
        client.create_dataset(folder, points(folder, "a.png", "nowhere.png"))
