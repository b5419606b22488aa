"""Several COCO documents of one dataset, as a rule one for each subset, made into one.

Records keep all of their members. Ids stay where no two files share one; else those of each later
file are moved up. Places are FILE#/annotations/3.
"""

import posixpath
from array import array
from bisect import bisect_right
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO, overload

import msgspec
import numpy as np
import numpy.typing as npt

from sapnet.data.annotations.coco import read_points
from sapnet.data.annotations.decoding import REFUSED, Issues, ReadProgress
from sapnet.data.annotations.frames import stated_frame
from sapnet.data.annotations.json_stream import Unreadable, pieces
from sapnet.data.file_names import is_address
from sapnet.data.importers.base import Converted
from sapnet.data.orientation import Frame
from sapnet.data.subsets import by_subset, subset_of_path, told_apart
from sapnet.errors import ValidationIssue

Record = dict[str, msgspec.Raw]
ANNOTATIONS_FOLDER = "annotations"
_LARGEST_ID = 2**62


class _Id(msgspec.Struct, gc=False):
    id: Any = None


@dataclass
class _Source:
    """A document: its short lists, and the ids of its annotations."""

    name: str
    path: Path
    images: list[Record] = field(default_factory=list)
    categories: list[Record] = field(default_factory=list)
    ids: npt.NDArray[np.int64] = field(default_factory=lambda: np.zeros(0, np.int64))
    frame: Frame = "stored"

    def read(self) -> None:
        """Raises Unreadable, or one of REFUSED."""
        ids = array("q")
        with self.path.open("rb") as file:
            for piece in pieces(file):
                if piece.key in ("images", "categories"):
                    records = msgspec.json.decode(piece.text, type=list[Record])
                    getattr(self, piece.key).extend(records)
                elif piece.key == "info":
                    self.frame = stated_frame(msgspec.json.decode(piece.text))
                elif piece.key == "annotations":
                    entries = msgspec.json.decode(piece.text, type=list[_Id])
                    ids.extend(entry.id for entry in entries if _is_id(entry.id))
        self.ids = np.array(ids, np.int64)


def merge(files: Sequence[tuple[str, Path]], target: Path, progress: ReadProgress) -> Converted:
    """Write the documents as one to `target`.

    Args:
        files: names, which tell subsets apart and are put before the names of images in folders of
            their own; and paths.
    """
    sources = [_Source(name, path) for name, path in sorted(files, key=by_subset)]
    issues: list[ValidationIssue] = []
    for source in sources:
        try:
            source.read()
        except (Unreadable, *REFUSED):  # the one reader of COCO says what is wrong
            issues += [
                ValidationIssue(f"{source.name}#{issue.pointer}", issue.problem, issue.hint)
                for issue in read_points(source.path).issues
            ] or [ValidationIssue(f"{source.name}#", "it cannot be read", "write it anew")]
    if issues:
        return Converted(target, issues, [], {})
    warnings = Issues()
    image_steps = _steps([_ids(source.images) for source in sources], "image", warnings)
    annotation_steps = _steps([source.ids for source in sources], "annotation", warnings)
    categories, mappings = _categories(sources, warnings)
    places = {"images": _Places("images"), "annotations": _Places("annotations")}
    frame = _frame(sources, warnings)
    with target.open("wb") as file:
        file.write(b'{"info":' + msgspec.json.encode({"frame": frame}) + b',"images":[')
        _write_images(file, sources, image_steps, places["images"])
        file.write(b'],"categories":' + msgspec.json.encode(categories) + b',"annotations":[')
        done, first = 0, True
        for number, source in enumerate(sources):
            steps = {"id": annotation_steps[number], "image_id": image_steps[number]}
            places["annotations"].begin(source.name)
            for records in _annotations(source):
                for record in records:
                    _move(record, steps)
                    if (raw := record.get("category_id")) and (id_ := _number(raw)) is not None:
                        moved = mappings[number]
                        # a class that the file does not have must not become another file's
                        unknown = len(categories) + 1 + abs(id_) if moved else id_
                        record["category_id"] = _raw(moved.get(id_, unknown))
                places["annotations"].add(len(records))
                encoded = msgspec.json.encode(records)[1:-1]
                file.write((b"" if first or not encoded else b",\n") + encoded)
                first = first and not encoded
            done += source.path.stat().st_size
            progress(done)
        file.write(b"]}")
    return Converted(target, [], warnings.listed(), places)


class _Places(Sequence[str]):
    """Where each record of a list comes from, in little memory."""

    def __init__(self, kind: str) -> None:
        self._kind, self._names, self._starts = kind, list[str](), list[int]()
        self._length = 0

    def begin(self, name: str) -> None:
        """What follows is of another file."""
        self._names.append(name)
        self._starts.append(self._length)

    def add(self, count: int) -> None:
        """So many records follow."""
        self._length += count

    def __len__(self) -> int:
        return self._length

    @overload
    def __getitem__(self, index: int) -> str: ...
    @overload
    def __getitem__(self, index: slice) -> list[str]: ...
    def __getitem__(self, index: int | slice) -> str | list[str]:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(self._length))]
        number = bisect_right(self._starts, index) - 1
        return f"{self._names[number]}#/{self._kind}/{index - self._starts[number]}"


def _annotations(source: _Source) -> Iterator[list[Record]]:
    with source.path.open("rb") as file:
        for piece in pieces(file, lambda name: name != "annotations"):
            if piece.key == "annotations" and piece.listed:
                yield msgspec.json.decode(piece.text, type=list[Record])


def _write_images(
    file: BinaryIO, sources: Sequence[_Source], steps: Sequence[int], places: _Places
) -> None:
    subsets = told_apart({source.name: subset_of_path(source.name) for source in sources})
    count = Counter(name for source in sources for name in set(_names(source)))
    first = True
    for step, source in zip(steps, sources, strict=True):
        places.begin(source.name)
        subset = subsets.get(source.name)
        for record, name in zip(source.images, _names(source), strict=True):
            _move(record, {"id": step})
            if name:
                shared = count[name] > 1 and subset is not None
                record["file_name"] = _raw(f"{subset}/{name}" if shared else name)
            if subset is not None:
                record.setdefault("subset", _raw(subset))
            file.write((b"" if first else b",\n") + msgspec.json.encode(record))
            first = False
        places.add(len(source.images))


def _names(source: _Source) -> list[str]:
    """The names of a file's images: below its own folder, unless that is of annotations alone."""
    folder = posixpath.dirname(source.name)
    if ANNOTATIONS_FOLDER in posixpath.basename(folder).casefold():
        folder = ""
    names = []
    for record in source.images:
        try:
            name = msgspec.json.decode(record.get("file_name", msgspec.Raw(b'""')), type=str)
        except REFUSED:
            name = ""
        plain = name.replace("\\", "/")
        within = plain.startswith(("/", f"{folder}/")) or is_address(plain)
        names.append(f"{folder}/{name}" if name and folder and not within else name)
    return names


def _categories(
    sources: Sequence[_Source], warnings: Issues
) -> tuple[list[Record], list[dict[int, int]]]:
    """The classes of all files; and for each file, its ids -> those here where they differ."""
    named = [_named(source.categories) for source in sources]
    if _agree(named):
        merged: dict[bytes, Record] = {}
        for source in sources:
            for record in source.categories:
                merged.setdefault(bytes(record.get("id", b"")), record)
        return list(merged.values()), [{} for _ in sources]
    problem = "the files give their classes different ids: classes are told apart by their names"
    warnings.add("", problem, "")
    ids: dict[str, int] = {}
    records: list[Record] = []
    for source in sources:
        for record in source.categories:
            name = bytes(record.get("name", b"")).decode(errors="replace")
            if name not in ids:
                ids[name] = len(ids) + 1
                records.append({**record, "id": _raw(ids[name])})
    return records, [{id_: ids[name] for id_, name in of_file.items()} for of_file in named]


def _named(categories: Sequence[Record]) -> dict[int, str]:
    pairs = ((_number(record.get("id")), record.get("name", b"")) for record in categories)
    return {id_: bytes(name).decode(errors="replace") for id_, name in pairs if id_ is not None}


def _agree(named: Sequence[dict[int, str]]) -> bool:
    """Whether each id means one name in all files, and each name the same ids."""
    of_id: dict[int, str] = {}
    of_name: dict[str, set[int]] = {}
    for classes in named:
        own: dict[str, set[int]] = {}
        for id_, name in classes.items():
            if of_id.setdefault(id_, name) != name:
                return False
            own.setdefault(name, set()).add(id_)
        if any(of_name.setdefault(name, ids) != ids for name, ids in own.items()):
            return False
    return True


def _frame(sources: Sequence[_Source], warnings: Issues) -> Frame:
    """What the files state, where they agree."""
    frames = {source.frame for source in sources}
    if len(frames) > 1:
        problem = "only some files state that their coordinates are on the upright image"
        hint = "state it in each (info.frame), or declare width and height of the images"
        warnings.add("", problem, hint)
    return "upright" if frames == {"upright"} else "stored"


def _steps(ids: Sequence[npt.NDArray[np.int64]], what: str, warnings: Issues) -> list[int]:
    """What is added to the ids of each file, so that no two files share one."""
    own = [np.unique(of_file) for of_file in ids]
    if len(np.unique(np.concatenate(own))) == sum(map(len, own)):
        return [0] * len(ids)
    problem = f"{what} ids of different files are equal: those of later files are moved up"
    warnings.add("", problem, f"give each {what} an id of its own to keep them")
    steps: list[int] = []
    next_id = 0
    for of_file in own:
        step = next_id - int(of_file[0]) if len(of_file) and steps else 0
        steps.append(step)
        next_id = max(next_id, int(of_file[-1]) + step + 1) if len(of_file) else next_id
    return steps


def _ids(records: Sequence[Record]) -> npt.NDArray[np.int64]:
    numbers = (_number(record.get("id")) for record in records)
    return np.array([id_ for id_ in numbers if id_ is not None], np.int64)


def _number(raw: msgspec.Raw | None) -> int | None:
    text = b"" if raw is None else bytes(raw)
    plain = text.removeprefix(b"-")
    return int(text) if plain.isdigit() and len(plain) <= 18 else None


def _is_id(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and abs(value) < _LARGEST_ID


def _move(record: Record, steps: dict[str, int]) -> None:
    for name, step in steps.items():
        if step and (id_ := _number(record.get(name))) is not None:
            record[name] = _raw(id_ + step)


def _raw(value: Any) -> msgspec.Raw:
    return msgspec.Raw(msgspec.json.encode(value))
