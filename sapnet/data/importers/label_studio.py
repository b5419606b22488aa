"""Label Studio's JSON export: tasks with keypoints and rectangles, in per cent of the image's size.

Read in pieces, so its size does not matter. Places are JSON pointers into the file.
"""

import io
from collections.abc import Iterator
from itertools import chain
from pathlib import PurePosixPath
from typing import Any, BinaryIO, cast

import msgspec

from sapnet.data.annotations.decoding import REFUSED, ReadProgress
from sapnet.data.annotations.json_stream import Unreadable, pieces
from sapnet.data.file_names import relative, without_upload_prefix
from sapnet.data.images import FORMATS
from sapnet.data.importers.base import Conversion

_KEYPOINTS = ("keypointlabels", "keypoint")
_RECTANGLES = ("rectanglelabels", "rectangle")
_LABELS = ("labels", "choices")
"""Results that give a region of any kind its class."""
_SUFFIXES = (".jpg", ".tif", *(f".{name.lower()}" for name in FORMATS))
_AGAIN = "export the project as JSON"


def read(file: BinaryIO, conversion: Conversion, progress: ReadProgress) -> None:
    """Read an export of Label Studio into the conversion."""
    number = 0
    try:
        for piece in pieces(cast(BinaryIO, _AsMember(file))):
            for task in msgspec.json.decode(piece.text):
                if not _task(task, f"/{number}", conversion):
                    return
                number += 1
            progress(file.tell())
    except (Unreadable, *REFUSED) as error:
        problem = f"it is no JSON, after {number} tasks: {error}"
        conversion.issues.add("", problem, _AGAIN)


class _AsMember:
    """A file of a list as one of an object, whose member it is: those are read in pieces."""

    def __init__(self, file: BinaryIO) -> None:
        bom = file.read(3)
        rest = (b"" if bom == b"\xef\xbb\xbf" else bom,)
        self._parts: Iterator[BinaryIO] = chain(
            (io.BytesIO(b'{"tasks":'), io.BytesIO(*rest), file, io.BytesIO(b"}"))
        )
        self._part = next(self._parts)

    def read(self, size: int) -> bytes:
        while not (block := self._part.read(size)):
            following = next(self._parts, None)
            if following is None:
                return b""
            self._part = following
        return block


def _task(task: Any, place: str, conversion: Conversion) -> bool:
    """False where it is no task at all, and so the file none of Label Studio's."""
    if not (isinstance(task, dict) and isinstance(task.get("data"), dict)):
        problem = "it is a list, but not of Label Studio's tasks"
        conversion.issues.add(place, problem, f"{_AGAIN} (not JSON-MIN), or send COCO")
        return False
    name = _file_name(task["data"])
    if name is None:
        conversion.issues.add(f"{place}/data", "the task names no image", "label images")
        return True
    annotations = task.get("annotations") or []
    if not isinstance(annotations, list):
        conversion.issues.add(f"{place}/annotations", "it should be a list", _AGAIN)
        return True
    kept = [
        (f"{place}/annotations/{number}/result", annotation["result"])
        for number, annotation in enumerate(annotations)
        if isinstance(annotation, dict)
        and isinstance(annotation.get("result"), list)
        and not annotation.get("was_cancelled")
    ]
    if not kept and (unused := _unused(task)):
        conversion.skip(place, f"its points are {unused}", "submit them in Label Studio first")
    if len(kept) > 1:
        problem = f"there are {len(kept)} annotations of this task; the last one is taken"
        conversion.warnings.add(f"{place}/annotations", problem, "")
    pointer, results = kept[-1] if kept else ("", [])
    results = [r if isinstance(r, dict) else {} for r in results]
    size = next((s for r in results if (s := _size(r)) is not None), None)
    id_ = task.get("id")
    id_ = id_ if isinstance(id_, int) else None
    image_id = conversion.image(name, size, place, id_, _address(task["data"]))
    regions = _Regions(results)
    for number, result in enumerate(results):
        _result(result, regions, image_id, size, f"{pointer}/{number}", conversion)
    return True


def _unused(task: dict[str, Any]) -> str:
    """What a task without a submitted annotation has results of; empty where there are none."""
    kinds = {"annotations": "of an annotation that was skipped", "predictions": "predictions alone"}
    for name, what in kinds.items():
        entries = task.get(name)
        if isinstance(entries, list) and any(
            isinstance(e, dict) and e.get("result") for e in entries
        ):
            return what
    return ""


class _Regions:
    """What results of one annotation say of each other: they share ids, or name a parent."""

    def __init__(self, results: list[dict[str, Any]]) -> None:
        self._parents: dict[str, str] = {}
        self._labels: dict[str, list[Any]] = {}
        self._keypoints: set[str] = set()
        self._outer: set[str] = set()
        for result in results:
            id_, parent = _text(result, "id"), _text(result, "parentID")
            kind, value = _text(result, "type"), result.get("value")
            if id_ and parent:
                self._parents[id_] = parent
                self._outer.add(parent)
            if id_ and kind in _KEYPOINTS + _RECTANGLES:
                self._keypoints.add(id_)
            labels = value.get(kind) if isinstance(value, dict) else None
            if id_ and kind in _LABELS and isinstance(labels, list):
                self._labels.setdefault(id_, []).extend(labels)

    def labels(self, result: dict[str, Any]) -> list[Any]:
        """The classes of a region: its own, or those of a tag for all kinds of regions."""
        value = result["value"].get(
            _RECTANGLES[0] if _text(result, "type") in _RECTANGLES else _KEYPOINTS[0]
        )
        own = value if isinstance(value, list) else []
        return own or self._labels.get(_text(result, "id"), [])

    def label_of_another(self, result: dict[str, Any]) -> bool:
        """Whether a result is only the class of a keypoint."""
        return _text(result, "type") in _LABELS and _text(result, "id") in self._keypoints

    def group(self, result: dict[str, Any]) -> str | None:
        """What the keypoints of one object have in common: the outermost region around them."""
        id_, visited = _text(result, "id"), set[str]()
        if id_ not in self._parents and id_ not in self._outer:
            return None
        while id_ in self._parents and id_ not in visited:
            visited.add(id_)
            id_ = self._parents[id_]
        return id_


def _text(result: dict[str, Any], name: str) -> str:
    """A member that should be a text; empty where it is none."""
    value = result.get(name)
    return value if isinstance(value, str) else ""


def _result(
    result: dict[str, Any],
    regions: _Regions,
    image_id: int,
    image_size: tuple[int, int] | None,
    place: str,
    conversion: Conversion,
) -> None:
    kind = result.get("type")
    value = result["value"] if isinstance(result.get("value"), dict) else {}
    labels = regions.labels({**result, "value": value})
    rectangle = kind in _RECTANGLES
    if rectangle and (value.get("rotation") or not labels):
        conversion.left_out[f"rotated {kind}" if labels else str(kind)] += 1
        return
    if (kind not in _KEYPOINTS and not rectangle) or result.get("is_positive") in (0, False):
        if isinstance(kind, str) and not regions.label_of_another(result):
            conversion.left_out[kind if kind not in _KEYPOINTS else f"negative {kind}"] += 1
        return
    size = _size(result) or image_size
    names = ("x", "y", "width", "height") if rectangle else ("x", "y")
    if size is None or not all(_is_number(value.get(name)) for name in names):
        problem = f"{', '.join(names)}, original_width or original_height is missing"
        conversion.skip(place, problem, _AGAIN)
    elif len(labels) != 1 or not isinstance(labels[0], str):
        what = "rectangle" if rectangle else "keypoint"
        problem = f"a {what} with {len(labels) or 'no'} labels"
        conversion.skip(place, problem, f"give each {what} one label")
    elif result.get("image_rotation"):
        conversion.issues.add(place, "the image was rotated", "label it as it is stored")
    else:
        box = None
        try:
            point = x, y = value["x"] / 100 * size[1], value["y"] / 100 * size[0]
            if rectangle:
                across, down = value["width"] / 100 * size[1], value["height"] / 100 * size[0]
                box = (x, y, x + across, y + down)
        except OverflowError:
            conversion.skip(place, "x, y or the size is no number of an image", _AGAIN)
        else:
            points = [] if rectangle else [point]
            conversion.object(image_id, labels[0], points, place, regions.group(result), box)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _size(result: dict[str, Any]) -> tuple[int, int] | None:
    height, width = result.get("original_height"), result.get("original_width")
    if isinstance(height, int) and isinstance(width, int) and height > 0 and width > 0:
        return height, width
    return None


def _address(data: dict[str, Any]) -> str | None:
    """Of the task's image: the member `image`, or the one that looks like an image's address."""
    texts = {key: value for key, value in data.items() if isinstance(value, str)}
    looks = [v for v in texts.values() if PurePosixPath(relative(v)).suffix.lower() in _SUFFIXES]
    return texts.get("image") or (looks[0] if looks else None)


def _file_name(data: dict[str, Any]) -> str | None:
    """The name that the task's image had before it was uploaded, or came from a URL."""
    address = _address(data)
    if address is None:
        return None
    path = relative(address)
    if "/upload/" in f"/{address}":
        return without_upload_prefix(PurePosixPath(path).name)
    local = "://" not in address or "/local-files/?" in address
    return path if local else PurePosixPath(path).name
