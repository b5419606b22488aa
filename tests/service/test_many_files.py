"""Numbers of files, not bytes alone, decide what a request does and what a worker does."""

import asyncio
import io
import struct
import tarfile
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient

from app.datasets import archives
from app.http.scratch import scratch_folder
from app.main import create_app
from app.settings import Settings
from worker.jobs.execute import execute
from worker.runtime.types import WorkerContext

pytestmark = pytest.mark.slow

FEW = 20  # files that a request takes
LIMITS = archives.Limits(FEW, 10_000, float("inf"))


@pytest.fixture
def client(make_settings: Callable[..., Settings]) -> Any:
    settings = make_settings(
        sync_import_files=FEW,
        sync_import_bytes=100_000,
        sync_document_bytes=5_000,
        max_archive_files=100,
        max_form_parts=60,
    )
    with TestClient(create_app(settings), raise_server_exceptions=False) as client:
        yield client


def many(kit: Any, count: int, data: bytes = b"") -> dict[str, bytes]:
    """The two images that are asked for, and so many files beside them."""
    images: dict[str, bytes] = kit.images()
    return images | {f"beside/{i:04d}.txt": data for i in range(count)}


def packed(files: dict[str, bytes], mode: str) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode=mode) as archive:  # type: ignore[call-overload]
        for name, data in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return buffer.getvalue()


@pytest.mark.parametrize("kind", ["zip", "w", "w:gz"])
def test_many_entries_are_a_workers(client: TestClient, kit: Any, kind: str) -> None:
    def pack(files: dict[str, bytes]) -> bytes:
        archive: bytes = kit.zipped(files) if kind == "zip" else packed(files, kind)
        return archive

    few = kit.upload(client, kit.points(), pack(many(kit, 10)))
    assert (few.status_code, few.json()["status"]) == (201, "ready"), few.text
    answer = kit.upload(client, kit.points(), pack(many(kit, 30)))
    assert (answer.status_code, answer.json()["status"]) == (202, "importing"), answer.text
    state: Any = client.app.state  # type: ignore[attr-defined]
    worker = WorkerContext(state.settings, state.database, state.storage)
    execute(answer.json()["report"]["progress"]["job_id"], worker)
    dataset = client.get(answer.headers["location"]).json()
    assert (dataset["status"], dataset["images"]) == ("ready", 2)


def test_what_unpacks_to_much_and_long_documents_are_a_workers(
    client: TestClient, kit: Any
) -> None:
    large = kit.zipped(many(kit, 3, bytes(60_000)))
    assert len(large) < 10_000
    assert kit.upload(client, kit.points(), large).status_code == 202
    long = kit.points(2, each=60)
    assert kit.upload(client, long, kit.images()).status_code == 202


def test_an_archive_that_was_uploaded_before(client: TestClient, kit: Any) -> None:
    data = kit.zipped(many(kit, 30))
    tus = {"Tus-Resumable": "1.0.0"}
    begun = client.post("/uploads", headers={**tus, "Upload-Length": str(len(data))})
    bytes_ = {**tus, "Content-Type": "application/offset+octet-stream", "Upload-Offset": "0"}
    url = begun.headers["location"]
    assert client.patch(url, content=data, headers=bytes_).status_code == 204
    form = {"images_upload": url.rpartition("/")[2]}
    assert kit.upload(client, kit.points(), None, **form).status_code == 202


def test_all_archives_share_one_limit(client: TestClient, kit: Any) -> None:
    one = kit.zipped(many(kit, 70))
    files = [
        ("annotations", ("points.json", b"{}")),
        *[("images", (f"{n}.zip", one)) for n in range(2)],
    ]
    answer = client.post("/datasets", files=files)
    assert answer.status_code == 202
    state: Any = client.app.state  # type: ignore[attr-defined]
    worker = WorkerContext(state.settings, state.database, state.storage)
    execute(answer.json()["report"]["progress"]["job_id"], worker)
    errors = client.get(answer.headers["location"]).json()["report"]["errors"]
    assert any("more than the 100 files" in error["detail"] for error in errors)


def test_too_many_parts(client: TestClient) -> None:
    files = [("images", (f"{n}.png", b"")) for n in range(61)]
    answer = client.post("/datasets", files=files)
    assert (answer.status_code, answer.json()["limit"]) == (413, 60)
    assert "archive" in answer.json()["detail"]
    uploads = client.app.state.settings.folder("uploads")  # type: ignore[attr-defined]
    assert list(uploads.iterdir()) == []


def test_a_zip_that_tells_of_fewer_entries_than_it_has(kit: Any, tmp_path: Path) -> None:
    data = bytearray(kit.zipped(many(kit, 200)))
    end = data.rfind(b"PK\x05\x06")
    struct.pack_into("<HH", data, end + 8, 1, 1)
    path = tmp_path / "lying.zip"
    path.write_bytes(data)
    assert archives.is_large(path, LIMITS)
    with pytest.raises(archives.ArchiveProblem, match="more than the 20 files"):
        next(archives.members(path, LIMITS))
    for cut in (bytes(data[:-30]), b"PK\x05\x06", b""):
        path.write_bytes(cut)
        assert not archives.is_large(path, LIMITS), "whoever reads it says what is wrong"


def test_a_requests_folder_is_removed_by_a_thread(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    threads: list[int] = []
    import shutil

    remove = shutil.rmtree

    def seen(*args: Any, **options: Any) -> None:
        threads.append(threading.get_ident())
        remove(*args, **options)

    monkeypatch.setattr(shutil, "rmtree", seen)

    async def left() -> None:
        async with scratch_folder(tmp_path) as folder:
            (folder / "file").write_bytes(b"x")
            await asyncio.sleep(60)

    async def cancelled() -> None:
        task = asyncio.create_task(left())
        while not list(tmp_path.glob("*/file")):
            await asyncio.sleep(0.01)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(cancelled())
    assert list(tmp_path.iterdir()) == []
    assert threads
    assert threading.get_ident() not in threads
