"""Masks to export, from the file that a run leaves: `pseudo_masks.ndjson`."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec

from sapnet.data.exporters.source import Instance
from sapnet.data.file_pairing import Unpaired, files_in
from sapnet.data.masks import Size, check_size
from sapnet.errors import InvalidGeometry
from sapnet.types import Category, ImageInfo, PointSet


class RunSource:
    """The masks of a run; of the file only the offsets of its lines are kept in memory.

    Args:
        masks: pseudo_masks.ndjson.
        points: those that the run was given.
        folder: of the images, where they are wanted.
        min_quality: masks below it are not exported.

    Attributes:
        unpaired: images of the points that have no clear file in the folder, and why.

    Raises:
        ValueError: a line is no mask.
        OSError: the file cannot be read.
    """

    def __init__(
        self, masks: Path, points: PointSet, folder: Path | None, min_quality: float = 0.0
    ) -> None:
        self._path, self._points, self._min_quality = masks, points, min_quality
        names = [image.file_name for image in points.images]
        self._files: dict[str, Path] = {}
        self.unpaired: list[Unpaired] = []
        if folder is not None:
            pairing = files_in(folder, names)
            self._files = pairing.matched
            self.unpaired = [*pairing.missing().values(), *pairing.unclear().values()]
        self._lines: dict[int, list[int]] = {}
        place = 0
        with masks.open("rb") as file:
            for number, line in enumerate(file, 1):
                if line.strip():
                    self._lines.setdefault(_decoded(line, number)["image_id"], []).append(place)
                place += len(line)

    @property
    def images(self) -> tuple[ImageInfo, ...]:
        """In the order of the points' file."""
        return self._points.images

    @property
    def categories(self) -> tuple[Category, ...]:
        """As the points' file has them."""
        return self._points.categories

    def instances(self, image: ImageInfo) -> Iterator[Instance]:
        """Read the image's masks from the file."""
        points = {a.id: (a.x, a.y) for a in self._points.annotations_of[image.id] if a.pointed}
        with self._path.open("rb") as file:
            for place in self._lines.get(image.id, []):
                file.seek(place)
                mask = _decoded(file.readline(), None)
                if mask["quality"] >= self._min_quality:
                    segmentation, quality = mask["segmentation"], mask["quality"]
                    yield Instance(
                        mask["id"],
                        mask["category_id"],
                        segmentation,
                        quality,
                        rejected=mask.get("status") == "rejected",
                        point=points.get(mask["id"]),
                    )

    def file(self, image: ImageInfo) -> Path | None:
        """The image in the folder, where it is there."""
        return self._files.get(image.file_name)


def mask_sizes(masks: Path) -> dict[int, Size]:
    """(h, w) of each image that has a mask, by its id; the first that is one.

    Raises:
        ValueError: a line is no mask.
        OSError: the file cannot be read.
    """
    sizes: dict[int, Size] = {}
    with masks.open("rb") as file:
        for number, line in enumerate(file, 1):
            mask = _decoded(line, number) if line.strip() else {}
            try:
                sizes.setdefault(mask["image_id"], check_size(mask["segmentation"]["size"]))
            except (InvalidGeometry, KeyError, TypeError):
                continue  # the exporter leaves this mask out, and says so
    return sizes


def _decoded(line: bytes, number: int | None) -> dict[str, Any]:
    try:
        mask = msgspec.json.decode(line)
        missing = {"id", "image_id", "category_id", "segmentation", "quality"} - set(mask)
    except (msgspec.MsgspecError, TypeError, ValueError, RecursionError) as error:
        raise ValueError(f"line {number} is no mask: {error}") from None
    if missing:
        raise ValueError(f"line {number} is no mask: it has no {', '.join(sorted(missing))}")
    for name in ("id", "image_id", "category_id"):
        if type(mask[name]) is not int:
            raise ValueError(f"line {number} is no mask: its {name} is no whole number")
    if type(mask["quality"]) not in (int, float) or not isinstance(mask["segmentation"], dict):
        raise ValueError(f"line {number} is no mask: quality or segmentation is of another kind")
    return mask
