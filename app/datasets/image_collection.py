"""From an uploaded form to checked files on disk. Touches neither database nor storage."""

from collections.abc import Callable, Iterable, Mapping
from contextlib import closing
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path, PurePosixPath

from app.datasets import archives, unread_archives
from app.errors import ValidationIssue
from app.http.multipart import FilePart
from app.storage.decode_budget import DECODING, IMPORT_PATIENCE
from sapnet.data.file_names import Match, is_archive_name
from sapnet.data.file_pairing import Pairing, Unpaired
from sapnet.data.images import ImageProblem, Inspection, inspect, read_header
from sapnet.data.subsets import Split
from sapnet.utils.files import file_sha256

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
    """

    sent_as: str
    path: Path
    sha: str
    inspection: Inspection | str

    @property
    def size(self) -> tuple[int, int] | None:
        """(h, w) in pixels, as stored; None where the file is no image."""
        return None if isinstance(self.inspection, str) else self.inspection.size


@dataclass
class ImageFiles:
    """The files that were sent for the images of a document.

    Attributes:
        by_name: file_name of the document -> its file.
        missing: file_name of the document -> why it has no file.
        warnings: what was taken that may be wrong, and what was not read.
        unread: archives that were refused; what they hold is neither there nor missing.
        ignored: files that the document does not name.
        ignored_examples: names of the first `EXAMPLES` of these.
        splits: file_name of the document -> subset and group, where the images' data set has them.
    """

    by_name: dict[str, ImageFile] = field(default_factory=dict)
    issues: list[ValidationIssue] = field(default_factory=list)
    missing: Mapping[str, Unpaired] = field(default_factory=dict)
    warnings: list[ValidationIssue] = field(default_factory=list)
    unread: int = 0
    ignored: int = 0
    ignored_examples: list[str] = field(default_factory=list)
    splits: dict[str, Split] = field(default_factory=dict)

    @property
    def sizes(self) -> dict[str, tuple[int, int] | str]:
        """For `check_against_images`: (h, w) by file_name, or in words what is wrong."""
        return {name: file.size or str(file.inspection) for name, file in self.by_name.items()}

    def rename(self, names: Mapping[str, str]) -> None:
        """Images are called otherwise in the document: their names now, by those before."""
        self.by_name = {names.get(name, name): file for name, file in self.by_name.items()}
        self.splits = {names.get(name, name): split for name, split in self.splits.items()}

    @property
    def inspected(self) -> dict[str, Inspection]:
        """What is in the files that are images, by file_name."""
        return {
            name: file.inspection
            for name, file in self.by_name.items()
            if not isinstance(file.inspection, str)
        }


def collect(
    parts: Iterable[FilePart],
    names: Mapping[str, str | None],
    folder: Path,
    limits: archives.Limits,
    max_pixels: int,
    report_progress: ReportProgress,
) -> ImageFiles:
    """Find the images `names` in the parts (archives and single files) and check each one.

    Archives are removed once they are read; files that nobody asked for are never unpacked.

    Args:
        names: file names of the document, with the address of the image where it has one.
        folder: for what is unpacked.
        max_pixels: of one image.
        report_progress: called before each file, with how many images there are of how many.
    """
    parts = list(parts)
    collection = _Collection(names, max_pixels, several=len(parts) > 1)
    numbers, entries = count(), archives.EntryCount()
    for part in parts:
        report_progress("images", len(collection.pairing), len(names))
        if not _archived(part):
            collection.offer(part.filename, part.path)
            continue
        try:
            collection.archive = part.filename
            read = archives.members(part.path, limits, collection.note_hidden, entries)
            with closing(read) as members:
                for member in members:
                    report_progress("images", len(collection.pairing), len(names))
                    if match := collection.match(member.name):
                        path = folder / f"image-{next(numbers)}"
                        with path.open("wb") as file:
                            file.writelines(member.chunks())
                        collection.take(match, member.name, path)
        except archives.ArchiveProblem as error:
            collection.refuse(str(error))
        part.path.unlink()
    return collection.finish()


def _archived(part: FilePart) -> bool:
    """By content, and for what calls itself an archive, by name (the reader then says why not)."""
    named = part.filename.lower().endswith((".zip", ".tar", ".tgz", ".tar.gz"))
    return named or archives.is_archive(part.path)


def _same(one: ImageFile, other: ImageFile) -> bool:
    return one.sha == other.sha


class _Collection:
    """Takes files for the images whose names they fit (`sapnet.data.file_names`)."""

    def __init__(self, names: Mapping[str, str | None], max_pixels: int, *, several: bool) -> None:
        addresses = {name: address for name, address in names.items() if address}
        self.pairing: Pairing[ImageFile] = Pairing(names, addresses, _same)
        self.archive = ""  # which is being read, if any
        self._files = ImageFiles()
        self._max_pixels, self._several = max_pixels, several
        self._hidden: dict[str, str] = {}  # name of the document -> the first hidden file for it

    def note_hidden(self, name: str) -> None:
        """Remember a hidden member of the archive that would fit, in case nothing else does."""
        for wanted in self.pairing.fits(name):
            self._hidden.setdefault(wanted, f"{name!r} in {self.archive!r}")

    def match(self, name: str) -> Match | None:
        """The image that a member of the archive is for; None, noted, where it is of no use.

        Subsets may come in an archive each: what fits several images may fit one by its name.
        """
        named = name
        if len(self.pairing.fits(name)) > 1:
            below = f"{PurePosixPath(self.archive).name.partition('.')[0]}/{name}"
            named = below if len(self.pairing.fits(below)) == 1 else name
        match = self.pairing.match(named)
        if match is None:
            if is_archive_name(name):
                self._not_read(f"{name!r} in {self.archive!r}", "an archive within an archive")
            self._ignore(name)
        return match

    def offer(self, name: str, path: Path) -> None:
        """Take a file that was sent by itself, or remove it where it is of no use."""
        self.archive = ""
        match = self.pairing.match(name)
        if match is not None:
            self.take(match, name, path)
            return
        if kind := unread_archives.kind_of(path):
            self._not_read(repr(name), kind)
        self._ignore(name)
        path.unlink()

    def take(self, match: Match, name: str, path: Path) -> None:
        """Take a file for the image that it matches, and remove the one that is not needed."""
        sent_as = f"{self.archive}/{name}" if self._several and self.archive else name
        file = ImageFile(sent_as, path, file_sha256(path), inspect_file(path, self._max_pixels))
        unused = self.pairing.take(match, sent_as, file)
        if unused is not None:
            unused.path.unlink()
            if not _same(unused, file):
                self._ignore(unused.sent_as)

    def refuse(self, why: str) -> None:
        """Note that the archive cannot be read."""
        self._files.unread += 1
        detail = f"the archive {self.archive!r} is refused: {why}"
        self._files.issues.append(ValidationIssue("images", "", detail, unread_archives.HINT))

    def finish(self) -> ImageFiles:
        """Say what is missing, unclear or odd."""
        files, pairing = self._files, self.pairing
        files.by_name, files.missing = pairing.taken, pairing.missing()
        for unclear in pairing.unclear().values():
            files.issues.append(ValidationIssue("images", "", unclear.problem, unclear.hint))
        for name, hidden in self._hidden.items():
            if name in files.missing:
                self._not_read(hidden, "in a hidden folder, or hidden itself")
                break
        if files.missing:
            files.issues += files.warnings
            files.warnings = []
        for difference, pairs in pairing.warnings().items():
            more = f" and {len(pairs) - EXAMPLES} more" if len(pairs) > EXAMPLES else ""
            detail = f"taken although of {difference}: {', '.join(pairs[:EXAMPLES])}{more}"
            hint = "look at the images; send those that the document names"
            files.warnings.append(ValidationIssue("images", "", detail, hint))
        return files

    def _not_read(self, which: str, why: str) -> None:
        if len(self._files.warnings) < EXAMPLES:
            detail = f"{which} was not read: it is {why}"
            issue = ValidationIssue("images", "", detail, unread_archives.HINT)
            self._files.warnings.append(issue)

    def _ignore(self, name: str) -> None:
        self._files.ignored += 1
        if len(self._files.ignored_examples) < EXAMPLES:
            self._files.ignored_examples.append(name)


def inspect_file(path: Path, max_pixels: int) -> Inspection | str:
    """Return what is in an image, or in words why it is none."""
    try:
        height, width = read_header(path, max_pixels).size
        with DECODING.room(height * width, IMPORT_PATIENCE):
            return inspect(path, max_pixels)
    except ImageProblem as error:
        return str(error)
