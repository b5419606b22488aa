"""CVAT for images 1.1: an XML with <points>, <skeleton> or <box> in each <image>.

A skeleton is an object with several points: those of its joints that are not outside of the image.
Places are XPaths.

Read as a stream, so its size does not matter. A document type is refused: entities could stand for
files of this machine, or for gigabytes.
"""

from collections import Counter
from typing import BinaryIO
from xml.parsers import expat

from sapnet.data.annotations.decoding import ReadProgress
from sapnet.data.depth import MAX_DEPTH, TOO_DEEP
from sapnet.data.importers.base import Conversion
from sapnet.data.subsets import subset_named

_BLOCK = 1 << 20
_POINTS = ("points", "skeleton")
_CORNERS = ("xtl", "ytl", "xbr", "ybr")
_OTHERS = ("polygon", "polyline", "ellipse", "cuboid", "mask", "tag")


class _Refused(Exception):
    pass


def read(file: BinaryIO, conversion: Conversion, progress: ReadProgress) -> None:
    """Read an XML of CVAT into the conversion."""
    reader = _Reader(conversion)
    read = 0
    try:
        while block := file.read(_BLOCK):
            reader.parser.Parse(block, False)
            read += len(block)
            progress(read)
        reader.parser.Parse(b"", True)
    except expat.ExpatError as error:
        where = f"line {error.lineno}, column {error.offset + 1}"
        problem = f"it is no well-formed XML: {expat.ErrorString(error.code)}, at {where}"
        conversion.issues.add("", problem, "export it again, as CVAT for images 1.1")
    except _Refused as error:
        conversion.issues.add("", str(error), "export it again, as CVAT for images 1.1")


class _Reader:
    def __init__(self, conversion: Conversion) -> None:
        self.parser = expat.ParserCreate()
        self.parser.buffer_text = True
        self.parser.StartElementHandler = self._start
        self.parser.EndElementHandler = self._end
        self.parser.CharacterDataHandler = self._text
        self.parser.StartDoctypeDeclHandler = self._doctype
        self._conversion = conversion
        self._path: list[str] = []
        self._label = ""
        self._images = 0
        self._counts: Counter[str] = Counter()
        self._shape: dict[str, str] = {}
        self._points: list[str] = []
        self._image_id: int | None = None

    def _doctype(self, *_: object) -> None:
        raise _Refused("it has a document type, which is not read")

    def _start(self, name: str, attributes: dict[str, str]) -> None:
        self._path.append(name)
        if len(self._path) > MAX_DEPTH:
            raise _Refused(TOO_DEEP)
        if len(self._path) == 1 and name != "annotations":
            raise _Refused(f"it is an XML of <{name}>, not of CVAT's <annotations>")
        if self._path == ["annotations", "track"]:
            raise _Refused("it holds tracks of a video")
        if self._path == ["annotations", "image"]:
            self._image(attributes)
        elif self._path[:-1] == ["annotations", "image"] and name in _POINTS:
            self._shape, self._points = attributes, [attributes.get("points", "")]
        elif self._path == ["annotations", "image", "box"]:
            self._shape = attributes
        elif self._path[:-1] == ["annotations", "image", "skeleton"] and name == "points":
            if attributes.get("outside") != "1":
                self._points.append(attributes.get("points", ""))
        elif self._path[:-1] == ["annotations", "image"] and name in _OTHERS:
            self._conversion.left_out[name] += 1

    def _end(self, name: str) -> None:
        if self._path[-3:] == ["labels", "label", "name"]:
            self._conversion.label(self._label.strip())
            self._label = ""
        self._path.pop()
        if self._path == ["annotations", "image"] and name in (*_POINTS, "box"):
            self._object(name)

    def _text(self, text: str) -> None:
        if self._path[-3:] == ["labels", "label", "name"]:
            self._label += text

    def _image(self, attributes: dict[str, str]) -> None:
        self._images += 1
        self._counts.clear()
        place = f"/annotations/image[{self._images}]"
        size = (_whole(attributes.get("height")), _whole(attributes.get("width")))
        self._image_id = None
        if "name" not in attributes:
            self._conversion.issues.add(place, "the image has no name", "export it again")
            return
        self._image_id = self._conversion.image(
            attributes["name"],
            None if size[0] is None or size[1] is None else (size[0], size[1]),
            place,
            _whole(attributes.get("id")),
            subset=subset_named(attributes.get("subset", "")),
        )

    def _object(self, kind: str) -> None:
        """The shape that has just ended."""
        self._counts[kind] += 1
        place = f"/annotations/image[{self._images}]/{kind}[{self._counts[kind]}]"
        if self._image_id is None:
            return
        if kind == "box" and self._shape.get("rotation", "0").strip("0.") != "":
            self._conversion.left_out["rotated box"] += 1
            return
        text = ";".join(self._points) if kind != "box" else ""
        box = None
        try:
            points = [_pair(pair) for pair in text.split(";") if pair.strip()]
            if kind == "box":
                left, top, right, bottom = (float(self._shape.get(n, "")) for n in _CORNERS)
                box = (left, top, right, bottom)
        except ValueError:
            if kind == "box":
                problem = f"its {', '.join(_CORNERS)} are not four numbers"
                self._conversion.skip(place, problem, "draw it anew, or remove it")
                return
            problem = f"{text[:40]!r} is no point"
            self._conversion.skip(place, problem, 'it should be "x,y", in pixels')
            return
        group = self._shape.get("group_id", "0")
        self._conversion.object(
            self._image_id,
            self._shape.get("label", ""),
            points,
            place,
            group if group not in ("", "0") else None,
            box,
        )


def _pair(text: str) -> tuple[float, float]:
    x, y = map(float, text.split(","))
    return x, y


def _whole(text: str | None) -> int | None:
    plain = text is not None and text.isascii() and text.isdigit() and len(text) <= 18
    return int(text) if text is not None and plain else None
