"""Blobs of a bucket on this machine: fetched and stored side by side, in a cache with a bound."""

import hashlib
import os
import threading
import time
from pathlib import Path

import pytest
from obstore.store import MemoryStore

from app.errors import BlobMissing
from app.storage.store import CACHED_SECONDS, BucketStorage, FolderStorage

TOGETHER = 4
PATIENCE = 20.0  # seconds, of a barrier that breaks only where the rule does


@pytest.fixture
def storage(tmp_path: Path) -> BucketStorage:
    return BucketStorage("memory://", tmp_path / "cache", MemoryStore(), connections=TOGETHER)


def uncached(storage: BucketStorage, count: int) -> list[str]:
    """Blobs that the bucket has and the cache has not."""
    shas = [storage.put_bytes(f"blob {n}".encode()) for n in range(count)]
    assert cached(storage) == set()
    return shas


def cached(storage: BucketStorage) -> set[str]:
    return {path.name for path in storage._cache.folder.glob("??/*")}


def test_blobs_are_fetched_side_by_side(
    storage: BucketStorage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shas, barrier = uncached(storage, 2 * TOGETHER), threading.Barrier(TOGETHER)
    local_path = BucketStorage.local_path

    def waiting(self: BucketStorage, sha: str) -> Path:
        barrier.wait(PATIENCE)
        return local_path(self, sha)

    monkeypatch.setattr(BucketStorage, "local_path", waiting)
    found = dict(storage.local_files(shas, tmp_path / "job"))
    assert set(found) == set(shas)
    for sha, path in found.items():
        assert isinstance(path, Path)
        assert hashlib.sha256(path.read_bytes()).hexdigest() == sha


def test_blobs_are_stored_side_by_side(
    storage: BucketStorage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    barrier, size = threading.Barrier(TOGETHER), BucketStorage._size

    def waiting(self: BucketStorage, sha: str) -> int | None:
        barrier.wait(PATIENCE)
        return size(self, sha)

    files = {}
    for number in range(2 * TOGETHER):
        path = tmp_path / str(number)
        path.write_text(str(number))
        files[hashlib.sha256(path.read_bytes()).hexdigest()] = path
    with monkeypatch.context() as patched:
        patched.setattr(BucketStorage, "_size", waiting)
        storage.put_files(files, move=True)
    assert all(storage.exists(sha) for sha in files)
    assert not any(path.exists() for path in files.values())


def test_a_file_that_cannot_be_stored_is_told(storage: BucketStorage, tmp_path: Path) -> None:
    (tmp_path / "a").write_text("a")
    with pytest.raises(FileNotFoundError):
        storage.put_files({"0" * 64: tmp_path / "a", "1" * 64: tmp_path / "gone"})


def test_a_blob_that_is_gone_is_an_error_of_its_own(storage: BucketStorage, tmp_path: Path) -> None:
    shas = [*uncached(storage, 2), "0" * 64]
    found = dict(storage.local_files(shas, tmp_path / "job"))
    assert isinstance(found.pop("0" * 64), BlobMissing)
    assert all(isinstance(path, Path) for path in found.values())


def test_who_leaves_off_fetches_no_more(storage: BucketStorage, tmp_path: Path) -> None:
    shas = uncached(storage, 200)
    for _ in storage.local_files(shas, tmp_path / "job"):
        break
    assert len(cached(storage)) < len(shas)


def age(storage: BucketStorage, sha: str, seconds: float) -> None:
    moment = time.time() - seconds
    os.utime(storage._cache.local_path(sha), (moment, moment))


def test_what_was_used_longest_ago_makes_room(tmp_path: Path) -> None:
    storage = BucketStorage("memory://", tmp_path / "cache", MemoryStore(), max_bytes=21)
    shas = uncached(storage, 5)  # of 6 bytes each
    for number, sha in enumerate(shas[:4]):
        storage.local_path(sha)
        age(storage, sha, 2 * CACHED_SECONDS - number)
    storage.local_path(shas[0])  # used again
    storage.local_path(shas[4])
    assert cached(storage) == {shas[0], shas[3], shas[4]}
    assert storage.read(shas[1]) == b"blob 1"


def test_what_was_used_just_now_stays_whatever_the_bound(tmp_path: Path) -> None:
    storage = BucketStorage("memory://", tmp_path / "cache", MemoryStore(), max_bytes=6)
    shas = uncached(storage, 4)
    for sha in shas:
        storage.local_path(sha)
    assert cached(storage) == set(shas)


def test_a_jobs_files_outlive_the_cache(storage: BucketStorage, tmp_path: Path) -> None:
    shas = uncached(storage, 3)
    found = dict(storage.local_files(shas, tmp_path / "job"))
    storage._cache.delete_many(shas)
    for sha, path in found.items():
        assert isinstance(path, Path)
        assert hashlib.sha256(path.read_bytes()).hexdigest() == sha
    again = dict(storage.local_files(shas, tmp_path / "job"))
    assert again == found
    assert cached(storage) == set(), "what is there is not fetched again"


def test_a_folders_blobs_are_where_they_are(tmp_path: Path) -> None:
    storage = FolderStorage(tmp_path / "blobs")
    sha = storage.put_bytes(b"x")
    found = dict(storage.local_files([sha, "0" * 64], tmp_path / "job"))
    assert found[sha] == storage.local_path(sha)
    assert isinstance(found["0" * 64], BlobMissing)
    assert not (tmp_path / "job").exists()
