"""YOLO: a text for each image, a line for each object, in shares of the image's size.

A line is a class and a box; a class and a polygon, which is as in COCO a box and ground truth; a
class, a box and keypoints, where data.yaml has a kpt_shape; or a class and a point. Pixels need the
sizes of the images, so the texts are read after these (`Unsized`). Places are FILE:3, by line.
"""

import posixpath
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import takewhile
from pathlib import Path
from typing import Any

from sapnet.data.importers.base import Conversion
from sapnet.data.subsets import SUBSETS, strictest, subset_named
from sapnet.types import Subset

_LARGEST = 64 << 20  # bytes of a text
_LARGEST_YAML = 1 << 20
_MOST_ENTRIES = 1_000  # of a subset in data.yaml
_DEEPEST = 8  # parts of a path, from its end, that lists are looked up by
_KEYS = {"train": "train", "val": "val", "valid": "val", "validation": "val", "test": "test"}
_BOX = 4
_AGAIN = "a line is: class x y width height, or class x1 y1 x2 y2 …, in shares of the image"


class NotYolo(ValueError):
    """Its data.yaml cannot be used. The message says why."""


@dataclass(frozen=True)
class YoloFolder:
    """The files of a data set.

    Attributes:
        classes: names by number.
        labels: texts, by the image that each is of: a path, with or without a suffix.
        subsets: by that path.
        keypoints: numbers of a line's keypoints, and of each; None where it has none.
        unread: lists of images that are named but not there, or too long.
    """

    classes: Mapping[int, str]
    labels: Mapping[str, tuple[str, Path]]
    subsets: Mapping[str, Subset | None]
    keypoints: tuple[int, int] | None
    unread: Sequence[str] = ()

    def convert(
        self, conversion: Conversion, images: Mapping[str, tuple[str, tuple[int, int] | None]]
    ) -> None:
        """Read all labels.

        Args:
            images: by path, what the image is called and its size (h, w); None where it is not
                known, and the image then is without objects.
        """
        for number in sorted(self.classes):
            conversion.label(self.classes[number])
        for image, (file, path) in self.labels.items():
            name, size = images.get(image, (image, None))
            subset_here = self.subsets.get(image)
            image_id = conversion.image(name, size, file, named_subset=subset_here)
            if path.stat().st_size > _LARGEST:
                conversion.issues.add(file, f"it has more than {_LARGEST:,} bytes", "split it")
            elif size is not None:
                lines = path.read_text(errors="replace").splitlines()
                for number, line in enumerate(lines, 1):
                    if words := line.split():
                        self._object(words, image_id, size, f"{file}:{number}", conversion)

    def _object(
        self,
        words: list[str],
        image_id: int,
        size: tuple[int, int],
        place: str,
        conversion: Conversion,
    ) -> None:
        try:
            label = self.classes[int(words[0])]
        except (KeyError, ValueError):
            problem = f"{words[0][:40]!r} is the number of no class that data.yaml names"
            conversion.issues.add(place, problem, "correct it, or name the class")
            return
        try:
            shares = [float(word) for word in words[1:]]
        except ValueError:
            conversion.skip(place, "it holds what is no number", _AGAIN)
            return
        height, width = size
        if self.keypoints is not None and len(shares) == _BOX + self._keypoint_numbers:
            points = [
                (x * width, y * height)
                for x, y, *visible in _chunks(shares[_BOX:], self.keypoints[1])
                if (visible[0] > 0 if visible else (x, y) != (0, 0))
            ]
            box = _pixels(shares[:_BOX], size)
            conversion.object(image_id, label, points, place, box=box)
        elif len(shares) == 2:
            point = (shares[0] * width, shares[1] * height)
            conversion.object(image_id, label, [point], place)
        elif len(shares) == _BOX:
            conversion.object(image_id, label, [], place, box=_pixels(shares, size))
        elif len(shares) >= 6 and len(shares) % 2 == 0:
            corners = [(x * width, y * height) for x, y in _chunks(shares, 2)]
            conversion.polygon(image_id, label, corners, place)
        else:
            conversion.skip(place, f"it has {len(shares)} numbers after its class", _AGAIN)

    @property
    def _keypoint_numbers(self) -> int:
        return self.keypoints[0] * self.keypoints[1] if self.keypoints else 0


def _chunks(numbers: Sequence[float], size: int) -> list[Sequence[float]]:
    return [numbers[start : start + size] for start in range(0, len(numbers), size)]


def _pixels(shares: Sequence[float], size: tuple[int, int]) -> tuple[float, float, float, float]:
    x, y, across, down = shares
    height, width = size
    left, top = (x - across / 2) * width, (y - down / 2) * height
    return left, top, left + across * width, top + down * height


def open_folder(files: Mapping[str, Path]) -> YoloFolder:
    """Read what says how a data set is laid out: data.yaml, or classes.txt.

    Args:
        files: texts and YAML, by their path.

    Raises:
        NotYolo: there is none, or it is wrong.
    """
    described, classes, keypoints = _described(files)
    texts = {name: path for name, path in files.items() if name.lower().endswith(".txt")}
    entries, lists, unread = _entries(described, texts)
    labels = {name: path for name, path in texts.items() if "labels" in name.split("/")[:-1]}
    if not labels:  # beside their images
        others = {"classes.txt", "readme.txt", *(posixpath.basename(name) for name, _ in lists)}
        labels = {n: p for n, p in texts.items() if posixpath.basename(n).lower() not in others}
    if not labels:
        raise NotYolo("there is no text of labels")
    listed = _by_tail(lists)
    of_image: dict[str, tuple[str, Path]] = {}
    subsets: dict[str, Subset | None] = {}
    for name, path in sorted(labels.items()):
        image = _image_of(name)
        of_image[image] = (name, path)
        tails = (tail for tail in _tails(image) if tail in listed)
        subset = next((listed[tail] for tail in tails), None)
        subsets[image] = subset or _subset_of(posixpath.dirname(image), entries)
    return YoloFolder(classes, of_image, subsets, keypoints, unread)


def _described(
    files: Mapping[str, Path],
) -> tuple[dict[str, Any], dict[int, str], tuple[int, int] | None]:
    """data.yaml, and what it says of classes and keypoints."""
    for name, path in sorted(files.items(), key=lambda item: (item[0].count("/"), item[0])):
        if name.lower().endswith((".yaml", ".yml")):
            document = _yaml(name, path)
            if isinstance(document, dict) and "names" in document:
                return document, _classes(name, document["names"]), _keypoints(name, document)
    for name, path in files.items():
        if posixpath.basename(name).lower() == "classes.txt":
            lines = path.read_text(errors="replace")[:_LARGEST_YAML].splitlines()
            return {}, {n: line.strip() for n, line in enumerate(lines) if line.strip()}, None
    raise NotYolo("there is no data.yaml with names")


def _yaml(name: str, path: Path) -> Any:
    import yaml

    if path.stat().st_size > _LARGEST_YAML:
        raise NotYolo(f"{name} has more than {_LARGEST_YAML:,} bytes")
    try:
        # all scalars are texts: yes, 012 and 1:30 are classes, which YAML 1.1 makes something else
        return yaml.load(path.read_bytes(), yaml.BaseLoader)
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise NotYolo(f"{name} is no YAML: {str(error)[:200]}") from None


def _classes(name: str, names: Any) -> dict[int, str]:
    named = dict(enumerate(names)) if isinstance(names, list) else names
    pairs = named.items() if isinstance(named, dict) else ()
    classes = {_whole(number): label for number, label in pairs}
    right = all(n is not None and isinstance(c, str) and c for n, c in classes.items())
    if not classes or not right:
        raise NotYolo(f"the names in {name} are no list of classes")
    return {number: label for number, label in classes.items() if number is not None}


def _keypoints(name: str, document: Mapping[str, Any]) -> tuple[int, int] | None:
    shape = document.get("kpt_shape")
    if shape in (None, "", "null", "~"):
        return None
    numbers = [_whole(n) or 0 for n in shape] if isinstance(shape, list) else []
    if len(numbers) != 2 or not 0 < numbers[0] <= 1000 or numbers[1] not in (2, 3):
        raise NotYolo(f"the kpt_shape in {name} is not [count, 2] or [count, 3]")
    return numbers[0], numbers[1]


def _whole(value: Any) -> int | None:
    """A whole number, also as a text; None for anything else."""
    text = str(value)
    return int(text) if text.isascii() and text.isdigit() and len(text) < 10 else None


def _entries(
    described: Mapping[str, Any], texts: Mapping[str, Path]
) -> tuple[list[tuple[tuple[str, ...], Subset]], dict[tuple[str, Subset], list[str]], list[str]]:
    """Folders of each subset, as parts of paths; lists of images, by file; lists not there."""
    folders: list[tuple[tuple[str, ...], Subset]] = []
    lists: dict[tuple[str, Subset], list[str]] = {}
    unread: list[str] = []
    named: dict[str, list[str]] = {}
    for text in texts:
        named.setdefault(posixpath.basename(text), []).append(text)
    for key in _KEYS:
        value, subset = described.get(key), subset_named(key)
        for entry in value[:_MOST_ENTRIES] if isinstance(value, list) else [value]:
            if not isinstance(entry, str) or subset is None:
                continue
            parts = _parts(entry)
            if entry.lower().endswith(".txt"):
                alike = named.get(parts[-1] if parts else "", [])
                name = max(alike, key=lambda text: _shared(_parts(text), parts), default=None)
                if name is None or texts[name].stat().st_size > _LARGEST:
                    unread.append(entry)  # as of the test images that a benchmark keeps to itself
                else:
                    lists[name, subset] = texts[name].read_text(errors="replace").splitlines()
            elif parts:
                folders.append((parts, subset))
    return folders, lists, unread


def _parts(path: str) -> tuple[str, ...]:
    return tuple(p for p in path.replace("\\", "/").split("/") if p not in ("", ".", ".."))


def _shared(one: Sequence[str], other: Sequence[str]) -> int:
    """How many parts two paths have in common at their ends."""
    pairs = zip(reversed(one), reversed(other), strict=False)
    return sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], pairs))


def _tails(image: str) -> Iterator[str]:
    """The path of an image without its suffix, and its ends: the longest first.

    A list may have been written in another folder, or on another machine.
    """
    parts = _parts(image)
    for start in range(max(len(parts) - _DEEPEST, 0), len(parts)):
        yield "/".join(parts[start:])


def _by_tail(lists: Mapping[tuple[str, Subset], Sequence[str]]) -> dict[str, Subset]:
    """The subset of each image in lists, by every end of its path; of several the strictest."""
    subsets: dict[str, set[Subset]] = {}
    for (_, subset), lines in lists.items():
        for line in lines:
            for tail in _tails(posixpath.splitext(line.strip())[0]):
                subsets.setdefault(tail, set()).add(subset)
    return {tail: strictest(named) for tail, named in subsets.items()}


def _image_of(label: str) -> str:
    """The path of a label's image, without its suffix: the last `labels` in it is `images`."""
    *folders, base = label.split("/")
    for index in reversed(range(len(folders))):
        if folders[index] == "labels":
            folders[index] = "images"
            break
    return "/".join([*folders, posixpath.splitext(base)[0]])


def _subset_of(folder: str, entries: Sequence[tuple[tuple[str, ...], Subset]]) -> Subset | None:
    """The subset whose folder fits best: whose longest tail is within the path.

    None where none fits, or two fit equally well, as where val is train.
    """
    own = _parts(folder)
    best: dict[Subset, int] = {}
    for parts, subset in entries:
        tails = (parts[start:] for start in range(len(parts)))
        length = next((len(tail) for tail in tails if _within(tail, own)), 0)
        best[subset] = max(best.get(subset, 0), length)
    longest = max(best.values(), default=0)
    matching = [subset for subset in SUBSETS if longest and best.get(subset) == longest]
    return matching[0] if len(matching) == 1 else None


def _within(tail: Sequence[str], path: Sequence[str]) -> bool:
    return any(
        tuple(path[start : start + len(tail)]) == tuple(tail)
        for start in range(len(path) - len(tail) + 1)
    )
