"""From an uploaded form to checked files on disk. Touches neither database nor storage."""

import os
import unicodedata
from collections.abc import Callable, Iterable
from contextlib import closing
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path, PurePosixPath

from app.datasets import archives
from app.errors import Fault
from app.http.multipart import FilePart
from app.storage.decode_budget import DECODING, IMPORT_PATIENCE
from sapnet.data.images import ImageProblem, Inspection, inspect, read_header
from sapnet.utils.files import file_sha256

_EXACT, _BY_SUFFIX, _BY_BASENAME = range(3)  # how well a file's name fits, best first
EXAMPLES = 10

Tell = Callable[[str, int, int], None]
"""Called now and then with a stage, a step and of how many. What it raises ends the work."""


@dataclass(frozen=True, slots=True)
class Picture:
    """A file that was sent for one image of the document. seen: what is in it, or in words why it
    is none."""

    sent_as: str
    path: Path
    sha: str
    seen: Inspection | str
    fit: int

    @property
    def size(self) -> tuple[int, int] | None:
        """(h, w), as stored."""
        return None if isinstance(self.seen, str) else self.seen.size


@dataclass
class Pictures:
    """by_name: file_name of the document -> its file. ignored: files the document does not name.
    unread: archives that were refused; what they hold is neither there nor missing."""

    by_name: dict[str, Picture] = field(default_factory=dict)
    faults: list[Fault] = field(default_factory=list)
    unread: int = 0
    ignored: int = 0
    ignored_examples: list[str] = field(default_factory=list)

    @property
    def found(self) -> dict[str, tuple[int, int] | str]:
        """For `check_against_images`: the size, or in words what is wrong."""
        return {
            n: p.seen if isinstance(p.seen, str) else p.seen.size for n, p in self.by_name.items()
        }

    @property
    def inspected(self) -> dict[str, Inspection]:
        """What is in the files that are images, by file_name."""
        return {n: p.seen for n, p in self.by_name.items() if not isinstance(p.seen, str)}


class _Names:
    """Which of the document's file names a sent file is meant for."""

    def __init__(self, names: list[str]) -> None:
        self._exact = {_plain(name): name for name in names}
        self._basenames: dict[str, str | None] = {}
        for name in names:
            base = PurePosixPath(_plain(name)).name
            self._basenames[base] = None if base in self._basenames else name

    def match(self, sent: str) -> tuple[str, int] | None:
        """The document's name and how well it fits: the same path, the end of the path (an
        archive of a folder), or the same basename where only one image has it."""
        parts = PurePosixPath(_plain(sent)).parts
        for start in range(len(parts)):
            name = self._exact.get("/".join(parts[start:]))
            if name is not None:
                return name, _BY_SUFFIX if start else _EXACT
        name = self._basenames.get(parts[-1]) if parts else None
        return (name, _BY_BASENAME) if name is not None else None


def collect(
    parts: Iterable[FilePart],
    names: list[str],
    folder: Path,
    limits: archives.Limits,
    max_pixels: int,
    tell: Tell,
) -> Pictures:
    """Find the images `names` in the parts (archives and single files) and prove each one.

    Archives are removed once they are read; files that nobody asked for are never unpacked.
    tell: called before each file, with how many images there are of how many.
    """
    wanted, pictures, numbers = _Names(names), Pictures(), count()
    for part in parts:
        tell("images", len(pictures.by_name), len(names))
        if not _archived(part):
            _offer(pictures, wanted, part.filename, part.path, max_pixels)
            continue
        try:
            with closing(archives.members(part.path, limits)) as members:
                for member in members:
                    tell("images", len(pictures.by_name), len(names))
                    if wanted.match(member.name) is None:
                        _ignore(pictures, member.name)
                        continue
                    path = folder / f"image-{next(numbers)}"
                    with path.open("wb") as file:
                        file.writelines(member.chunks())
                    _offer(pictures, wanted, member.name, path, max_pixels)
        except archives.ArchiveProblem as error:
            pictures.unread += 1
            detail = f"the archive {part.filename!r} is refused: {error}"
            hint = "pack it anew as a plain zip or tar, or send the images one by one"
            pictures.faults.append(Fault("images", "", detail, hint))
        part.path.unlink()
    return pictures


def _archived(part: FilePart) -> bool:
    """By content, and for what calls itself an archive, by name (the reader then says why not)."""
    named = part.filename.lower().endswith((".zip", ".tar", ".tgz", ".tar.gz"))
    return named or archives.is_archive(part.path)


def _offer(pictures: Pictures, wanted: _Names, sent_as: str, path: Path, max_pixels: int) -> None:
    """Take a file for the image it fits. The better fit wins; equal fits must be equal files."""
    match = wanted.match(sent_as)
    if match is None:
        _ignore(pictures, sent_as)
        path.unlink()
        return
    name, fit = match
    before = pictures.by_name.get(name)
    if before is not None and before.fit < fit:
        _ignore(pictures, sent_as)
        path.unlink()
        return
    sha = file_sha256(path)
    if before is not None and before.fit == fit and before.sha != sha:
        detail = f"both {before.sent_as!r} and {sent_as!r} could be the image {name!r}"
        hint = "send only one of them, or use its whole path as file_name"
        pictures.faults.append(Fault("images", "", detail, hint))
    if before is not None and before.fit > fit:
        _ignore(pictures, before.sent_as)
    if before is not None:
        before.path.unlink()
    pictures.by_name[name] = Picture(sent_as, path, sha, proven(path, max_pixels), fit)


def proven(path: Path, max_pixels: int) -> Inspection | str:
    """What is in an image, or in words why it is none."""
    try:
        height, width = read_header(path, max_pixels).size
        with DECODING.room(height * width, IMPORT_PATIENCE):
            return inspect(path, max_pixels)
    except ImageProblem as error:
        return str(error)


def _ignore(pictures: Pictures, name: str) -> None:
    pictures.ignored += 1
    if len(pictures.ignored_examples) < EXAMPLES:
        pictures.ignored_examples.append(name)


def _plain(name: str) -> str:
    """One spelling for one name: slashes, no leading ./, composed accents (macOS splits them)."""
    path = PurePosixPath(unicodedata.normalize("NFC", name.replace("\\", "/")))
    return os.fspath(path)


def media_type(head: bytes) -> str:
    """Of a proven image, by its first 12 bytes. One of `sapnet.data.images.FORMATS`."""
    for magic, kind in (
        (b"\xff\xd8", "image/jpeg"),
        (b"\x89PNG", "image/png"),
        (b"BM", "image/bmp"),
        (b"RIFF", "image/webp"),
    ):
        if head.startswith(magic):
            return kind
    return "image/tiff"
