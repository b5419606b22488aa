"""The file an export becomes: one document, or a zip.

Written to disk as it comes, and the same bytes each time.
"""

import shutil
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, BinaryIO, Self, cast

from sapnet.data.exif import Patch, upright_patches

_LONG_AGO = (1980, 1, 1, 0, 0, 0)  # zip's own beginning: no clock, so that equal exports are equal


@dataclass(frozen=True, slots=True)
class _Document:
    path: Path
    file: IO[bytes]
    ending: bytes


class Archive:
    """Files are written one after the other; documents grow beside them until the end.

    Args:
        zipped: False for a format that is one document, which then is the whole file.
    """

    def __init__(self, target: Path, *, zipped: bool) -> None:
        self.zipped = zipped
        self._target = target
        self._documents: dict[str, _Document] = {}
        self._zip = zipfile.ZipFile(target, "w") if zipped else None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for document in self._documents.values():
            document.file.close()
            document.path.unlink(missing_ok=True)
        if self._zip is not None:
            self._zip.close()

    def document(self, name: str, ending: bytes = b"") -> IO[bytes]:
        """A file to write to until `finish`, which writes its `ending`."""
        path = self._target.with_name(f"{self._target.name}.{len(self._documents)}")
        file = path.open("wb")
        self._documents[name] = _Document(path, file, ending)
        return file

    def text(self, name: str, text: str) -> None:
        """A small file of text."""
        self.data(name, text.encode(), packed=True)

    def data(self, name: str, data: bytes, *, packed: bool = False) -> None:
        """A small file.

        Args:
            packed: compress it; images already are.
        """
        self._archive.writestr(_info(name, packed), data)

    def image(self, name: str, path: Path) -> None:
        """A copy of an image that every reader shows as its pixels are stored.

        The same bytes, but for an EXIF orientation.
        """
        self.file(name, path, patches=upright_patches(path))

    def file(
        self, name: str, path: Path, *, packed: bool = False, patches: Sequence[Patch] = ()
    ) -> None:
        """A copy of a file, whatever its size.

        Args:
            patches: bytes that are others in the copy.
        """
        info = _info(name, packed)
        info.file_size = path.stat().st_size  # so that a large one is written as zip64
        with path.open("rb") as source, self._archive.open(info, "w") as target:
            for patch in sorted(patches, key=lambda patch: patch.offset):
                while (left := patch.offset - source.tell()) > 0:
                    target.write(source.read(min(left, 1 << 20)))
                target.write(patch.data)
                source.seek(len(patch.data), 1)
            shutil.copyfileobj(source, target, 1 << 20)

    def names(self) -> list[str]:
        """Paths of the files that were written so far."""
        return self._archive.namelist() if self.zipped else list(self._documents)

    def open(self, name: str) -> BinaryIO:
        """A file that was written, to be read. A document is there once `finish` put it there."""
        if self.zipped:
            return cast(BinaryIO, self._archive.open(name))
        return self._target.open("rb")

    def finish(self) -> None:
        """Put the documents where they belong. No document may grow afterwards."""
        for name, document in self._documents.items():
            document.file.write(document.ending)
            document.file.close()
            if self.zipped:
                self.file(name, document.path, packed=True)
            else:
                document.path.replace(self._target)

    @property
    def _archive(self) -> zipfile.ZipFile:
        assert self._zip is not None, "a format with several files is zipped"
        return self._zip


def _info(name: str, packed: bool) -> zipfile.ZipInfo:
    info = zipfile.ZipInfo(name, _LONG_AGO)
    info.compress_type = zipfile.ZIP_DEFLATED if packed else zipfile.ZIP_STORED
    info.external_attr = 0o644 << 16
    return info
