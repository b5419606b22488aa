"""Blobs by content: a blob's name is the SHA-256 of its bytes, so equal files are stored once.

A folder of this machine, or S3 (anything that speaks it) through obstore. Writes are whole or not
at all. Which blobs are still wanted is the database's business: see
`app.storage.garbage_collection`.
"""

import fcntl
import hashlib
import os
import re
import shutil
import tempfile
import time
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from datetime import timedelta
from pathlib import Path
from typing import IO, BinaryIO

import obstore
from obstore.store import ObjectStore, from_url

from app.errors import BlobMissing
from app.settings import Settings

CHUNK = 1 << 20
PART = ".part-"
PART_SECONDS = 10.0  # between its lock and its new name a whole file is unlocked
_SHA256 = re.compile(r"[0-9a-f]{64}")


def sha256_of(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


class Storage(ABC):
    """Every `sha` is 64 lower-case hex digits; anything else raises ValueError."""

    def __init__(self, scratch: Path) -> None:
        self._scratch = scratch
        scratch.mkdir(parents=True, exist_ok=True)

    @abstractmethod
    def put_file(self, path: Path, *, sha: str | None = None, move: bool = False) -> str:
        """Store a file; its SHA-256. `sha` spares the hashing where it is known; with `move` the
        file is gone afterwards, and on one file system no byte is copied."""

    @abstractmethod
    def local_path(self, sha: str) -> Path:
        """The blob as a file of this machine, to be read only. Raises BlobMissing."""

    @abstractmethod
    def exists(self, sha: str) -> bool: ...

    @abstractmethod
    def delete(self, sha: str) -> None:
        """Nothing happens if there is none."""

    @abstractmethod
    def ping(self) -> None:
        """Raises if the storage cannot be written to or reached."""

    def put_stream(self, chunks: Iterable[bytes]) -> str:
        digest = hashlib.sha256()
        with self._temporary() as (path, file):
            for chunk in chunks:
                digest.update(chunk)
                file.write(chunk)
            file.close()
            return self.put_file(path, sha=digest.hexdigest(), move=True)

    def put_bytes(self, data: bytes) -> str:
        return self.put_stream([data])

    def open(self, sha: str) -> BinaryIO:
        return self.local_path(sha).open("rb")

    def read(self, sha: str) -> bytes:
        return self.local_path(sha).read_bytes()

    def tidy(self) -> int:
        """Remove the unfinished files of processes that were killed; how many. Those that somebody
        still writes are locked."""
        removed = 0
        for path in self._scratch.glob(f"{PART}*"):
            with suppress(OSError), path.open("rb") as file:
                if time.time() - os.fstat(file.fileno()).st_mtime > PART_SECONDS:
                    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    path.unlink()
                    removed += 1
        return removed

    @contextmanager
    def _temporary(self) -> Iterator[tuple[Path, IO[bytes]]]:
        """A new file beside the blobs (so that a rename is atomic), removed unless renamed."""
        descriptor, name = tempfile.mkstemp(dir=self._scratch, prefix=PART)
        path = Path(name)
        try:
            with os.fdopen(descriptor, "wb") as file:
                fcntl.flock(file, fcntl.LOCK_SH)
                yield path, file
        finally:
            path.unlink(missing_ok=True)


class FolderStorage(Storage):
    """`<folder>/ab/<sha>`, the first two digits as a folder."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.folder = folder

    def put_file(self, path: Path, *, sha: str | None = None, move: bool = False) -> str:
        sha = sha or sha256_of(path)
        target = self._path(sha)
        if not target.exists():
            target.parent.mkdir(parents=True, exist_ok=True)
            if not (move and _renamed(path, target)):
                with self._temporary() as (part, file):
                    with path.open("rb") as source:
                        shutil.copyfileobj(source, file, CHUNK)
                    file.close()
                    part.rename(target)
        if move:
            path.unlink(missing_ok=True)
        return sha

    def local_path(self, sha: str) -> Path:
        path = self._path(sha)
        if not path.is_file():
            raise BlobMissing(sha)
        return path

    def exists(self, sha: str) -> bool:
        return self._path(sha).is_file()

    def delete(self, sha: str) -> None:
        self._path(sha).unlink(missing_ok=True)

    def ping(self) -> None:
        with self._temporary():
            pass

    def _path(self, sha: str) -> Path:
        return self.folder / _checked(sha)[:2] / sha


class BucketStorage(Storage):
    """`<url>/ab/<sha>` on S3, with a cache of whole blobs on this machine's disk.

    A blob never changes, so the cache is never stale. It may be emptied at any time.
    """

    def __init__(self, url: str, cache: Path, store: ObjectStore | None = None) -> None:
        super().__init__(cache)
        self._store = store or from_url(url)
        # Who asks whether it is there wants to hear of it before the three minutes of retries end.
        self._probe = store or from_url(
            url, retry_config={"max_retries": 1, "retry_timeout": timedelta(seconds=5)}
        )
        self._cache = FolderStorage(cache)

    def put_file(self, path: Path, *, sha: str | None = None, move: bool = False) -> str:
        sha = sha or sha256_of(path)
        if not self.exists(sha):
            obstore.put(self._store, self._key(sha), path)
        if move:
            path.unlink(missing_ok=True)
        return sha

    def local_path(self, sha: str) -> Path:
        if not self._cache.exists(sha):
            try:
                stream = obstore.get(self._store, self._key(sha)).stream(min_chunk_size=CHUNK)
                found = self._cache.put_stream(bytes(chunk) for chunk in stream)
            except FileNotFoundError as error:
                raise BlobMissing(sha) from error
            if found != sha:
                self._cache.delete(found)
                raise BlobMissing(sha)
        return self._cache.local_path(sha)

    def exists(self, sha: str) -> bool:
        try:
            obstore.head(self._store, self._key(sha))
        except FileNotFoundError:
            return False
        return True

    def delete(self, sha: str) -> None:
        self._cache.delete(sha)
        if self.exists(sha):
            obstore.delete(self._store, self._key(sha))

    def ping(self) -> None:
        # Asking for one object would not tell a bucket that is not there from an empty one.
        next(iter(obstore.list(self._probe, "00", chunk_size=1)), None)

    def _key(self, sha: str) -> str:
        return f"{_checked(sha)[:2]}/{sha}"


def make_storage(settings: Settings) -> Storage:
    url = settings.storage
    if "://" in url:
        return BucketStorage(url, settings.folder("cache"))
    return FolderStorage(Path(url))


def _checked(sha: str) -> str:
    if not _SHA256.fullmatch(sha):
        raise ValueError(f"not a SHA-256 in hex: {sha!r}")
    return sha


def _renamed(source: Path, target: Path) -> bool:
    try:
        source.rename(target)
    except OSError:  # another file system
        return False
    return True
