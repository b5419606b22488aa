"""Folders of datasets with subsets, as other programs write them, each with the same objects."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from PIL import Image

Files = Mapping[str, Any]
"""By path: a text, what becomes JSON, or None for an image of 40×30 pixels."""
SQUARE = [8.0, 6.0, 20.0, 6.0, 20.0, 18.0, 8.0, 18.0]
"""A polygon in all of the folders that have one; its box is (8, 6, 20, 18)."""


def write(root: Path, files: Files) -> Path:
    for name, content in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if content is None:
            Image.new("RGB", (40, 30), (len(name) * 7 % 256, sum(name.encode()) % 256, 90)).save(
                path
            )
        else:
            path.write_text(content if isinstance(content, str) else json.dumps(content))
    return root


def coco(*images: str, start: int = 1, classes: tuple[str, ...] = ("cat", "dog")) -> dict[str, Any]:
    """One object on each image, of the first class on the first and so on in turn."""
    size = {"width": 40, "height": 30}
    return {
        "images": [{"id": start + n, "file_name": name, **size} for n, name in enumerate(images)],
        "categories": [{"id": n, "name": name} for n, name in enumerate(classes, 1)],
        "annotations": [
            {
                "id": start + n,
                "image_id": start + n,
                "category_id": 1 + n % len(classes),
                "bbox": [8, 6, 12, 12],
                "segmentation": [SQUARE],
                "iscrowd": 0,
            }
            for n in range(len(images))
        ],
    }


def xml(name: str, label: str) -> str:
    corners = "<xmin>9</xmin><ymin>7</ymin><xmax>20</xmax><ymax>18</ymax>"
    size = "<size><width>40</width><height>30</height><depth>3</depth></size>"
    box = f"<object><name>{label}</name><bndbox>{corners}</bndbox></object>"
    return f"<annotation><filename>{name}</filename>{size}{box}</annotation>"


def datumaro(*names: str) -> dict[str, Any]:
    polygon = {"id": 0, "type": "polygon", "label_id": 1, "points": SQUARE, "group": 0}
    labels = [{"name": "dog", "parent": ""}, {"name": "cat", "parent": ""}]
    image = {"size": [30, 40]}
    return {
        "info": {},
        "categories": {"label": {"labels": labels, "attributes": []}},
        "items": [
            {"id": n[:-4], "annotations": [polygon], "image": {"path": n, **image}} for n in names
        ],
    }


def shares(*numbers: float) -> str:
    return " ".join(f"{n / (40, 30)[i % 2]:.8f}" for i, n in enumerate(numbers))


FOLDERS: dict[str, Files] = {
    "coco, a folder a subset": {
        "train/_annotations.coco.json": coco("a.png", "b.png", start=0, classes=("cat",)),
        "valid/_annotations.coco.json": coco("a.png", start=0, classes=("cat",)),
        "test/_annotations.coco.json": coco("c.png", start=0, classes=("cat",)),
        "README.dataset.txt": "made with a tool",
        **dict.fromkeys(("train/a.png", "train/b.png", "valid/a.png", "test/c.png")),
    },
    "coco, annotations apart": {
        "annotations/instances_train2017.json": coco("a.png", "b.png", classes=("cat",)),
        "annotations/instances_val2017.json": coco("d.png", start=3, classes=("cat",)),
        "annotations/instances_test2017.json": coco("c.png", start=4, classes=("cat",)),
        "annotations/captions_val2017.json": {"images": [], "annotations": []},
        **dict.fromkeys(("train2017/a.png", "train2017/b.png", "val2017/d.png", "test2017/c.png")),
    },
    "yolo": {
        "data.yaml": "path: ../set\ntrain: images/train\nval: images/val\ntest: images/test\n"
        "names:\n  0: dog\n  1: cat\n",
        "labels/train/a.txt": f"1 {shares(*SQUARE)}\n",
        "labels/train/b.txt": f"1 {shares(*SQUARE)}\n",
        "labels/val/a.txt": f"1 {shares(14, 12, 12, 12)}\n\n",
        "labels/test/c.txt": f"1 {shares(14, 12, 12, 12)}",
        **dict.fromkeys(f"images/{name}.png" for name in ("train/a", "train/b", "val/a", "test/c")),
    },
    "yolo, a folder a subset": {
        "data.yaml": "train: ../train/images\nval: ../valid/images\ntest: ../test/images\n"
        "nc: 1\nnames: ['cat']\n",
        **{
            f"{name.replace('/', '/labels/')}.txt": f"0 {shares(14, 12, 12, 12)}"
            for name in ("train/a", "train/b", "valid/a", "test/c")
        },
        **dict.fromkeys(
            f"{name.replace('/', '/images/')}.png"
            for name in ("train/a", "train/b", "valid/a", "test/c")
        ),
    },
    "voc": {
        **{f"Annotations/{n}.xml": xml(f"{n}.png", "cat") for n in "abcd"},
        "ImageSets/Main/train.txt": "a\nb\n",
        "ImageSets/Main/val.txt": "d\n",
        "ImageSets/Main/trainval.txt": "a\nb\nd\n",
        "ImageSets/Main/test.txt": "c\n",
        "ImageSets/Main/cat_train.txt": "a  1\nb -1\n",
        **dict.fromkeys(f"JPEGImages/{n}.png" for n in "abcd"),
    },
    "datumaro": {
        "annotations/train.json": datumaro("a.png", "b.png"),
        "annotations/val.json": datumaro("a.png"),
        "annotations/test.json": datumaro("c.png"),
        **dict.fromkeys(f"images/{name}.png" for name in ("train/a", "train/b", "val/a", "test/c")),
    },
}
