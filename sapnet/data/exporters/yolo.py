"""YOLO segmentation: a text file an image, a line an object, coordinates as shares of the image.

Programs of this family paint a polygon with OpenCV, its outline included, so it runs through the
mask's outermost pixels; a quarter of a pixel from their corner, where those that cut coordinates to
whole pixels and those that round them both find the pixel.
"""

from collections.abc import Iterable, Sequence
from typing import ClassVar

import numpy as np

from sapnet.data.exporters.base import ExportContext, Writer, to_json
from sapnet.data.exporters.names import stems
from sapnet.data.exporters.polygons import Points, outlines
from sapnet.data.exporters.rasterize import agreement, painted
from sapnet.data.exporters.source import Shape
from sapnet.data.file_names import split_suffix
from sapnet.types import ImageInfo

SPLIT = "train"
"""Where images without a subset go."""
WITHIN = 0.25
"""From the centre of a pixel, to the left and up."""


class Yolo(Writer):
    """Labels in text files, and data.yaml."""

    notes: ClassVar[tuple[str, ...]] = (
        "An object is one polygon: split parts are joined by the shortest lines between them, as "
        "the field does, and holes to their outlines. Painted, such a line is a pixel wide.",
        "Classes are numbered 0, 1, 2, … by ascending category id; data.yaml names them.",
    )

    def __init__(self, context: ExportContext) -> None:
        super().__init__(context)
        paths = {id_: _no_images_folder(name) for id_, name in context.image_names.items()}
        self._stems = stems(paths)
        names = "".join(
            f"  {n}: {_yaml(name)}\n" for n, name in enumerate(self.class_names.values())
        )
        there = {image.subset or SPLIT for image in context.images} | {SPLIT}
        folders = {"train": SPLIT, "val": "val" if "val" in there else SPLIT}
        folders |= {"test": "test"} if "test" in there else {}
        # Without `path`, folders are relative to this file: with ".", to where the reader runs.
        listed = "".join(f"{subset}: images/{folder}\n" for subset, folder in folders.items())
        context.archive.text("data.yaml", f"{listed}names:\n{names}")

    def image_path(self, image: ImageInfo) -> str:
        """Where its file goes."""
        suffix = split_suffix(self.context.image_names[image.id])[1]
        return f"images/{image.subset or SPLIT}/{self._stems[image.id]}{suffix}"

    def add(self, image: ImageInfo, shapes: Sequence[Shape]) -> Iterable[float]:
        """Write an image's masks, see `Writer.add`."""
        size = np.array([image.width, image.height])
        lines, ious = [], []
        for shape in shapes:
            parts = outlines(shape.mask, simplify=self.context.options.simplify, centres=True)
            polygon = joined(parts) + shape.corner - WITHIN
            numbers = [f"{share:.7g}" for share in (polygon / size).ravel()]
            lines.append(
                f"{self.context.label_of[shape.instance.category_id]} {' '.join(numbers)}\n"
            )
            read = np.array(numbers, np.float64).reshape(-1, 2) * size - shape.corner
            ious.append(agreement(painted(read, *shape.mask.shape), shape.mask))
        label = f"labels/{image.subset or SPLIT}/{self._stems[image.id]}.txt"
        self.context.archive.text(label, "".join(lines))
        return ious


def joined(parts: Sequence[Points]) -> Points:
    """One closed polygon through all parts.

    Each is entered and left by the shortest line from what there is already.

    Args:
        parts: (P, 2) each.
    """
    from scipy.spatial import cKDTree  # 100 ms that an import need not spend

    whole = parts[0]
    for part in parts[1:]:
        distances, nearest = cKDTree(part).query(whole)
        here = int(distances.argmin())
        around = np.roll(part, -int(nearest[here]), axis=0)
        there_and_back = [whole[: here + 1], around, around[:1], whole[here:]]
        whole = np.concatenate(there_and_back)
    return whole


def _no_images_folder(name: str) -> str:
    """A path without folders called images: the last one of its path becomes `labels`."""
    *folders, base = name.split("/")
    return "/".join([*(folder for folder in folders if folder.casefold() != "images"), base])


def _yaml(name: str) -> str:
    """In double quotes, where YAML reads what JSON does."""
    return to_json(name).decode()
