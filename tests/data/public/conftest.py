"""Tiny datasets in their makers' own layouts: real PNGs, .mat and JSON files."""

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as coco_mask
from scipy.io import savemat

SIZE = (40, 56)


def save(values: np.ndarray, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(values).save(path)


def save_palette(values: np.ndarray, path: Path) -> None:
    """A PNG of palette indices, as VOC's."""
    path.parent.mkdir(parents=True, exist_ok=True)
    image = Image.fromarray(values.astype(np.uint8), mode="P")
    image.putpalette([channel for n in range(256) for channel in (n, 255 - n, n // 2)])
    image.save(path)


def save_photo(path: Path, size: tuple[int, int] = SIZE) -> None:
    rng = np.random.default_rng(len(path.name))
    save(rng.integers(0, 256, (*size, 3), dtype=np.uint8), path)


def block(x1: int, y1: int, x2: int, y2: int) -> np.ndarray:
    mask = np.zeros(SIZE, dtype=bool)
    mask[y1:y2, x1:x2] = True
    return mask


def rectangle(x1: int, y1: int, x2: int, y2: int) -> list[float]:
    """`block` as a polygon."""
    return [x1, y1, x2, y1, x2, y2, x1, y2]


def uncompressed(mask: np.ndarray) -> dict[str, Any]:
    """Run lengths down the columns, background first."""
    flat = np.concatenate([[0], mask.T.ravel().astype(int), [0]])
    edges = np.flatnonzero(np.diff(flat))
    counts = np.diff(np.concatenate([[0], edges, [mask.size]]))
    return {"size": list(mask.shape), "counts": [int(n) for n in counts]}


def coco_root(root: Path, split: str = "train") -> Path:
    """Two images with objects and one without; a crowd, a hole of two polygons, a damaged one."""
    for id_ in (9, 0, 4):
        save_photo(root / f"{split}2017" / f"{id_:012d}.jpg")
    images = [
        {"id": i, "file_name": f"{i:012d}.jpg", "height": 40, "width": 56, "license": 1}
        for i in (9, 0, 4)
    ]

    def row(id_: int, image: int, category: int, segmentation: Any, **more: Any) -> dict[str, Any]:
        fields = {"id": id_, "image_id": image, "category_id": category, "iscrowd": 0}
        return {**fields, "segmentation": segmentation, "bbox": [1, 2, 3, 4], "area": 5.5, **more}

    crowd = uncompressed(block(0, 0, 56, 10))
    two = [rectangle(2, 12, 10, 20), rectangle(20, 12, 30, 22)]
    annotations = [
        row(70, 9, 1, [rectangle(4, 4, 24, 20)]),
        row(0, 9, 90, two),
        row(71, 4, 1, crowd, iscrowd=1),
        row(72, 4, 90, [[3, 3, 9, 9], rectangle(50, 30, 56, 40)]),
        row(73, 4, 90, [[3, 3, 9, 9]]),
    ]
    categories = [
        {"id": 1, "name": "person", "supercategory": "person"},
        {"id": 90, "name": "toothbrush", "supercategory": "indoor"},
    ]
    document = {"images": images, "annotations": annotations, "categories": categories}
    path = root / "annotations" / f"instances_{split}2017.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(document))
    return root


def isaid_root(root: Path, split: str, names: list[str], file: str) -> Path:
    """One patch, an object of each of `names`, numbered in their order."""
    save_photo(root / split / "images" / "P0001_0_800_0_800.png")
    categories = [{"id": n, "name": name} for n, name in enumerate(names, start=1)]
    annotations = [
        {
            "id": n,
            "image_id": 0,
            "category_id": n + 1,
            "category_name": name,
            "segmentation": [rectangle(10 * n, 5, 10 * n + 8, 15)],
            "bbox": [10 * n, 5, 8, 10],
            "area": 80,
            "iscrowd": 0,
        }
        for n, name in enumerate(names)
    ]
    image = {"id": 0, "file_name": "P0001_0_800_0_800.png", "height": 40, "width": 56}
    document = {"images": [image], "annotations": annotations, "categories": categories}
    (root / split / file).write_text(json.dumps(document))
    return root


def voc_root(root: Path) -> tuple[Path, dict[str, list[tuple[int, np.ndarray]]]]:
    """VOC's train has a and b, its val c; SBD has b, c, d and e. The objects, by name."""
    names = {n: f"2007_{i:06d}" for i, n in enumerate("abcde")}
    truth = {
        names["a"]: [(15, block(0, 0, 10, 12)), (1, block(20, 5, 40, 30))],
        names["b"]: [(20, block(3, 3, 30, 30))],
        names["c"]: [(7, block(5, 5, 9, 9)), (7, block(9, 5, 14, 9))],
        names["d"]: [(2, block(0, 30, 56, 40)), (8, block(30, 2, 31, 3))],
        names["e"]: [],
    }
    voc, sbd = root / "VOCdevkit" / "VOC2012", root / "benchmark_RELEASE" / "dataset"
    for name, objects in truth.items():
        save_photo(voc / "JPEGImages" / f"{name}.jpg")
        ids, classes = np.zeros(SIZE, np.uint8), np.zeros(SIZE, np.uint8)
        for n, (category, mask) in enumerate(objects, start=1):
            ids[mask], classes[mask] = n, category
        if name in (names["a"], names["b"], names["c"]):
            void = np.zeros(SIZE, dtype=bool)
            void[-1] = True  # the band around objects, of none
            ids[void], classes[void] = 255, 255
            save_palette(ids, voc / "SegmentationObject" / f"{name}.png")
            save_palette(classes, voc / "SegmentationClass" / f"{name}.png")
        if name != names["a"]:
            # SBD drew b differently; VOC's own drawing must win
            drawn = np.roll(ids, 3, axis=1) if name == names["b"] else ids
            categories = np.array([c for c, _ in objects], np.uint8).reshape(-1, 1)
            (sbd / "inst").mkdir(parents=True, exist_ok=True)
            savemat(
                sbd / "inst" / f"{name}.mat",
                {"GTinst": {"Segmentation": drawn, "Categories": categories}},
            )
    lists = voc / "ImageSets" / "Segmentation"
    lists.mkdir(parents=True)
    (lists / "train.txt").write_text(f"{names['a']}\n{names['b']}\n")
    (lists / "val.txt").write_text(f"{names['c']}\n")
    (sbd / "train.txt").write_text(f"{names['b']}\n{names['d']}\n")
    (sbd / "val.txt").write_text(f"{names['c']}\n{names['e']}\n")
    return root, truth


def cityscapes_root(root: Path, split: str = "train") -> tuple[Path, np.ndarray]:
    """One street with every kind of value, one empty one, in two cities. The first's values."""
    values = np.full(SIZE, 7, np.uint16)  # road, no instances
    values[0:10, 0:10] = 26000  # a car
    values[0:10, 10:20] = 26001  # another, touching it
    values[20:30, 5:9] = 24003
    values[20:30, 30:50] = 24  # a group of persons
    values[35:38, 0:5] = 29000  # caravan: not evaluated
    values[39, 55] = 33012  # a bicycle of one pixel, in the corner
    for city, scene in (("aachen", values), ("zurich", np.full(SIZE, 23, np.uint16))):
        name = f"{city}_000000_000019"
        save(scene, root / "gtFine" / split / city / f"{name}_gtFine_instanceIds.png")
        save_photo(root / "leftImg8bit" / split / city / f"{name}_leftImg8bit.png")
    return root, values


def decode(row: dict[str, Any]) -> np.ndarray:
    return np.asarray(coco_mask.decode(row["segmentation"])).astype(bool)


@pytest.fixture(scope="session")
def worlds() -> SimpleNamespace:
    """The functions above, since test modules cannot import each other."""
    return SimpleNamespace(
        block=block,
        cityscapes=cityscapes_root,
        coco=coco_root,
        decode=decode,
        isaid=isaid_root,
        voc=voc_root,
    )
