"""Blobs by content: the same rules in a folder and in a bucket; pins keep them, rows own them."""

import hashlib
import io
import os
import threading
import time
from pathlib import Path

import obstore
import pytest
from fastapi import FastAPI
from obstore.exceptions import BaseError
from obstore.store import MemoryStore

from app.db.columns import now
from app.db.models import BlobPin, Dataset, DatasetStatus
from app.db.session import Database
from app.errors import BlobMissing
from app.settings import Settings
from app.storage import garbage_collection as blobs
from app.storage.store import BlobState, BucketStorage, FolderStorage, Storage, make_storage


@pytest.fixture(params=["folder", "bucket", pytest.param("s3", marks=pytest.mark.service)])
def storage(request: pytest.FixtureRequest, tmp_path: Path) -> Storage:
    if request.param == "folder":
        return FolderStorage(tmp_path / "blobs")
    if request.param == "s3":  # multipart from 5 MB on, errors and all
        return BucketStorage(request.getfixturevalue("bucket"), tmp_path / "cache")
    return BucketStorage("memory://", tmp_path / "cache", MemoryStore())


def files(folder: Path) -> list[Path]:
    return [p for p in folder.rglob("*") if p.is_file()]


@pytest.mark.slow
@pytest.mark.parametrize("data", [b"", b"x", b"0123456789" * 1_000_000])
def test_what_goes_in_comes_out(storage: Storage, tmp_path: Path, data: bytes) -> None:
    sha = hashlib.sha256(data).hexdigest()
    source = tmp_path / "source"
    source.write_bytes(data)
    assert storage.put_file(source) == sha
    assert source.exists()
    assert storage.put_bytes(data) == storage.put_stream([data[:3], data[3:]]) == sha
    assert storage.exists(sha)
    assert storage.read(sha) == storage.local_path(sha).read_bytes() == data
    with storage.open(sha) as file:
        assert file.read() == data
    assert storage.put_file(source, sha=sha, move=True) == sha
    assert not source.exists()
    storage.delete(sha)
    storage.delete(sha)
    assert not storage.exists(sha)
    with pytest.raises(BlobMissing):
        storage.read(sha)


def test_moved_into_an_empty_storage(storage: Storage, tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.write_bytes(b"x")
    sha = storage.put_file(source, move=True)
    assert not source.exists()
    assert storage.read(sha) == b"x"


def test_equal_content_is_one_file(tmp_path: Path) -> None:
    storage = FolderStorage(tmp_path)
    assert storage.put_bytes(b"x") == storage.put_bytes(b"x")
    assert len(files(tmp_path)) == 1


def test_a_stream_that_breaks_leaves_nothing(storage: Storage, tmp_path: Path) -> None:
    def broken() -> object:
        yield b"x"
        raise OSError("gone")

    with pytest.raises(OSError, match="gone"):
        storage.put_stream(broken())  # type: ignore[arg-type]
    assert files(tmp_path) == []


def damage(storage: Storage, sha: str, data: bytes) -> None:
    """Overwrite what is stored under `sha`, as a crash or a bad disk would."""
    if isinstance(storage, FolderStorage):
        (storage.folder / sha[:2] / sha).write_bytes(data)
    else:
        obstore.put(storage._store, f"{sha[:2]}/{sha}", data)


@pytest.mark.parametrize("found", [b"", b"hel", b"hello, world and more"])
def test_a_blob_of_another_size_is_replaced(storage: Storage, found: bytes) -> None:
    sha = storage.put_bytes(b"hello, world")
    damage(storage, sha, found)
    assert storage.state(sha) is BlobState.DAMAGED
    assert storage.put_bytes(b"hello, world") == sha
    assert storage.state(sha) is BlobState.WHOLE


def test_a_damaged_blob_is_set_aside_and_healed_by_its_file(storage: Storage) -> None:
    sha = storage.put_bytes(b"hello")
    assert storage.state(sha) is BlobState.WHOLE
    damage(storage, sha, b"hellO")
    assert storage.state(sha) is BlobState.DAMAGED
    storage.set_aside(sha)
    assert storage.state(sha) is BlobState.MISSING
    assert storage.put_bytes(b"hello") == sha
    assert storage.state(sha) is BlobState.WHOLE


def test_in_a_folder_a_damaged_blob_is_replaced_whatever_its_size(tmp_path: Path) -> None:
    storage = FolderStorage(tmp_path)
    sha = storage.put_bytes(b"hello")
    damage(storage, sha, b"hellO")
    storage.put_bytes(b"hello")
    assert storage.read(sha) == b"hello"


@pytest.mark.slow
@pytest.mark.parametrize("move", [True, False])
def test_many_files_are_stored_together(storage: Storage, tmp_path: Path, move: bool) -> None:
    files: dict[str, Path] = {}
    for number in range(150):
        path = tmp_path / f"source-{number}"
        path.write_bytes(str(number % 140).encode())
        files[hashlib.sha256(path.read_bytes()).hexdigest()] = path
    storage.put_files(files, move=move)
    storage.put_files(files, move=move)  # a retry, whose files may have been moved before
    assert all(storage.state(sha) is BlobState.WHOLE for sha in files)
    assert any(path.exists() for path in files.values()) is not move


def test_files_are_on_disk_before_they_have_their_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    storage = FolderStorage(tmp_path / "blobs")
    order: list[tuple[str, int]] = []
    fsync, replace = os.fsync, Path.replace

    def synced(descriptor: int) -> None:
        order.append(("fsync", os.fstat(descriptor).st_ino))
        fsync(descriptor)

    def renamed(path: Path, target: Path) -> Path:
        order.append(("rename", path.stat().st_ino))
        return replace(path, target)

    monkeypatch.setattr(os, "fsync", synced)
    monkeypatch.setattr(Path, "replace", renamed)
    for move in (False, True):
        source = tmp_path / "source"
        source.write_bytes(str(move).encode())
        order.clear()
        sha = storage.put_file(source, move=move)
        blob = storage.local_path(sha)
        inode, folder = blob.stat().st_ino, blob.parent.stat().st_ino
        assert order.index(("fsync", inode)) < order.index(("rename", inode))
        assert order.index(("rename", inode)) < order.index(("fsync", folder))


@pytest.mark.parametrize("name", ["", "../../etc/passwd", "A" * 64, "0" * 63, "0" * 64 + "\n"])
def test_only_digests_are_names(storage: Storage, name: str) -> None:
    for use in (storage.exists, storage.delete, storage.local_path):
        with pytest.raises(ValueError, match="SHA-256"):
            use(name)


def test_a_bucket_is_read_once_and_its_content_is_checked(tmp_path: Path) -> None:
    store = MemoryStore()
    storage = BucketStorage("memory://", tmp_path, store)
    sha = storage.put_bytes(b"x")
    storage.local_path(sha)
    store.delete(f"{sha[:2]}/{sha}")
    assert storage.read(sha) == b"x"
    other = hashlib.sha256(b"y").hexdigest()
    store.put(f"{other[:2]}/{other}", io.BytesIO(b"tampered"))
    with pytest.raises(BlobMissing):
        storage.local_path(other)


def test_ping(storage: Storage) -> None:
    storage.ping()


@pytest.mark.service
def test_a_bucket_that_is_not_there(bucket: str, tmp_path: Path) -> None:
    with pytest.raises(BaseError, match="NoSuchBucket"):
        BucketStorage(bucket.replace("s3://", "s3://no-"), tmp_path).ping()


@pytest.mark.slow
def test_an_s3_that_is_away_is_told_within_seconds(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ENDPOINT", "http://127.0.0.1:1")
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_REGION", "AWS_ALLOW_HTTP"):
        monkeypatch.setenv(name, "true")
    began = time.monotonic()
    with pytest.raises(BaseError):
        BucketStorage("s3://bucket/blobs", tmp_path).ping()
    assert time.monotonic() - began < 100


def test_where_the_settings_say(settings: Settings, make_settings: object) -> None:
    assert isinstance(make_storage(settings), FolderStorage)
    assert settings.storage == str(settings.data_dir / "blobs")
    assert make_settings(storage_url="s3://b/p").storage == "s3://b/p"  # type: ignore[operator]


class TestPins:
    @pytest.fixture
    def database(self, app: FastAPI) -> Database:
        database: Database = app.state.database
        return database

    def dataset(self, sha: str) -> Dataset:
        return Dataset(
            name="n",
            status=DatasetStatus.READY,
            images=0,
            annotations=0,
            report={},
            document_sha=sha,
        )

    def test_a_block_that_fails_leaves_no_blob(self, database: Database, storage: Storage) -> None:
        sha = hashlib.sha256(b"x").hexdigest()

        def fail() -> None:
            with blobs.pinned(database, storage, [sha]):
                storage.put_bytes(b"x")
                raise RuntimeError

        with pytest.raises(RuntimeError):
            fail()
        assert not storage.exists(sha)

    def test_a_block_that_commits_keeps_it(self, database: Database, storage: Storage) -> None:
        sha = hashlib.sha256(b"x").hexdigest()
        with blobs.pinned(database, storage, [sha, sha]):
            storage.put_bytes(b"x")
            with database.begin() as session:
                session.add(self.dataset(sha))
        assert storage.exists(sha)
        assert blobs.forget(database, storage, [sha]) == 0
        assert blobs.clean_up(database, storage) == 0

    def test_what_is_pinned_is_not_deleted(self, database: Database, storage: Storage) -> None:
        sha = storage.put_bytes(b"x")
        with blobs.pinned(database, storage, [sha]):
            assert blobs.forget(database, storage, [sha]) == 0
            with blobs.pinned(database, storage, [sha]):
                pass
            assert storage.exists(sha)
        assert not storage.exists(sha)

    def test_after_a_crash_the_old_pins_are_swept(
        self, database: Database, storage: Storage
    ) -> None:
        lost, recent = storage.put_bytes(b"lost"), storage.put_bytes(b"recent")
        with database.begin() as session:
            old = now() - 2 * blobs.STALE_AFTER
            session.add(BlobPin(pinned_by="a", sha256=lost, created_at=old))
            session.add(BlobPin(pinned_by="b", sha256=recent))
        assert blobs.clean_up(database, storage) == 1
        assert not storage.exists(lost)
        assert storage.exists(recent)

    @pytest.mark.slow
    def test_many_at_once(self, database: Database, storage: Storage) -> None:
        shas = [storage.put_bytes(str(i).encode()) for i in range(1_203)]
        with blobs.pinned(database, storage, shas[1:]):
            assert blobs.forget(database, storage, shas) == 1
        assert not any(storage.exists(sha) for sha in shas)

    @pytest.mark.slow
    def test_imports_and_deletions_of_one_content_at_once(
        self, database: Database, tmp_path: Path
    ) -> None:
        """Whoever's row is committed has its blob, however the threads interleave."""
        storage = FolderStorage(tmp_path / "shared")
        sha = hashlib.sha256(b"x").hexdigest()
        failures: list[BaseException] = []

        def work() -> None:
            try:
                for _ in range(5):
                    with blobs.pinned(database, storage, [sha]):
                        storage.put_bytes(b"x")
                        with database.begin() as session:
                            dataset = self.dataset(sha)
                            session.add(dataset)
                    assert storage.exists(sha)
                    with database.begin() as session:
                        session.delete(session.get_one(Dataset, dataset.id))
                    blobs.forget(database, storage, [sha])
            except BaseException as error:
                failures.append(error)

        threads = [threading.Thread(target=work) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert failures == []
        assert not storage.exists(sha)
