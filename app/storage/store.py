"""Blobs by content: a blob's name is the SHA-256 of its bytes, so equal files are stored once.

A folder of this machine, or S3 (anything that speaks it) through obstore. Writes are whole or not
at all, and on disk (fsync) when they return, so that a row that is committed afterwards never names
a blob that a power cut took. Which blobs are still wanted is the database's business: see
`app.storage.garbage_collection`.
"""

import fcntl
import hashlib
import os
import re
import shutil
import tempfile
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import ExitStack, contextmanager, suppress
from datetime import timedelta
from enum import StrEnum
from pathlib import Path
from typing import IO, Any, BinaryIO, TypeVar

import obstore
from obstore.store import ObjectStore, from_url

from app.errors import BlobMissing
from app.settings import Settings
from sapnet.utils.files import file_sha256, remove_oldest

Result = TypeVar("Result")

CHUNK = 1 << 20
PART = ".part-"
PART_SECONDS = 10.0  # between its lock and its new name a whole file is unlocked
DAMAGED = "damaged"  # the folder, or the prefix in a bucket, that damaged blobs are moved to
FILES_A_SYNC = 64  # each is an open file; their fsyncs share the disk's commits
CACHED_SECONDS = 600.0
"""So long a file stays in the cache after it was asked for: whoever asked opens it by then."""
_SHA256 = re.compile(r"[0-9a-f]{64}")


class BlobState(StrEnum):
    """Whether stored bytes are those that the blob's name promises."""

    WHOLE = "whole"
    DAMAGED = "damaged"
    MISSING = "missing"


class Storage(ABC):
    """A place for blobs, each named by the SHA-256 of its bytes.

    Every `sha` is 64 lower-case hex digits; anything else raises ValueError.
    """

    is_local = False
    """Whether blobs are files of this machine, which nobody has to fetch."""
    deletes_a_call = 500
    """Blobs that one call of `delete_many` should be given where others wait for it."""

    def __init__(self, scratch: Path) -> None:
        self._scratch = scratch
        scratch.mkdir(parents=True, exist_ok=True)

    @abstractmethod
    def put_files(self, files: Mapping[str, Path], *, move: bool = False) -> None:
        """Store files by their SHA-256; all are on disk when it returns.

        A blob that is there already is kept, a damaged one replaced. With `move` the files are gone
        afterwards, and on one file system no byte is copied; a file that an earlier call has moved
        already need not be there.
        """

    @abstractmethod
    def state(self, sha: str) -> BlobState:
        """Whether the stored bytes are those that the name promises. Reads all of them."""

    @abstractmethod
    def set_aside(self, sha: str) -> None:
        """Take a damaged blob out of the way, without deleting it."""

    @abstractmethod
    def local_path(self, sha: str) -> Path:
        """Return the blob as a file of this machine, to be read only.

        Raises:
            BlobMissing: there is none.
        """

    @abstractmethod
    def exists(self, sha: str) -> bool:
        """Whether there is such a blob, damaged or not."""

    @abstractmethod
    def delete_many(self, shas: Collection[str]) -> None:
        """Delete blobs, in few calls. Those that are not there are passed over."""

    @abstractmethod
    def ping(self) -> None:
        """Check that the storage can be reached and written to.

        Raises:
            OSError: it cannot.
            obstore.exceptions.BaseError: the bucket does not answer.
        """

    def local_files(
        self, shas: Collection[str], folder: Path
    ) -> Iterator[tuple[str, Path | BlobMissing]]:
        """Yield each blob as a file of this machine, in any order; an error for one that is gone.

        Args:
            shas: each once.
            folder: in which the files stay, whatever becomes of the storage's own, if need be.
        """
        for sha in shas:
            try:
                yield sha, self.local_path(sha)
            except BlobMissing as error:
                yield sha, error

    def delete(self, sha: str) -> None:
        """Nothing happens if there is none."""
        self.delete_many([sha])

    def put_file(self, path: Path, *, sha: str | None = None, move: bool = False) -> str:
        """Store one file, as `put_files` does.

        Args:
            sha: its SHA-256, where that is known already.

        Returns:
            Its SHA-256.
        """
        sha = sha or file_sha256(path)
        self.put_files({sha: path}, move=move)
        return sha

    def put_stream(self, chunks: Iterable[bytes]) -> str:
        """Store bytes as they come; return their SHA-256."""
        digest = hashlib.sha256()
        with self._temporary() as (path, file):
            for chunk in chunks:
                digest.update(chunk)
                file.write(chunk)
            file.close()
            return self.put_file(path, sha=digest.hexdigest(), move=True)

    def put_bytes(self, data: bytes) -> str:
        """Store bytes; return their SHA-256."""
        return self.put_stream([data])

    def open(self, sha: str) -> BinaryIO:
        """Open a blob for reading.

        Raises:
            BlobMissing: there is none.
        """
        return self.local_path(sha).open("rb")

    def read(self, sha: str) -> bytes:
        """Return the bytes of a blob.

        Raises:
            BlobMissing: there is none.
        """
        return self.local_path(sha).read_bytes()

    def clean_up(self) -> int:
        """Remove the unfinished files of processes that were killed.

        Those that somebody still writes are locked, and stay.

        Returns:
            How many were removed.
        """
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

    is_local = True
    deletes_a_call = 10

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.folder = folder

    def put_files(self, files: Mapping[str, Path], *, move: bool = False) -> None:
        """Store files, `FILES_A_SYNC` at a time: each is renamed into place when it is on disk."""
        waiting = list(files.items())
        for start in range(0, len(waiting), FILES_A_SYNC):
            self._put(dict(waiting[start : start + FILES_A_SYNC]), move)

    def _put(self, files: Mapping[str, Path], move: bool) -> None:
        with ExitStack() as open_files:
            parts: dict[Path, Path] = {}  # by where they go
            for sha, path in files.items():
                target = self._path(sha)
                if _is_stored(path, target, sha):
                    continue
                target.parent.mkdir(parents=True, exist_ok=True)
                if move and path.stat().st_dev == self.folder.stat().st_dev:
                    parts[target] = path
                    continue
                part, file = open_files.enter_context(self._temporary())
                with path.open("rb") as source:
                    shutil.copyfileobj(source, file, CHUNK)
                file.flush()
                parts[target] = part
            _sync(parts.values())
            for target, part in parts.items():
                part.replace(target)
            folders = {target.parent for target in parts}
            _sync([*folders, self.folder] if folders else [])
        if move:
            for path in files.values():
                path.unlink(missing_ok=True)

    def state(self, sha: str) -> BlobState:
        """Compare a blob's bytes with its name. Reads all of them."""
        path = self._path(sha)
        if not path.is_file():
            return BlobState.MISSING
        return BlobState.WHOLE if file_sha256(path) == sha else BlobState.DAMAGED

    def set_aside(self, sha: str) -> None:
        """Move a damaged blob into the folder `damaged`."""
        target = self.folder / DAMAGED / _checked(sha)
        target.parent.mkdir(exist_ok=True)
        self._path(sha).replace(target)

    def local_path(self, sha: str) -> Path:
        """Return the path of the blob itself.

        Raises:
            BlobMissing: there is none.
        """
        path = self._path(sha)
        if not path.is_file():
            raise BlobMissing(sha)
        return path

    def exists(self, sha: str) -> bool:
        """Whether there is such a file."""
        return self._path(sha).is_file()

    def delete_many(self, shas: Collection[str]) -> None:
        """Delete the files, where there are any."""
        for path in [self._path(sha) for sha in shas]:
            path.unlink(missing_ok=True)

    def ping(self) -> None:
        """Make a file and remove it."""
        with self._temporary():
            pass

    def _path(self, sha: str) -> Path:
        return self.folder / _checked(sha)[:2] / sha


class BucketStorage(Storage):
    """`<url>/ab/<sha>` on S3, with a cache of whole blobs on this machine's disk.

    A blob never changes, so the cache is never stale. It may be emptied at any time; what was used
    longest ago makes room.
    """

    def __init__(
        self,
        url: str,
        cache: Path,
        store: ObjectStore | None = None,
        *,
        max_bytes: int | None = None,
        connections: int = 16,
    ) -> None:
        """Reach for nothing yet.

        Args:
            url: of the bucket, with a prefix.
            cache: folder of the cache.
            store: in place of the one that the URL names.
            max_bytes: of the cache; None is no bound. What was used in the last minutes stays.
            connections: blobs that are fetched, or stored, at once.
        """
        super().__init__(cache)
        self._max_bytes, self._connections = max_bytes, connections
        self._fetched = max_bytes or 0  # bytes since room was last made; a process begins with that
        self._making_room = threading.Lock()
        self._store = store or from_url(url)
        # Who asks whether it is there wants to hear of it before the three minutes of retries end.
        self._probe = store or from_url(
            url, retry_config={"max_retries": 1, "retry_timeout": timedelta(seconds=5)}
        )
        self._cache = FolderStorage(cache)

    def put_files(self, files: Mapping[str, Path], *, move: bool = False) -> None:
        """Upload files, but for those of which the bucket has one of the same size."""

        def put(sha: str, path: Path) -> None:
            size = self._size(sha)
            if size is None or (path.exists() and path.stat().st_size != size):
                obstore.put(self._store, self._key(sha), path)
            if move:
                path.unlink(missing_ok=True)

        for _ in self._at_once(put, files.items()):
            pass

    def _at_once(
        self, work: Callable[..., Result], items: Collection[tuple[Any, ...]]
    ) -> Iterator[Result]:
        """Yield what `work` gives for each of the items, as it comes, on several connections.

        An error, or whoever leaves off, ends it: what is not begun is not done.
        """
        if len(items) < 2:
            yield from (work(*item) for item in items)
            return
        with ThreadPoolExecutor(min(self._connections, len(items)), "storage") as pool:
            futures = [pool.submit(work, *item) for item in items]
            try:
                for future in as_completed(futures):
                    yield future.result()
            finally:
                pool.shutdown(cancel_futures=True)

    def local_files(
        self, shas: Collection[str], folder: Path
    ) -> Iterator[tuple[str, Path | BlobMissing]]:
        """Yield each blob as a file in `folder`, another name of the one in the cache."""
        folder.mkdir(parents=True, exist_ok=True)

        def fetch(sha: str) -> tuple[str, Path | BlobMissing]:
            path = folder / _checked(sha)
            try:
                if not path.exists():
                    link(self.local_path(sha), path)
            except BlobMissing as error:
                return sha, error
            return sha, path

        yield from self._at_once(fetch, [(sha,) for sha in shas])

    def state(self, sha: str) -> BlobState:
        """Compare the bucket's bytes with the name; a damaged copy in the cache is removed."""
        digest = hashlib.sha256()
        try:
            for chunk in obstore.get(self._store, self._key(sha)).stream(min_chunk_size=CHUNK):
                digest.update(chunk)
        except FileNotFoundError:
            return BlobState.MISSING
        if self._cache.state(sha) is BlobState.DAMAGED:
            self._cache.delete(sha)  # it is fetched again when it is wanted
        return BlobState.WHOLE if digest.hexdigest() == sha else BlobState.DAMAGED

    def set_aside(self, sha: str) -> None:
        """Move a damaged object below the prefix `damaged/`."""
        obstore.rename(self._store, self._key(sha), f"{DAMAGED}/{sha}")

    def _size(self, sha: str) -> int | None:
        """In bytes; None where there is no such blob."""
        try:
            return int(obstore.head(self._store, self._key(sha))["size"])
        except FileNotFoundError:
            return None

    def local_path(self, sha: str) -> Path:
        """Return the path in the cache, into which the blob is fetched where it is not there.

        Raises:
            BlobMissing: the bucket has none, or other bytes than the name promises.
        """
        if self._cache.exists(sha):
            with suppress(FileNotFoundError):
                os.utime(self._cache.local_path(sha))  # used just now
        if not self._cache.exists(sha):
            try:
                stream = obstore.get(self._store, self._key(sha)).stream(min_chunk_size=CHUNK)
                fetched = self._cache.put_stream(bytes(chunk) for chunk in stream)
            except FileNotFoundError as error:
                raise BlobMissing(sha) from error
            if fetched != sha:
                self._cache.delete(fetched)
                raise BlobMissing(sha)
            self._make_room(self._cache.local_path(sha).stat().st_size)
        return self._cache.local_path(sha)

    def _make_room(self, fetched: int) -> None:
        """Remove what was used longest ago, each time that an eighth of the bound was fetched."""
        if self._max_bytes is None:
            return
        with self._making_room:
            self._fetched += fetched
            if self._fetched * 8 >= self._max_bytes:
                self._fetched = 0
                files = self._cache.folder.glob("??/*")
                remove_oldest(files, self._max_bytes, keep_seconds=CACHED_SECONDS)

    def exists(self, sha: str) -> bool:
        """Whether the bucket has such an object, whatever the cache has."""
        return self._size(sha) is not None

    def delete_many(self, shas: Collection[str]) -> None:
        """Delete the objects, and their copies in the cache."""
        self._cache.delete_many(shas)
        # By the store that gives up soon: somebody may hold a transaction open meanwhile.
        keys = [self._key(sha) for sha in shas]
        if keys:
            obstore.delete(self._probe, keys)  # S3's list deletes, a thousand a call

    def ping(self) -> None:
        """List a prefix, with few retries: a bucket that is not there fails within seconds."""
        # Asking for one object would not tell a bucket that is not there from an empty one.
        next(iter(obstore.list(self._probe, "00", chunk_size=1)), None)

    def _key(self, sha: str) -> str:
        return f"{_checked(sha)[:2]}/{sha}"


def make_storage(settings: Settings) -> Storage:
    """Return the storage that the settings name: a folder, or a bucket where it is a URL."""
    url = settings.storage
    if "://" in url:
        return BucketStorage(
            url,
            settings.folder("cache"),
            max_bytes=settings.cache_bytes,
            connections=settings.storage_connections,
        )
    return FolderStorage(Path(url))


def link(source: Path, path: Path) -> None:
    """Give a blob a second name, which costs nothing; copy it where that cannot be."""
    path.unlink(missing_ok=True)
    try:
        os.link(source, path)
    except OSError:
        part = path.with_name(f"{path.name}.part")
        shutil.copyfile(source, part)
        part.replace(path)


def _checked(sha: str) -> str:
    if not _SHA256.fullmatch(sha):
        raise ValueError(f"not a SHA-256 in hex: {sha!r}")
    return sha


def _is_stored(path: Path, target: Path, sha: str) -> bool:
    """Whether `target` holds the content already; what is of another size or content is damaged.

    A `path` that is gone was moved by an earlier call.
    """
    if not target.is_file():
        return False
    if not path.exists():
        return True
    return target.stat().st_size == path.stat().st_size and file_sha256(target) == sha


def _sync(paths: Iterable[Path]) -> None:
    """Bring files or folders to the disk; several at once, as the disk commits them together."""
    together = list(paths)
    if len(together) < 2:
        for path in together:
            _sync_one(path)
        return
    with ThreadPoolExecutor(8) as pool:
        for _ in pool.map(_sync_one, together):
            pass


def _sync_one(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
