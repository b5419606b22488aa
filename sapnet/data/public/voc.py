"""VOC 2012 with the Semantic Boundaries Dataset (SBD): train_aug, 10,582 images, and val, 1,449."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from scipy.io import loadmat

from sapnet.data.public.split import Split, find, image, instance, read_labels
from sapnet.types import BoolArray

CLASSES = (
    "aeroplane",
    "bicycle",
    "bird",
    "boat",
    "bottle",
    "bus",
    "car",
    "cat",
    "chair",
    "cow",
    "diningtable",
    "dog",
    "horse",
    "motorbike",
    "person",
    "pottedplant",
    "sheep",
    "sofa",
    "train",
    "tvmonitor",
)
VOID = 255  # the band along outlines, and what is too hard to tell: of no object


def read_voc(root: Path, split: str) -> Split:
    """Read a split ("train" or "val") of VOC 2012, for training with SBD.

    train is train_aug: VOC's train and all of SBD, without VOC's val. Masks are VOC's own where it
    has them, SBD's for the others. All images are VOC's.

    Args:
        root: VOCdevkit/VOC2012 (or VOC2012), for train also SBD's benchmark_RELEASE/dataset.
    """
    voc = find(root, "SegmentationObject", "VOCdevkit/VOC2012", "VOC2012", ".")
    lists = voc / "ImageSets" / "Segmentation"
    names = drawn_by_voc = read_names(lists / f"{split}.txt")
    sbd = voc
    if split == "train":
        sbd = find(root, "inst", "benchmark_RELEASE/dataset", "SBD", "sbd", ".")
        more = read_names(sbd / "train.txt") | read_names(sbd / "val.txt")
        names = (names | more) - read_names(lists / "val.txt")
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    for name in sorted(names):
        id_ = int(name.replace("_", ""))  # 2007_000032
        if name in drawn_by_voc:
            size, objects = voc_objects(voc, name)
        else:
            size, objects = sbd_objects(sbd / "inst" / f"{name}.mat")
        images.append(image(id_, f"{name}.jpg", size))
        for category, mask in objects:
            annotations.append(instance(len(annotations) + 1, id_, category, mask))
    categories = [{"id": n, "name": name} for n, name in enumerate(CLASSES, start=1)]
    document = {"images": images, "annotations": annotations, "categories": categories}
    return Split(voc / "JPEGImages", document)


def read_names(path: Path) -> set[str]:
    """The names of a list, one a line."""
    return set(path.read_text().split())


Objects = Iterator[tuple[int, BoolArray]]
"""(class 1..20, mask (H, W) bool) of each object of an image."""


def voc_objects(voc: Path, name: str) -> tuple[tuple[int, ...], Objects]:
    """The size (h, w) and the objects of VOC's own two PNGs: one of objects, one of classes."""
    ids = read_labels(voc / "SegmentationObject" / f"{name}.png")
    classes = read_labels(voc / "SegmentationClass" / f"{name}.png")

    def objects() -> Objects:
        for id_ in np.unique(ids):
            if id_ not in (0, VOID):
                mask = ids == id_
                votes = np.bincount(classes[mask], minlength=len(CLASSES) + 1)
                yield int(votes[1 : len(CLASSES) + 1].argmax()) + 1, mask

    return ids.shape, objects()


def sbd_objects(path: Path) -> tuple[tuple[int, ...], Objects]:
    """The size (h, w) and the objects of one of SBD's inst/*.mat: object n has Categories[n-1]."""
    record = loadmat(path, variable_names=["GTinst"])["GTinst"][0, 0]
    ids, categories = record["Segmentation"], record["Categories"].ravel()

    def objects() -> Objects:
        for index, category in enumerate(categories, start=1):
            mask = ids == index
            if mask.any():
                yield int(category), mask

    return ids.shape, objects()
