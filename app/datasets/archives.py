"""Read zip and tar archives that a stranger made.

Nothing is ever unpacked by an archive's own names: members come as streams, one by one, and the
caller decides. What is read is counted as it is read; sizes that headers claim are not believed.
"""

import gzip
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO, Self, cast

from app.settings import Settings

RATIO_FROM = 10 * 2**20  # unpacked bytes before the ratio counts: small files may pack well
_ZIP_TAIL = 22 + 56 + 20 + (1 << 16)  # the last records of a zip, with the longest comment
_ZIP_HEADER = 46  # least bytes of an entry in a zip's directory
_LONG_NAMES = 8  # times as many bytes may an entry have with its names
_FAR_TOO_MANY = 1 << 62
_MAX_HEADER = 1 << 20  # of tar's long names and pax records, which are read into memory
_LONG_HEADERS = (
    tarfile.XHDTYPE,
    tarfile.XGLTYPE,
    tarfile.SOLARIS_XHDTYPE,
    tarfile.GNUTYPE_LONGNAME,
    tarfile.GNUTYPE_LONGLINK,
)
_DAMAGED = (zipfile.BadZipFile, tarfile.TarError, gzip.BadGzipFile, zlib.error, EOFError)


NoteHidden = Callable[[str], None]


class ArchiveProblem(Exception):
    """An archive that cannot or must not be read. The message says why, in plain words."""


class LimitExceeded(ArchiveProblem):
    """It has more files or bytes than are allowed."""


@dataclass(slots=True)
class EntryCount:
    """Entries that were read, of all archives of one data set."""

    total: int = 0


@dataclass(frozen=True, slots=True)
class Limits:
    """files: entries of all archives together. size: unpacked bytes. ratio: unpacked to packed."""

    files: int
    size: int
    ratio: float


def archive_limits(settings: Settings) -> Limits:
    """What the settings allow."""
    return Limits(
        files=settings.max_archive_files,
        size=settings.max_archive_bytes,
        ratio=settings.max_archive_ratio,
    )


class _Budget:
    def __init__(self, limits: Limits, packed: int, entries: EntryCount) -> None:
        self._limits, self._packed, self._entries = limits, max(packed, 1), entries
        self._bytes = 0

    def announce(self, count: int) -> None:
        """So many entries are to come: too many are refused before each takes memory."""
        if self._entries.total + count > self._limits.files:
            raise LimitExceeded(f"it has more than the {self._limits.files:,} files allowed")

    def member(self) -> None:
        self._entries.total += 1
        if self._entries.total > self._limits.files:
            raise LimitExceeded(f"it has more than the {self._limits.files:,} files allowed")

    def spend(self, count: int) -> None:
        self._bytes += count
        if self._bytes > self._limits.size:
            raise LimitExceeded(f"unpacked it has more than {self._limits.size:,} bytes")
        if self._bytes > max(RATIO_FROM, self._limits.ratio * self._packed):
            raise ArchiveProblem(
                f"it unpacks to more than {self._limits.ratio:g} times its size: a zip bomb?"
            )


class _Counted:
    """A readable stream whose bytes are charged to the budget."""

    def __init__(self, stream: IO[bytes], budget: _Budget) -> None:
        self._stream, self._budget = stream, budget
        self._ended = False

    def read(self, size: int = -1) -> bytes:
        data = self._stream.read(1 << 20 if size < 0 else size)
        self._budget.spend(len(data))
        if not data and size:
            # A reader may meet the end once. tarfile goes on reading as far as a header's size
            # tells, which may be for ever.
            if self._ended:
                raise EOFError("a size in a header is larger than the archive")
            self._ended = True
        return data


class Member:
    """A regular file of an archive: its name, with plain slashes, and its bytes."""

    def __init__(self, name: str, stream: "_Counted | IO[bytes]") -> None:
        self.name, self._stream = name, stream

    def chunks(self, size: int = 1 << 20) -> Iterator[bytes]:
        """Raises ArchiveProblem."""
        with _plain_words():
            while chunk := self._stream.read(size):
                yield chunk


def is_archive(path: Path) -> bool:
    """Whether a file starts as a zip, a gzip or a tar does."""
    with path.open("rb") as file:
        head = file.read(265)
    return head[:4] in (b"PK\x03\x04", b"PK\x05\x06") or head[:2] == b"\x1f\x8b" or _is_tar(head)


def is_large(path: Path, limits: Limits) -> bool:
    """Whether an archive holds more than a request should unpack.

    Costs little: a zip's directory is read if it is a short one, a tar up to the limits. What is
    damaged is not large: whoever reads it says why.
    """
    try:
        with path.open("rb") as file:
            is_zip = file.read(2) == b"PK"
        if is_zip:
            if _zip_entries(path) > limits.files:
                return True
            with zipfile.ZipFile(path) as archive:
                return sum(info.file_size for info in archive.infolist()) > limits.size
        for _ in members(path, limits):
            pass
    except LimitExceeded:
        return True
    except (ArchiveProblem, *_DAMAGED):
        pass
    return False


def _zip_entries(path: Path) -> int:
    """The number of entries that a zip's last record tells of, without reading these.

    Where it is no such number as the directory's size allows, the most that this has room for.
    """
    with path.open("rb") as file:
        file.seek(max(0, path.stat().st_size - _ZIP_TAIL))
        tail = file.read()
    start = tail.rfind(b"PK\x05\x06")
    if start < 0 or len(tail) < start + 20:
        return 0  # it is damaged
    count, size = struct.unpack_from("<10xHI", tail, start)
    if count == 0xFFFF or size == 0xFFFFFFFF:  # more stand in a record of zip64
        record = tail.rfind(b"PK\x06\x06", 0, start)
        if record < 0 or len(tail) < record + 48:
            return _FAR_TOO_MANY
        count, size = struct.unpack_from("<32xQQ", tail, record)
    most = size // _ZIP_HEADER
    return count if count <= most <= _LONG_NAMES * count else most


def members(
    path: Path,
    limits: Limits,
    note_hidden: NoteHidden = lambda name: None,
    entries: EntryCount | None = None,
) -> Generator[Member]:
    """The regular files of an archive, each to be read before the next is asked for.

    Folders, dotfiles, what is in folders of such names and `__MACOSX` are left out; `note_hidden`
    is called with the names of those. Raises ArchiveProblem for names that leave the
    folder, links, devices, encryption, overlapping entries, damage, and for more files, bytes or
    compression than `limits` allow.
    """
    with path.open("rb") as file:
        head = file.read(265)
    budget = _Budget(limits, path.stat().st_size, entries or EntryCount())
    with _plain_words():
        yield from (_zip if head[:2] == b"PK" else _tar)(path, budget, note_hidden)


def _zip(path: Path, budget: _Budget, note_hidden: NoteHidden) -> Iterator[Member]:
    budget.announce(_zip_entries(path))
    with zipfile.ZipFile(path) as archive:
        infos = archive.infolist()
        _refuse_overlaps(infos, archive.start_dir)
        for info in infos:
            budget.member()
            name = _checked_name(_zip_name(info))
            if info.is_dir() or not name:
                continue
            if _is_hidden(name):
                note_hidden(name)
                continue
            kind = info.external_attr >> 28  # the file type bits of a Unix mode
            if kind not in (0, 0o10):
                raise ArchiveProblem(f"{name!r} is a link or a device")
            if info.flag_bits & 0x1:
                raise ArchiveProblem(f"{name!r} is encrypted")
            with archive.open(info) as stream:
                yield Member(name, _Counted(stream, budget))


def _zip_name(info: zipfile.ZipInfo) -> str:
    """Many tools write UTF-8 without saying so, which zipfile then reads as cp437."""
    if not info.flag_bits & 0x800:
        try:
            return info.orig_filename.encode("cp437").decode("utf-8")
        except UnicodeError:
            pass
    return info.orig_filename


def _refuse_overlaps(infos: list[zipfile.ZipInfo], directory: int) -> None:
    """Entries that share packed bytes make a small file unpack to any size."""
    end = 0
    for info in sorted(infos, key=lambda i: i.header_offset):
        if info.header_offset < end:
            raise ArchiveProblem("its entries overlap")
        end = info.header_offset + 30 + info.compress_size
    if end > directory:
        raise ArchiveProblem("its entries overlap")


def _tar(path: Path, budget: _Budget, note_hidden: NoteHidden) -> Iterator[Member]:
    with path.open("rb") as raw:
        packed = raw.read(2) == b"\x1f\x8b"
        raw.seek(0)
        stream: IO[bytes] = cast(IO[bytes], gzip.GzipFile(fileobj=raw)) if packed else raw
        # Read as a stream, so that skipped members count too.
        counted = _Counted(stream, budget)
        with tarfile.open(fileobj=counted, mode="r|", tarinfo=_Header) as archive:  # type: ignore[call-overload]
            while (info := archive.next()) is not None:
                archive.members = []  # or it keeps every header it has seen
                budget.member()
                name = _checked_name(info.name)
                if info.isdir() or not name:
                    continue
                if _is_hidden(name):
                    note_hidden(name)
                    continue
                if not info.isreg() or info.issparse():
                    raise ArchiveProblem(f"{name!r} is a link, a device or a sparse file")
                content = archive.extractfile(info)
                assert content is not None  # a regular file has one
                yield Member(name, content)


class _Header(tarfile.TarInfo):
    @classmethod
    def frombuf(cls, buf: bytes | bytearray, encoding: str, errors: str) -> Self:
        info = super().frombuf(buf, encoding, errors)
        if info.type in _LONG_HEADERS and info.size > _MAX_HEADER:
            raise ArchiveProblem("it has a header of more than 1 MiB")
        return info


def _checked_name(name: str) -> str:
    """The name with plain slashes; empty for the folder itself. Raises ArchiveProblem."""
    path = PurePosixPath(name.replace("\\", "/"))
    drive = len(path.parts) > 0 and path.parts[0].endswith(":")
    if path.is_absolute() or drive or ".." in path.parts or "\0" in name:
        raise ArchiveProblem(f"the name {name!r} leaves the folder")
    return "/".join(path.parts)


def _is_hidden(name: str) -> bool:
    return any(part.startswith(".") or part == "__MACOSX" for part in name.split("/"))


def _is_tar(head: bytes) -> bool:
    return head[257:262] == b"ustar"


@contextmanager
def _plain_words() -> Iterator[None]:
    try:
        yield
    except _DAMAGED as error:
        raise ArchiveProblem(f"it is damaged or cut off ({error})") from error
    except NotImplementedError as error:
        raise ArchiveProblem(f"it is packed in a way that is not known ({error})") from error
