"""From an uploaded form to checked files on disk. Touches neither database nor storage."""

import os
import unicodedata
from collections.abc import Callable, Iterable
from contextlib import closing
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path, PurePosixPath

from app.datasets import archives
from app.errors import ValidationIssue
from app.http.multipart import FilePart
from app.storage.decode_budget import DECODING, IMPORT_PATIENCE
from sapnet.data.images import ImageProblem, Inspection, inspect, read_header
from sapnet.utils.files import file_sha256

_EXACT, _BY_SUFFIX, _BY_BASENAME = range(3)  # how well a file's name fits, best first
EXAMPLES = 10

ReportProgress = Callable[[str, int, int], None]
"""Called now and then with a stage, a step and of how many. What it raises ends the work."""


@dataclass(frozen=True, slots=True)
class ImageFile:
    """A file that was sent for one image of the document.

    Attributes:
        sent_as: its name as it was sent, or its address.
        sha: SHA-256 of its bytes.
        inspection: what is in it, or in words why it is no image.
        fit: how well its name fits that of the image, 0 being the best.
    """

    sent_as: str
    path: Path
    sha: str
    inspection: Inspection | str
    fit: int

    @property
    def size(self) -> tuple[int, int] | None:
        """(h, w) in pixels, as stored; None where the file is no image."""
        return None if isinstance(self.inspection, str) else self.inspection.size


@dataclass
class ImageFiles:
    """The files that were sent for the images of a document.

    Attributes:
        by_name: file_name of the document -> its file.
        unread: archives that were refused; what they hold is neither there nor missing.
        ignored: files that the document does not name.
        ignored_examples: names of the first `EXAMPLES` of these.
    """

    by_name: dict[str, ImageFile] = field(default_factory=dict)
    issues: list[ValidationIssue] = field(default_factory=list)
    unread: int = 0
    ignored: int = 0
    ignored_examples: list[str] = field(default_factory=list)

    @property
    def sizes(self) -> dict[str, tuple[int, int] | str]:
        """For `check_against_images`: (h, w) by file_name, or in words what is wrong."""
        return {name: file.size or str(file.inspection) for name, file in self.by_name.items()}

    @property
    def inspected(self) -> dict[str, Inspection]:
        """What is in the files that are images, by file_name."""
        return {
            name: file.inspection
            for name, file in self.by_name.items()
            if not isinstance(file.inspection, str)
        }


class _Names:
    """Which of the document's file names a sent file is meant for."""

    def __init__(self, names: list[str]) -> None:
        self._exact = {_plain(name): name for name in names}
        self._basenames: dict[str, str | None] = {}
        for name in names:
            base = PurePosixPath(_plain(name)).name
            self._basenames[base] = None if base in self._basenames else name

    def match(self, sent: str) -> tuple[str, int] | None:
        """Return the document's name and how well it fits.

        The same path fits best, then the end of the path (an archive of a folder), then the same
        basename where only one image has it.
        """
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
    report_progress: ReportProgress,
) -> ImageFiles:
    """Find the images `names` in the parts (archives and single files) and check each one.

    Archives are removed once they are read; files that nobody asked for are never unpacked.

    Args:
        folder: for what is unpacked.
        max_pixels: of one image.
        report_progress: called before each file, with how many images there are of how many.
    """
    wanted, image_files, numbers = _Names(names), ImageFiles(), count()
    for part in parts:
        report_progress("images", len(image_files.by_name), len(names))
        if not _archived(part):
            _offer(image_files, wanted, part.filename, part.path, max_pixels)
            continue
        try:
            with closing(archives.members(part.path, limits)) as members:
                for member in members:
                    report_progress("images", len(image_files.by_name), len(names))
                    if wanted.match(member.name) is None:
                        _ignore(image_files, member.name)
                        continue
                    path = folder / f"image-{next(numbers)}"
                    with path.open("wb") as file:
                        file.writelines(member.chunks())
                    _offer(image_files, wanted, member.name, path, max_pixels)
        except archives.ArchiveProblem as error:
            image_files.unread += 1
            detail = f"the archive {part.filename!r} is refused: {error}"
            hint = "pack it anew as a plain zip or tar, or send the images one by one"
            image_files.issues.append(ValidationIssue("images", "", detail, hint))
        part.path.unlink()
    return image_files


def _archived(part: FilePart) -> bool:
    """By content, and for what calls itself an archive, by name (the reader then says why not)."""
    named = part.filename.lower().endswith((".zip", ".tar", ".tgz", ".tar.gz"))
    return named or archives.is_archive(part.path)


def _offer(
    image_files: ImageFiles, wanted: _Names, sent_as: str, path: Path, max_pixels: int
) -> None:
    """Take a file for the image it fits. The better fit wins; equal fits must be equal files."""
    match = wanted.match(sent_as)
    if match is None:
        _ignore(image_files, sent_as)
        path.unlink()
        return
    name, fit = match
    before = image_files.by_name.get(name)
    if before is not None and before.fit < fit:
        _ignore(image_files, sent_as)
        path.unlink()
        return
    sha = file_sha256(path)
    if before is not None and before.fit == fit and before.sha != sha:
        detail = f"both {before.sent_as!r} and {sent_as!r} could be the image {name!r}"
        hint = "send only one of them, or use its whole path as file_name"
        image_files.issues.append(ValidationIssue("images", "", detail, hint))
    if before is not None and before.fit > fit:
        _ignore(image_files, before.sent_as)
    if before is not None:
        before.path.unlink()
    image_files.by_name[name] = ImageFile(sent_as, path, sha, inspect_file(path, max_pixels), fit)


def inspect_file(path: Path, max_pixels: int) -> Inspection | str:
    """Return what is in an image, or in words why it is none."""
    try:
        height, width = read_header(path, max_pixels).size
        with DECODING.room(height * width, IMPORT_PATIENCE):
            return inspect(path, max_pixels)
    except ImageProblem as error:
        return str(error)


def _ignore(image_files: ImageFiles, name: str) -> None:
    image_files.ignored += 1
    if len(image_files.ignored_examples) < EXAMPLES:
        image_files.ignored_examples.append(name)


def _plain(name: str) -> str:
    """One spelling for one name: slashes, no leading ./, composed accents (macOS splits them)."""
    path = PurePosixPath(unicodedata.normalize("NFC", name.replace("\\", "/")))
    return os.fspath(path)


def media_type(head: bytes) -> str:
    """Return the media type of a checked image, by its first 12 bytes.

    It is one of `sapnet.data.images.FORMATS`.
    """
    for magic, kind in (
        (b"\xff\xd8", "image/jpeg"),
        (b"\x89PNG", "image/png"),
        (b"BM", "image/bmp"),
        (b"RIFF", "image/webp"),
    ):
        if head.startswith(magic):
            return kind
    return "image/tiff"
