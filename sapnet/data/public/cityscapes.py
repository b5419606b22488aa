"""Cityscapes: the eight classes with instances, from gtFine's *_instanceIds.png."""

import errno
from pathlib import Path
from typing import Any

import numpy as np

from sapnet.data.public.split import Split, find, image, instance, read_labels

CLASSES = {
    24: "person",
    25: "rider",
    26: "car",
    27: "truck",
    28: "bus",
    31: "train",
    32: "motorcycle",
    33: "bicycle",
}
"""Cityscapes' own label ids. Caravan and trailer (29, 30) are left out of its evaluation."""
PER_CLASS = 1000  # an object's value is label id · 1000 + its number; a group's the label id alone
SUFFIX = "_gtFine_instanceIds.png"


def read_cityscapes(root: Path, split: str) -> Split:
    """Read a split ("train" or "val") of Cityscapes.

    Groups, in which single objects could not be told apart, become crowds. Images are numbered from
    1 in the order of their names.

    Args:
        root: gtFine/{split}/CITY/*_instanceIds.png, leftImg8bit/{split}/CITY/*.png.
    """
    folder = root / "gtFine" / split
    files = sorted(folder.glob(f"*/*{SUFFIX}"))
    if not files:
        raise FileNotFoundError(errno.ENOENT, f"holds no */*{SUFFIX}", str(folder))
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    for id_, path in enumerate(files, start=1):
        values = read_labels(path)
        name = path.name.removesuffix(SUFFIX) + "_leftImg8bit.png"
        images.append(image(id_, f"{path.parent.name}/{name}", values.shape))
        for value in np.unique(values).tolist():
            crowd = value < PER_CLASS
            label = value if crowd else value // PER_CLASS
            if label in CLASSES:
                number = len(annotations) + 1
                annotations.append(instance(number, id_, label, values == value, crowd=crowd))
    categories = [{"id": label, "name": name} for label, name in CLASSES.items()]
    document = {"images": images, "annotations": annotations, "categories": categories}
    return Split(find(root, split, "leftImg8bit") / split, document)
