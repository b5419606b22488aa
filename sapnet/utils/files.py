"""Files that are there whole or not at all, whatever ends the process that writes them."""

import hashlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO


@contextmanager
def atomic_write(path: Path) -> Iterator[IO[bytes]]:
    """A file to write `path` through: under another name beside it, flushed to disk, then renamed.

    A block that raises leaves `path` as it was. Folders are made as needed.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f"{path.name}.tmp")
    try:
        with temporary.open("wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """`text`, as UTF-8, whole or not at all."""
    with atomic_write(path) as file:
        file.write(text.encode())


def file_sha256(path: Path) -> str:
    """sha256 of a file's content, 64 hex digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
