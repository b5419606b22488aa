"""Files that are there whole or not at all, whatever ends the process that writes them."""

import hashlib
import os
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
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


def remove_oldest(paths: Iterable[Path], max_bytes: int, *, keep_seconds: float = 0.0) -> None:
    """Remove the files that were changed longest ago, until the others are `max_bytes` at most.

    Several processes may do so at once: a file that is gone already is what was wanted.

    Args:
        paths: of the files.
        max_bytes: of all of them together.
        keep_seconds: younger ones stay in any case.
    """
    files = []
    for path in paths:
        with suppress(FileNotFoundError):
            about = path.stat()
            files.append((about.st_mtime_ns, about.st_size, path))
    total = sum(size for _, size, _ in files)
    newest = time.time_ns() - int(keep_seconds * 1e9)
    for changed, size, path in sorted(files):
        if total <= max_bytes or (keep_seconds and changed > newest):
            break
        path.unlink(missing_ok=True)
        total -= size
