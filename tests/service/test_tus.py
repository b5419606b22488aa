"""Uploads by tus 1.0.0: creation, offsets, checksums, expiry, termination, and their use."""

import base64
import hashlib
import json
import threading
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import anyio
import pytest
from fastapi import FastAPI
from sqlalchemy import func, select, update
from starlette.testclient import TestClient

from app.db.columns import now
from app.db.models import BlobPin, Upload, UploadPiece
from app.main import create_app
from app.settings import Settings
from app.uploads import receiving, service
from worker.jobs.execute import execute
from worker.runtime.types import Outcome, WorkerContext

pytestmark = pytest.mark.both_stacks

TUS = {"Tus-Resumable": "1.0.0"}
BYTES = {**TUS, "Content-Type": "application/offset+octet-stream"}


@pytest.fixture(autouse=True)
def small_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    """So that a few bytes are several pieces."""
    monkeypatch.setattr(receiving, "PIECE", 1000)
    monkeypatch.setattr(receiving, "_BUFFER", 100)


def begin(client: TestClient, length: int, name: str = "images.zip") -> str:
    about = f"filename {base64.b64encode(name.encode()).decode()},draft"
    headers = {**TUS, "Upload-Length": str(length), "Upload-Metadata": about}
    answer = client.post("/uploads", headers=headers)
    assert answer.status_code == 201, answer.text
    assert answer.headers["tus-resumable"] == "1.0.0"
    assert answer.headers["upload-expires"].endswith("GMT")
    location: str = answer.headers["location"]
    assert location == f"/uploads/{answer.json()['id']}"
    return location


def patch(client: TestClient, url: str, offset: int, data: Any, **headers: str) -> Any:
    sent = {**BYTES, "Upload-Offset": str(offset), **headers}
    return client.patch(url, content=data, headers=sent)


def send(client: TestClient, data: bytes, name: str = "images.zip") -> str:
    """Upload all of it; its id."""
    url = begin(client, len(data), name)
    assert patch(client, url, 0, data).status_code == 204
    return url.rpartition("/")[2]


def offset_of(client: TestClient, url: str) -> int:
    answer = client.head(url, headers=TUS)
    assert answer.status_code == 200
    assert answer.headers["cache-control"] == "no-store"
    return int(answer.headers["upload-offset"])


def count(app: FastAPI, table: Any) -> int:
    with app.state.database.read() as session:
        return session.scalar(select(func.count()).select_from(table)) or 0


@pytest.mark.slow
def test_what_there_is(client: TestClient, settings: Settings) -> None:
    answer = client.options("/uploads")
    assert answer.status_code == 204
    assert answer.headers["tus-version"] == "1.0.0"
    assert answer.headers["tus-extension"] == "creation,checksum,expiration,termination"
    assert answer.headers["tus-max-size"] == str(settings.max_upload_bytes)
    assert "sha1" in answer.headers["tus-checksum-algorithm"].split(",")


@pytest.mark.slow
def test_in_parts(client: TestClient, app: FastAPI) -> None:
    data = bytes(range(256)) * 20
    url = begin(client, len(data))
    at = 0
    for size in (1, 999, 1000, 2500, 0, 620):
        answer = patch(client, url, at, data[at : at + size])
        assert answer.status_code == 204, answer.text
        at += size
        assert answer.headers["upload-offset"] == str(at) == str(offset_of(client, url))
        assert answer.headers["tus-resumable"] == "1.0.0"
    head = client.head(url)
    assert head.headers["upload-length"] == str(len(data))
    assert head.headers["upload-metadata"].endswith(",draft")
    assert client.get(url).json()["filename"] == "images.zip"
    stored = service.stored(app.state.database, url.rpartition("/")[2])
    assert b"".join(app.state.storage.read(sha) for sha in stored.shas) == data
    assert count(app, UploadPiece) == 5


@pytest.mark.slow
def test_no_bytes_at_all(client: TestClient, app: FastAPI) -> None:
    url = begin(client, 0)
    assert offset_of(client, url) == 0
    assert service.stored(app.state.database, url.rpartition("/")[2]).shas == ()


def refused(answer: Any, status: int) -> dict[str, Any]:
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.headers["tus-resumable"] == "1.0.0"
    problem: dict[str, Any] = answer.json()
    return problem


@pytest.mark.slow
def test_refusals(client: TestClient, settings: Settings) -> None:
    url = begin(client, 10)
    assert patch(client, url, 0, b"abc").status_code == 204
    for version, status in (({}, 400), ({"Tus-Resumable": "0.2.2"}, 412)):
        kind = {"Content-Type": BYTES["Content-Type"], "Upload-Offset": "3"}
        answer = client.patch(url, content=b"x", headers=kind | version)
        assert refused(answer, status)
        assert answer.headers.get("tus-version") == (None if status == 400 else "1.0.0")
        assert refused(client.post("/uploads", headers={"Upload-Length": "3"} | version), status)
        assert refused(client.delete(url, headers=version), status)
    for offset in (0, 4):
        answer = patch(client, url, offset, b"x")
        assert refused(answer, 409)["offset"] == 3
        assert answer.headers["upload-offset"] == "3"
    assert refused(patch(client, url, 3, b"x" * 8), 413)
    assert refused(patch(client, url, 3, (b"x" for _ in range(8))), 413)  # no Content-Length
    assert refused(patch(client, url, 3, b"x", **{"Content-Type": "text/plain"}), 415)
    assert refused(patch(client, "/uploads/nothing", 0, b"x"), 404)
    assert refused(client.get("/uploads/nothing"), 404)
    assert client.head("/uploads/nothing").status_code == 404
    too_large = {**TUS, "Upload-Length": str(settings.max_upload_bytes + 1)}
    assert refused(client.post("/uploads", headers=too_large), 413)
    for length in ("-1", "x", str(2**63)):
        refused(client.post("/uploads", headers={**TUS, "Upload-Length": length}), 422)
    refused(client.post("/uploads", headers=TUS), 422)
    for about in ("filename !!", "filename YQ==,filename YQ==", "k " + "A" * 5000, ",", "ä YQ=="):
        headers = {**TUS, "Upload-Length": "1", "Upload-Metadata": about.encode()}
        refused(client.post("/uploads", headers=headers), 400)
    assert offset_of(client, url) == 3


def digest(data: bytes, algorithm: str) -> str:
    found = hashlib.new(algorithm, data).digest()
    return f"{algorithm} {base64.b64encode(found).decode()}"


@pytest.mark.slow
@pytest.mark.parametrize("algorithm", ["sha1", "sha256", "md5"])
def test_checksums(client: TestClient, algorithm: str) -> None:
    data = b"0123456789" * 300  # more than a piece: all of it, or nothing
    url = begin(client, 2 * len(data))
    wrong = patch(client, url, 0, data, **{"Upload-Checksum": digest(b"other", algorithm)})
    assert refused(wrong, 460)["type"] == "/problems/checksum-mismatch"
    assert offset_of(client, url) == 0
    right = {"Upload-Checksum": digest(data, algorithm)}
    assert patch(client, url, 0, data, **right).headers["upload-offset"] == "3000"
    for bad in ("crc32 AAAA", "sha1", "sha1 !", ""):
        assert refused(patch(client, url, 3000, data, **{"Upload-Checksum": bad}), 400)
    assert offset_of(client, url) == 3000


@pytest.mark.slow
def test_a_broken_line_keeps_what_came(app: FastAPI, client: TestClient) -> None:
    """Unless there is a checksum, which nothing that was cut off can have."""
    url = begin(client, 5000)
    cut_off(app, url, b"x" * 2345, {})
    assert offset_of(client, url) == 2345
    assert count(app, UploadPiece) == 3, "a long body is kept in pieces as it comes"
    url = begin(client, 5000)
    cut_off(app, url, b"x" * 2345, {"Upload-Checksum": digest(b"", "sha1")})
    assert offset_of(client, url) == 0


def cut_off(app: FastAPI, url: str, data: bytes, headers: dict[str, str]) -> None:
    """PATCH below any client: the line breaks after `data`."""
    chunks = [data[i : i + 50] for i in range(0, len(data), 50)]
    parts = [{"type": "http.request", "body": chunk, "more_body": True} for chunk in chunks]
    messages = iter([*parts, {"type": "http.disconnect"}])

    async def receive() -> Any:
        return next(messages)

    async def send(_: Any) -> None:
        pass

    sent = {k.lower(): v for k, v in {**BYTES, "Upload-Offset": "0", **headers}.items()}
    scope = {
        "type": "http",
        "method": "PATCH",
        "path": url,
        "raw_path": url.encode(),
        "query_string": b"",
        "headers": [(k.encode(), v.encode()) for k, v in sent.items()],
        "http_version": "1.1",
        "scheme": "http",
        "server": ("test", 80),
        "client": ("test", 1),
    }
    anyio.run(app, scope, receive, send)


@pytest.mark.slow
def test_two_at_the_same_place(
    client: TestClient, app: FastAPI, monkeypatch: pytest.MonkeyPatch, stored: Any
) -> None:
    """Both see offset 0; one of them adds, the other is told, and its bytes are not kept."""
    url = begin(client, 100)
    real, meeting = service.add, threading.Barrier(2)

    def both_at_once(*args: Any) -> int:
        meeting.wait(60)
        return real(*args)

    monkeypatch.setattr(service, "add", both_at_once)
    statuses: list[int] = []

    def add(data: bytes) -> None:
        statuses.append(patch(client, url, 0, data).status_code)

    threads = [threading.Thread(target=add, args=(bytes([i]) * 10,)) for i in (1, 2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(statuses) == [204, 409]
    assert offset_of(client, url) == 10
    assert (count(app, UploadPiece), count(app, BlobPin)) == (1, 0)
    assert len(stored(app.state.settings.storage)) == 1


@pytest.mark.slow
def test_termination(
    client: TestClient,
    app: FastAPI,
    settings: Settings,
    stored: Any,
    remove_deleted: Callable[[Settings], None],
) -> None:
    for how in ("DELETE", "POST"):
        url = begin(client, 3000)
        assert patch(client, url, 0, b"y" * 2500).status_code == 204
        assert stored(settings.storage)
        override = {"X-HTTP-Method-Override": "DELETE"} if how == "POST" else {}
        assert client.request(how, url, headers={**TUS, **override}).status_code == 204
        assert refused(client.get(url), 404)
        assert refused(client.delete(url, headers=TUS), 404)
        assert refused(patch(client, url, 2500, b"y" * 500), 404)
        remove_deleted(settings)
        assert stored(settings.storage) == set()
    assert (count(app, Upload), count(app, UploadPiece)) == (0, 0)


@pytest.mark.slow
def test_another_method_by_header(client: TestClient) -> None:
    url = begin(client, 4)
    headers = {**BYTES, "Upload-Offset": "0", "X-HTTP-Method-Override": "PATCH"}
    answer = client.post(url, content=b"abcd", headers=headers)
    assert (answer.status_code, answer.headers["upload-offset"]) == (204, "4")
    assert refused(client.post(url, headers=TUS), 400)


@pytest.mark.slow
def test_expiry(
    client: TestClient,
    app: FastAPI,
    settings: Settings,
    stored: Any,
    remove_deleted: Callable[[Settings], None],
) -> None:
    old, young = begin(client, 30), begin(client, 30)
    for url in (old, young):
        assert patch(client, url, 0, url.encode()[-20:]).status_code == 204
    with app.state.database.begin() as session:
        past = update(Upload).where(Upload.id == old.rpartition("/")[2])
        session.execute(past.values(expires_at=now() - timedelta(seconds=1)))
    assert refused(client.get(old), 404)
    assert service.clean_up(app.state.database) == 1
    remove_deleted(settings)
    assert (count(app, Upload), len(stored(settings.storage))) == (1, 1)
    assert offset_of(client, young) == 20


def points(kit: Any) -> bytes:
    return json.dumps(kit.points()).encode()


@pytest.mark.slow
def test_a_data_set_of_uploads_at_once(
    client: TestClient,
    app: FastAPI,
    settings: Settings,
    kit: Any,
    stored: Any,
    remove_deleted: Callable[[Settings], None],
) -> None:
    parts = [kit.zipped({name: data}) for name, data in kit.images().items()]
    fields = {
        "annotations_upload": send(client, points(kit), "cells.json"),
        "images_upload": [send(client, part) for part in parts],
        "name": "",
    }
    wrong = client.post("/datasets", data={**fields, "parent": "x"}, files={"none": (None, "")})
    assert wrong.status_code == 422
    assert count(app, Upload) == 3, "what was refused may be sent again without its bytes"
    answer = client.post("/datasets", data=fields, files={"parent": (None, "")})
    assert answer.status_code == 201, answer.text
    assert (answer.json()["name"], answer.json()["images"]) == ("cells", 2)
    remove_deleted(settings)
    assert (count(app, Upload), count(app, UploadPiece)) == (0, 0)
    assert len(stored(settings.storage)) == 3


@pytest.mark.slow
def test_a_data_set_of_uploads_later(
    client: TestClient,
    app: FastAPI,
    settings: Settings,
    kit: Any,
    stored: Any,
    remove_deleted: Callable[[Settings], None],
) -> None:
    upload = send(client, kit.zipped(kit.images()))
    files = {"annotations": ("points.json", points(kit))}
    headers = {"Prefer": "respond-async"}
    answer = client.post("/datasets", data={"images_upload": upload}, files=files, headers=headers)
    assert answer.status_code == 202, answer.text
    job_id = answer.json()["report"]["progress"]["job_id"]
    gone = client.delete(f"/uploads/{upload}", headers=TUS)
    assert gone.status_code == 204, "the import holds what it needs"
    worker = WorkerContext(settings, app.state.database, app.state.storage)
    assert execute(job_id, worker) is Outcome.ENDED
    assert client.get(answer.headers["location"]).json()["status"] == "ready"
    remove_deleted(settings)
    assert len(stored(settings.storage)) == 3


def test_uploads_that_cannot_be_used(client: TestClient, kit: Any, app: FastAPI) -> None:
    half = begin(client, 10).rpartition("/")[2]
    files = {"annotations": ("points.json", points(kit))}
    for upload_id, words in ((half, "0 of 10 bytes"), ("nobody", "no upload 'nobody'")):
        answer = client.post("/datasets", data={"images_upload": upload_id}, files=files)
        (fault,) = [e for e in answer.json()["errors"] if e["part"] == "images_upload"]
        assert answer.status_code == 422
        assert words in fault["detail"]
        assert fault["hint"]
    assert count(app, Upload) == 1


@pytest.mark.slow
def test_a_document_that_is_too_large(make_settings: Callable[..., Settings], kit: Any) -> None:
    app = create_app(make_settings(max_document_bytes=100))
    with TestClient(app) as client:
        upload = send(client, points(kit), "points.json")
        files = {"images": ("i.zip", kit.zipped(kit.images()))}
        answer = client.post("/datasets", data={"annotations_upload": upload}, files=files)
        assert answer.status_code == 422
        assert answer.json()["errors"][0]["part"] == "annotations_upload"
