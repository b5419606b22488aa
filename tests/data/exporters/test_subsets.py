"""Subsets in exports, as this project's own reader finds them again."""

import json
import zipfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from sapnet.data.dataset_folder import read_dataset
from sapnet.data.exporters import Options, export

from .conftest import Memory

SUBSETS = {1: "train", 2: "val", 3: "test", 4: None}


class Split(Memory):
    @property
    def images(self) -> Any:
        return [replace(image, subset=SUBSETS[image.id]) for image in super().images]


def masks() -> dict[int, list[np.ndarray]]:
    mask = np.zeros((30, 40), bool)
    mask[5:20, 8:30] = True
    return {id_: [mask] for id_ in SUBSETS}


@pytest.mark.parametrize("format", ["coco", "coco-polygons", "yolo-seg", "voc"])
def test_subsets_come_back(format: str, tmp_path: Path) -> None:
    folder = tmp_path / "files"
    folder.mkdir()
    source = Split(masks(), folder=folder)
    report = export(source, format, tmp_path / "out.zip", Options(images=True))
    assert report["left_out"] == []
    root = tmp_path / "out"
    with zipfile.ZipFile(tmp_path / "out.zip") as archive:
        archive.extractall(root)
    found = read_dataset(root, root, lambda issue: None)
    by_stem = {Path(i.file_name).stem: i.subset for i in found.points.images}
    plain = "train" if format in ("yolo-seg", "voc") else None
    assert by_stem == {"1": "train", "2": "val", "3": "test", "4": plain}
    assert len(found.points.annotations) == 4


def test_each_subset_is_a_file_of_coco(tmp_path: Path) -> None:
    folder = tmp_path / "files"
    folder.mkdir()
    export(Split(masks(), folder=folder), "coco", tmp_path / "a.zip", Options(images=True))
    with zipfile.ZipFile(tmp_path / "a.zip") as archive:
        names = [name for name in archive.namelist() if name.startswith("annotations/")]
        documents = {name: json.loads(archive.read(name)) for name in names}
    stems = {f"annotations/instances_{s or 'default'}.json": id_ for id_, s in SUBSETS.items()}
    assert set(names) == set(stems)
    for name, document in documents.items():
        assert [image["id"] for image in document["images"]] == [stems[name]]
        assert [one["image_id"] for one in document["annotations"]] == [stems[name]]
    # a single document holds them all, with the subset as a field
    export(Split(masks(), folder=folder), "coco", tmp_path / "a.json")
    whole = json.loads((tmp_path / "a.json").read_text())
    assert [image.get("subset") for image in whole["images"]] == list(SUBSETS.values())
    assert len(whole["annotations"]) == 4


def test_data_sets_without_a_split_have_none_in_exports(tmp_path: Path) -> None:
    source = Memory(masks())
    export(source, "coco", tmp_path / "a.json")
    images = json.loads((tmp_path / "a.json").read_text())["images"]
    assert not any("subset" in image for image in images)
    export(source, "yolo-seg", tmp_path / "a.zip")
    with zipfile.ZipFile(tmp_path / "a.zip") as archive:
        described = yaml.safe_load(archive.read("data.yaml"))
    assert (described["train"], described["val"]) == ("images/train", "images/train")
    assert "test" not in described
