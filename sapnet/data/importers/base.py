"""A COCO points document as it is made from another tool's file, and the way back for messages."""

import math
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import chain
from pathlib import Path
from typing import Any, Self

import msgspec

from sapnet.data.annotations.boxes import xywh
from sapnet.data.annotations.decoding import Issues
from sapnet.data.file_names import relative
from sapnet.data.file_pairing import in_words
from sapnet.data.subsets import told_apart
from sapnet.errors import ValidationIssue
from sapnet.types import Box, Subset

_KIND = 40  # characters of a kind of shape in a message
_POINTER = re.compile(r"/(images|annotations|categories)(?:/(\d+))?[/\w]*")


@dataclass(frozen=True)
class Converted:
    """A COCO points document, and what was found on the way.

    Attributes:
        path: the COCO document.
        issues: what is wrong with the source, in its own terms.
        warnings: odd but legal.
        places: of the document's lists, where in the source each record comes from.
    """

    path: Path
    issues: list[ValidationIssue]
    warnings: list[ValidationIssue]
    places: Mapping[str, Sequence[str]]

    def translated(self, issues: list[ValidationIssue]) -> list[ValidationIssue]:
        """Issues of the document, as ones of the source."""
        return [
            replace(
                issue,
                pointer=self._place(issue.pointer),
                problem=_POINTER.sub(lambda m: self._place(m.group()) or "it", issue.problem),
            )
            for issue in issues
        ]

    def _place(self, pointer: str) -> str:
        match = _POINTER.fullmatch(pointer)
        if match is None or match.group(2) is None:
            return ""
        places = self.places.get(match.group(1), [])
        index = int(match.group(2))
        return places[index] if index < len(places) else ""


@dataclass
class Conversion:
    """Takes images and points as a reader finds them, and writes points at once."""

    target: Path
    issues: Issues = field(default_factory=Issues)
    warnings: Issues = field(default_factory=Issues)
    left_out: Counter[str] = field(default_factory=Counter)
    """Shapes that are neither points nor boxes, by their kind."""
    labels: dict[str, int] = field(default_factory=dict)
    """Classes that the source names, whether or not a point has them -> category id."""
    _images: dict[int, dict[str, Any]] = field(default_factory=dict)
    _last_id: int = 0
    _sizes: dict[int, tuple[int, int]] = field(default_factory=dict)
    _named_subsets: dict[int, Subset | None] = field(default_factory=dict)
    _folders: dict[int, str] = field(default_factory=dict)
    _skipped: Issues = field(default_factory=Issues)
    _used: set[str] = field(default_factory=set)
    _places: dict[str, list[str]] = field(default_factory=lambda: {"images": [], "annotations": []})

    def __enter__(self) -> Self:
        self._file = self.target.open("wb")
        # who draws in one of these tools sees the image as its EXIF orientation has it shown
        self._file.write(b'{"info":{"frame":"upright"},"annotations":[')
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def label(self, name: str) -> int:
        """The category id of a class."""
        return self.labels.setdefault(name, len(self.labels) + 1)

    def image(
        self,
        file_name: str,
        size: tuple[int, int] | None,
        place: str,
        id_: int | None = None,
        address: str | None = None,
        *,
        subset: Subset | None = None,
        named_subset: Subset | None = None,
        folder: str = "",
    ) -> int:
        """Add an image.

        Args:
            file_name: any path of it; what is kept is relative.
            size: (h, w) as the source has it.
            id_: as the source has it.
            address: where the source has the image; it tells images of one name apart.
            subset: as the source states it.
            named_subset: as names of files or folders have it: see `told_apart`.
            folder: it tells images of one name apart too.

        Returns:
            Its id: the source's own where that is free.
        """
        if id_ is None or id_ in self._images:
            id_ = self._last_id + 1
        self._last_id = max(self._last_id, id_)
        self._images[id_] = {"id": id_, "file_name": relative(_encodable(file_name))}
        if address is not None:
            self._images[id_]["url"] = _encodable(address)
        if size is not None:
            self._images[id_] |= {"width": size[1], "height": size[0]}
            self._sizes[id_] = size
        if subset is not None:
            self._images[id_]["subset"] = subset
        self._named_subsets[id_] = subset or named_subset
        self._folders[id_] = folder
        self._places["images"].append(place)
        return id_

    def polygon(
        self, image_id: int, label: str, corners: Sequence[tuple[float, float]], place: str
    ) -> None:
        """Add an object whose outline is known: its box counts, its mask is ground truth.

        So it is with COCO's instances, which have both.
        """
        numbers = list(chain(*corners))
        if len(corners) < 3 or not all(map(math.isfinite, numbers)):
            self.skip(place, "its polygon has fewer than three corners", "draw it anew")
            return
        xs, ys = numbers[0::2], numbers[1::2]
        box = (min(xs), min(ys), max(xs), max(ys))
        self.object(image_id, label, [], place, box=box, outline=numbers)

    def object(
        self,
        image_id: int,
        label: str,
        points: Sequence[tuple[float, float]],
        place: str,
        group: int | str | None = None,
        box: Box | None = None,
        outline: list[float] | None = None,
    ) -> None:
        """Add an object.

        Args:
            points: x and y in pixels, of one or of several points of this object.
            group: of the objects of one image and class that have the same one, all are one.
            box: xyxy in pixels, its corners in any order; then there may be no point.
            outline: x and y of a polygon, ground truth.
        """
        if not (points or box) or not all(map(math.isfinite, chain(*points, box or ()))):
            self.skip(place, "it has no point", "draw it anew, or remove it")
            return
        if box is not None:
            left, right, top, bottom = *sorted(box[0::2]), *sorted(box[1::2])
            box = (left, top, right, bottom)
            if left == right or top == bottom:
                self.skip(place, "the box has no area", "draw it anew, or remove it")
                return
        if _encodable(label) != label or _encodable(str(group)) != str(group):
            self.skip(place, "its class or group holds characters that are no text", "rename it")
            return
        places = self._places["annotations"]
        size = self._sizes.get(image_id)
        pairs = [_on_last_pixel(point, size) if size else list(point) for point in points]
        record: dict[str, Any] = {"id": len(places) + 1, "image_id": image_id}
        if pairs:
            record |= {"point": pairs[0]} if len(pairs) == 1 else {"points": pairs}
        record |= {} if box is None else {"bbox": xywh(box)}
        record |= {"category_id": self.label(label)}
        record |= {} if outline is None else {"segmentation": [outline]}
        record |= {} if group is None else {"group_id": group}
        self._file.write(b",\n" if places else b"")
        self._file.write(msgspec.json.encode(record))
        self._used.add(label)
        places.append(place)

    def _tell_apart(self) -> None:
        """Images of one name get the path that their address has, or their folder before it."""
        count = Counter(image["file_name"] for image in self._images.values())
        for id_, image in self._images.items():
            if count[image["file_name"]] > 1 and "url" in image:
                image["file_name"] = relative(image["url"])
            elif count[image["file_name"]] > 1 and self._folders[id_]:
                image["file_name"] = f"{self._folders[id_]}/{image['file_name']}"

    def skip(self, place: str, problem: str, hint: str) -> None:
        """Leave out an object that cannot be read; it is an issue where no other is left."""
        self._skipped.add(place, problem, hint)

    def finish(self) -> Converted:
        """Write what is left of the document, and close it."""
        self._tell_apart()
        for id_, subset in told_apart(self._named_subsets).items():
            self._images[id_]["subset"] = subset
        categories = [{"id": i, "name": n} for n, i in self.labels.items() if n in self._used]
        lists = {"images": list(self._images.values()), "categories": categories}
        self._file.write(b"]," + msgspec.json.encode(lists)[1:])
        self._file.close()
        kinds = self.left_out.most_common()
        others = in_words([f"{count} of {kind[:_KIND]}" for kind, count in kinds]) if kinds else ""
        empty = not self._places["annotations"]
        for issue in self._skipped.listed():
            if empty:
                self.issues.add(issue.pointer, issue.problem, issue.hint)
            else:
                self.warnings.add(issue.pointer, f"left out: {issue.problem}", issue.hint)
        if empty and not self.issues.total:
            problem = "there is no point and no box in it" + (f", only {others}" if others else "")
            self.issues.add("", problem, "draw a point on each object, or a box round it")
        elif others:
            problem = f"left out, since they are neither points nor boxes: {others}"
            self.warnings.add("", problem, "")
        return Converted(self.target, self.issues.listed(), self.warnings.listed(), self._places)


def _on_last_pixel(point: tuple[float, float], size: tuple[int, int]) -> list[float]:
    """Tools let people click on the right and lower border: that is the pixel beside it."""
    height, width = size
    x, y = point
    return [width - 0.5 if x == width else x, height - 0.5 if y == height else y]


def _encodable(text: str) -> str:
    """A text without lone surrogates, which JSON may hold and no file."""
    return text.encode("utf-8", "replace").decode()
