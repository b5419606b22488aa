"""PASCAL VOC: an XML for each image, with a box for each object; lists of images for each subset.

Boxes count pixels from one, and their last pixel is within. Places are FILE#/object[3].
"""

import posixpath
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from xml.parsers import expat

from sapnet.data.annotations.decoding import ReadProgress
from sapnet.data.depth import MAX_DEPTH, TOO_DEEP
from sapnet.data.importers.base import Conversion
from sapnet.data.subsets import SUBSETS, strictest, subset_of_path
from sapnet.types import Box, Subset

_CORNERS = ("xmin", "ymin", "xmax", "ymax")
_OTHERS = ("polygon", "part", "actions")
_AGAIN = "write it again, as PASCAL VOC"
_LARGEST_LIST = 64 << 20  # bytes of a list of names


class _Refused(Exception):
    pass


def read(
    files: Sequence[tuple[str, Path]],
    lists: Sequence[tuple[str, Path]],
    conversion: Conversion,
    progress: ReadProgress,
) -> None:
    """Read PASCAL VOC into the conversion.

    Args:
        files: names and paths of the XMLs.
        lists: of the texts in ImageSets, such as ImageSets/Main/train.txt.
    """
    subsets, done = _listed(lists), 0
    for name, path in sorted(files):
        document = _Document()
        try:
            document.read(path)
        except expat.ExpatError as error:
            where = f"line {error.lineno}, column {error.offset + 1}"
            problem = f"it is no well-formed XML: {expat.ErrorString(error.code)}, at {where}"
            conversion.issues.add(f"{name}#", problem, _AGAIN)
        except _Refused as error:
            conversion.issues.add(f"{name}#", str(error), _AGAIN)
        else:
            _add(name, document, subsets, conversion, standard=bool(lists))
        done += path.stat().st_size
        progress(done)


def _listed(lists: Sequence[tuple[str, Path]]) -> dict[str, Subset]:
    """The subset of each image that a list has, by its name without suffix.

    Lists of single classes (cat_train.txt) and of several subsets (trainval.txt) are passed over.
    """
    listed: dict[str, set[Subset]] = defaultdict(set)
    for name, path in lists:
        subset = posixpath.splitext(posixpath.basename(name))[0]
        if subset not in SUBSETS or path.stat().st_size > _LARGEST_LIST:
            continue
        for line in path.read_text(errors="replace").splitlines():
            if words := line.split():
                listed[words[0]].add(subset)
    return {stem: strictest(subsets) for stem, subsets in listed.items()}


def _add(
    name: str,
    document: "_Document",
    subsets: Mapping[str, Subset],
    conversion: Conversion,
    *,
    standard: bool,
) -> None:
    stem = posixpath.splitext(posixpath.basename(name))[0]
    image = document.texts.get("filename") or stem
    folder = posixpath.dirname(name)
    if "/" not in image:
        if posixpath.basename(folder).casefold() != "annotations":  # an XML beside each image
            image = posixpath.join(folder, image)
        elif standard:  # its masks in SegmentationClass may have the names of the images
            image = posixpath.join(posixpath.dirname(folder), "JPEGImages", image)
    sides = [_whole(document.texts.get(f"size/{side}", "")) for side in ("height", "width")]
    size = (sides[0], sides[1]) if all(sides) else None
    subset_here = subsets.get(stem) if subsets else subset_of_path(folder)
    image_id = conversion.image(image, size, f"{name}#", named_subset=subset_here)
    for number, record in enumerate(document.objects, 1):
        place = f"{name}#/object[{number}]"
        box = _box(record)
        if box is None:
            conversion.skip(place, f"its {', '.join(_CORNERS)} are not four numbers", _AGAIN)
        elif not record.get("name"):
            conversion.skip(place, "it has no name", "give it one")
        else:
            conversion.object(image_id, record["name"], [], place, box=box)
    conversion.left_out.update(document.others)


def _box(texts: Mapping[str, str]) -> Box | None:
    try:
        left, top, right, bottom = (float(texts[corner]) for corner in _CORNERS)
    except (KeyError, ValueError):
        return None
    # Programs that count from zero write 0 for the first pixel.
    return max(left - 1, 0.0), max(top - 1, 0.0), right, bottom


def _whole(text: str) -> int:
    return int(text) if text.isascii() and text.isdigit() and len(text) <= 9 else 0


class _Document:
    """What an XML says: the texts of its image, and of each object."""

    def __init__(self) -> None:
        self.texts: dict[str, str] = {}
        self.objects: list[dict[str, str]] = []
        self.others: list[str] = []
        self._path: list[str] = []
        self._text: list[str] = []

    def read(self, path: Path) -> None:
        """Raises ExpatError or _Refused. A document type is refused, as in CVAT's."""
        parser = expat.ParserCreate()
        parser.buffer_text = True
        parser.StartElementHandler = self._start
        parser.EndElementHandler = self._end
        parser.CharacterDataHandler = self._text.append
        parser.StartDoctypeDeclHandler = self._doctype
        with path.open("rb") as file:
            parser.ParseFile(file)

    def _doctype(self, *_: object) -> None:
        raise _Refused("it has a document type, which is not read")

    def _start(self, name: str, _: dict[str, str]) -> None:
        self._path.append(name)
        self._text.clear()
        if len(self._path) > MAX_DEPTH:
            raise _Refused(TOO_DEEP)
        if len(self._path) == 1 and name != "annotation":
            raise _Refused(f"it is an XML of <{name}>, not of PASCAL VOC's <annotation>")
        if self._path == ["annotation", "object"]:
            self.objects.append({})
        elif self._path[:2] == ["annotation", "object"] and len(self._path) == 3:
            self.others += [name] if name in _OTHERS else []

    def _end(self, _: str) -> None:
        text, path = "".join(self._text).strip(), self._path[1:]
        self._text.clear()
        if path in (["filename"], ["size", "width"], ["size", "height"]):
            self.texts["/".join(path)] = text
        elif path == ["object", "name"] or (
            path[:-1] == ["object", "bndbox"] and path[-1] in _CORNERS
        ):
            self.objects[-1][path[-1]] = text
        self._path.pop()
