"""Whether the readers of a format find each mask of an export, on its image and of its class."""

import xml.etree.ElementTree as ElementTree
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from xml.parsers import expat

from sapnet.data.annotations.decoding import REFUSED
from sapnet.data.annotations.json_stream import Unreadable
from sapnet.data.exif import AS_STORED, orientation_of
from sapnet.data.exporters.read_back import READERS, Files
from sapnet.data.file_names import split_suffix
from sapnet.data.images import ImageProblem, read_header
from sapnet.types import ImageInfo


@dataclass(slots=True)
class _Written:
    """An image: how many masks it has, and a sum over their classes that depends on each."""

    image: ImageInfo
    masks: int = 0
    classes: int = 0


@dataclass
class Check:
    """Collects what was written, then holds it against what is read.

    Attributes:
        with_images: whether the images are in the export; else they are known but for the suffix.
    """

    with_images: bool
    _written: dict[str, _Written] = field(default_factory=dict)

    def note(self, path: str, image: ImageInfo, category_ids: list[int]) -> None:
        """Masks were written for an image, whose file is at `path`."""
        classes = sum(map(_weight, category_ids))
        self._written[self._key(path)] = _Written(image, len(category_ids), classes)

    def unread(self, format: str, files: Files, names: Mapping[int, str]) -> dict[int, str]:
        """Image id -> why its masks are not what readers of the format get.

        Args:
            files: of the export.
            names: those of the classes, by category id.
        """
        try:
            read = self._read(format, files, names)
        except (*REFUSED, KeyError, Unreadable, ElementTree.ParseError, expat.ExpatError) as error:
            why = f"the file cannot be read back: {error}"
            return {written.image.id: why for written in self._written.values()}
        reasons = {}
        for path, written in self._written.items():
            sums = read.get(path)
            if sums is None:
                reasons[written.image.id] = "readers of the format do not find the image"
            elif sums != [written.masks, written.classes]:
                reasons[written.image.id] = "readers of the format find other masks or classes"
            elif self.with_images and (reason := _other_frame(files, path, written.image)):
                reasons[written.image.id] = reason
        return reasons

    def _read(self, format: str, files: Files, names: Mapping[int, str]) -> dict[str, list[int]]:
        """As in `_Written`, masks and classes of each image that a reader finds."""
        ids = {name: id_ for id_, name in names.items()}
        read: dict[str, list[int]] = {}
        for path, name in READERS[format](files):
            of_image = read.setdefault(self._key(path), [0, 0])
            if name is not None:
                of_image[0] += 1
                of_image[1] += _weight(ids.get(name))
        return read

    def _key(self, path: str) -> str:
        return path if self.with_images else split_suffix(path)[0]


def _weight(category_id: int | None) -> int:
    return zlib.crc32(str(category_id).encode())


def _other_frame(files: Files, path: str, image: ImageInfo) -> str | None:
    """Why masks do not lie on the copy of an image, if so."""
    try:
        with files.open(path) as file:
            size = read_header(file).size
        with files.open(path) as file:
            orientation = orientation_of(file)
    except (KeyError, ImageProblem):  # said where it is missing; no image can be shown by anyone
        return None
    if size != image.size:
        return f"the image has {size[1]}×{size[0]} pixels, its masks {image.width}×{image.height}"
    if orientation != AS_STORED:
        return f"the copy of the image has the EXIF orientation {orientation}"
    return None
