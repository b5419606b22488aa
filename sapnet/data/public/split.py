"""What every reader gives, and what the readers share."""

import errno
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from sapnet.data.masks import area, encode, tight_box
from sapnet.types import BoolArray


@dataclass(frozen=True)
class Split:
    """A part of a public dataset.

    Attributes:
        images: the folder that file names are relative to.
        instances: COCO's form, every image of the split with or without objects, masks as
            compressed RLE, `iscrowd` kept.
    """

    images: Path
    instances: dict[str, Any]


def instance(
    id_: int, image_id: int, category_id: int, mask: BoolArray, *, crowd: bool = False
) -> dict[str, Any]:
    """An annotation of a mask, (H, W) bool: RLE, tight bbox (xywh) and area in pixels."""
    rle = encode(mask)
    return {
        "id": id_,
        "image_id": image_id,
        "category_id": category_id,
        "segmentation": rle,
        "bbox": tight_box(rle),
        "area": area(rle),
        "iscrowd": int(crowd),
    }


def image(id_: int, file_name: str, size: tuple[int, ...]) -> dict[str, Any]:
    """An image of size (h, w)."""
    return {"id": id_, "file_name": file_name, "height": size[0], "width": size[1]}


def read_labels(path: Path) -> npt.NDArray[np.integer]:
    """The raw values of a PNG of labels, (H, W): palette indices, or 8 or 16 bits."""
    with Image.open(path) as file:
        return np.asarray(file)


def find(root: Path, marker: str, *folders: str) -> Path:
    """The first of root's `folders` that holds `marker`. FileNotFoundError says what is missing."""
    for folder in folders:
        if (root / folder / marker).exists():
            return root / folder
    names = ", ".join(f"{folder}/{marker}" for folder in folders)
    raise FileNotFoundError(errno.ENOENT, f"holds none of {names}", str(root))
