"""Every kind of bad upload: all faults in one problem, and nothing left behind."""

import json
import struct
import zlib
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import anyio
import pytest
from fastapi import FastAPI
from sqlalchemy import func, select
from starlette.testclient import TestClient

from app.db.columns import Base
from app.main import create_app
from app.settings import Settings

pytestmark = pytest.mark.both_stacks

Stored = Callable[[str], set[str]]


def is_empty(app: FastAPI, settings: Settings, stored: Stored) -> bool:
    """No row, no blob, no file of an upload."""
    with app.state.database.read() as session:
        rows = sum(
            session.scalar(select(func.count()).select_from(table)) or 0
            for table in Base.metadata.sorted_tables
        )
    uploads = str(settings.data_dir / "uploads")
    return rows == 0 and not stored(settings.storage) | stored(uploads)


@pytest.fixture(autouse=True)
def nothing_is_left(app: FastAPI, settings: Settings, stored: Stored) -> Iterator[None]:
    yield
    assert is_empty(app, settings, stored)


def refused(answer: Any, status: int = 422) -> list[dict[str, str]]:
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    problem = answer.json()
    assert problem["status"] == status
    assert problem["type"].startswith("/problems/")
    assert "Traceback" not in answer.text
    errors: list[dict[str, str]] = problem.get("errors", [])
    assert all(e["detail"] for e in errors)
    return errors


def where(errors: list[dict[str, str]]) -> set[tuple[str, str]]:
    return {(e["part"], e["pointer"]) for e in errors}


def post_raw(
    app: FastAPI, receive: Callable[[], Awaitable[Any]], *headers: tuple[bytes, bytes]
) -> list[int]:
    """POST /datasets below any client: the body is what `receive` gives. The statuses sent."""
    statuses: list[int] = []

    async def send(message: Any) -> None:
        if message["type"] == "http.response.start":
            statuses.append(message["status"])

    scope = {
        "type": "http",
        "method": "POST",
        "path": "/datasets",
        "raw_path": b"/datasets",
        "query_string": b"",
        "headers": [(b"content-type", b"multipart/form-data; boundary=x"), *headers],
        "http_version": "1.1",
        "scheme": "http",
        "server": ("test", 80),
        "client": ("test", 1),
    }
    anyio.run(app, scope, receive, send)
    return statuses


Change = Callable[[dict[str, Any]], Any]

DOCUMENTS: dict[str, tuple[Change, str]] = {
    "no point": (lambda d: [a.pop("point") for a in d["annotations"]], "/annotations"),
    "outside": (lambda d: d["annotations"][1].update(point=[40, 3]), "/annotations/1/point"),
    "text": (lambda d: d["annotations"][1].update(point=["a", 3]), "/annotations/1/point"),
    "no image": (lambda d: d["annotations"][0].update(image_id=9), "/annotations/0/image_id"),
    "no class": (lambda d: d["annotations"][0].update(category_id=9), "/annotations/0/category_id"),
    "same id": (lambda d: d["annotations"][1].update(id=100), "/annotations/1/id"),
    "same image id": (lambda d: d["images"][1].update(id=1), "/images/1/id"),
    "huge id": (lambda d: d["annotations"][1].update(id=2**63), "/annotations/1/id"),
    "NaN": (lambda d: d["annotations"][1].update(point=[float("nan"), 3]), "/annotations/1/point"),
    "leaves": (lambda d: d["images"][1].update(file_name="../2.png"), "/images/1/file_name"),
    "nobody sent it": (lambda d: d["images"][1].update(file_name="3.png"), "/images/1/file_name"),
    "other size": (lambda d: d["images"][1].update(width=41), "/images/1"),
    "no annotations": (lambda d: d.update(annotations=[]), "/annotations"),
    "no images": (lambda d: d.update(images=[]), "/images"),
    "no classes": (lambda d: d.pop("categories"), "/categories"),
}


@pytest.mark.slow
@pytest.mark.parametrize("case", DOCUMENTS)
def test_wrong_documents(client: TestClient, kit: Any, case: str) -> None:
    change, pointer = DOCUMENTS[case]
    document = kit.points(2, 2)
    document["annotations"][0]["id"] = 100
    change(document)
    errors = refused(kit.upload(client, document, kit.zipped(kit.images())))
    assert any(e["pointer"].startswith(pointer) or e["pointer"] == "" for e in errors), errors
    assert all(e["part"] == "annotations" for e in errors)


@pytest.mark.slow
@pytest.mark.parametrize("raw", [b"", b'{"images": [', b"[]", b"\xff\xfe", b"null", b"[" * 100_000])
def test_no_json_at_all(client: TestClient, kit: Any, raw: bytes) -> None:
    errors = refused(kit.upload(client, raw, kit.images()))
    assert where(errors) == {("annotations", "")}


IMAGES: dict[str, Callable[[Any], bytes]] = {
    "0 bytes": lambda kit: b"",
    "text": lambda kit: b"this is a text called .jpg",
    "cut off": lambda kit: kit.image(kind="JPEG")[:-100],
    "damaged": lambda kit: kit.image()[:50] + b"\0" * 20 + kit.image()[70:],
    "GIF": lambda kit: kit.image(kind="GIF"),
}


@pytest.mark.slow
@pytest.mark.parametrize("case", IMAGES)
@pytest.mark.parametrize("packed", [False, True])
def test_wrong_images(client: TestClient, kit: Any, case: str, packed: bool) -> None:
    images: Any = kit.images() | {"2.png": IMAGES[case](kit)}
    errors = refused(kit.upload(client, kit.points(), kit.zipped(images) if packed else images))
    assert where(errors) == {("annotations", "/images/1/file_name")}


def test_an_image_of_too_many_pixels_is_told_by_its_header(client: TestClient, kit: Any) -> None:
    """20,000 × 20,000: refused before it is decoded (it has no pixels to decode)."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        body = kind + data
        return struct.pack(">I", len(data)) + body + struct.pack(">I", zlib.crc32(body))

    header = struct.pack(">IIBBBBB", 20_000, 20_000, 8, 2, 0, 0, 0)
    huge = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IEND", b"")
    errors = refused(kit.upload(client, kit.points(), kit.images() | {"2.png": huge}))
    assert where(errors) == {("annotations", "/images/1/file_name")}
    assert "20000×20000 pixels are more than the 100,000,000 allowed" in errors[0]["detail"]


def test_everything_is_listed_at_once(client: TestClient, kit: Any) -> None:
    document = kit.points(4, 2)
    document["annotations"][0]["point"] = [1]
    document["annotations"][3]["category_id"] = 5
    document["images"][2]["height"] = 31
    images = kit.images(3) | {"2.png": b"text"}
    answer = kit.upload(client, document, images, truth={"images": []}, name="x" * 201, colour="r")
    errors = refused(answer)
    expected = {
        ("annotations", "/annotations/0/point"),
        ("annotations", "/annotations/3/category_id"),
        ("annotations", "/images/1/file_name"),
        ("annotations", "/images/2"),
        ("annotations", "/images/3/file_name"),
        ("name", ""),
        ("colour", ""),
        ("truth", "/images"),
        ("truth", ""),
    }
    assert expected <= where(errors)
    assert all(e["hint"] for e in errors)


@pytest.mark.slow
def test_missing_parts(client: TestClient, kit: Any) -> None:
    errors = refused(client.post("/datasets", files={"name": (None, "x")}))
    assert where(errors) == {("annotations", ""), ("images", "")}
    errors = refused(kit.upload(client, kit.points(), None))
    assert where(errors) == {("images", "")}
    raw = json.dumps(kit.points()).encode()
    twice = [("annotations", ("a.json", raw)), ("annotations", ("b.json", raw))]
    images = [("images", ("i.zip", kit.zipped(kit.images())))]
    assert where(refused(client.post("/datasets", files=twice + images))) == {("annotations", "")}


@pytest.mark.slow
def test_two_files_that_could_be_one_image(client: TestClient, kit: Any) -> None:
    archive = kit.zipped({"a/1.png": kit.image(seed=1), "b/1.png": kit.image(seed=2)})
    errors = refused(kit.upload(client, kit.points(1), archive))
    assert where(errors) == {("images", "")}
    assert "'a/1.png'" in errors[0]["detail"]


@pytest.mark.slow
def test_a_refused_archive_makes_no_image_missing(client: TestClient, kit: Any) -> None:
    """Nobody knows what is in it: the one fault is the archive."""
    bomb = kit.zipped({**kit.images(), "2.png": bytes(60_000_000)})
    for archive in (bomb, kit.zipped(kit.images())[:-30], b"no archive"):
        answer = kit.upload(client, kit.points(), archive)
        (fault,) = refused(answer)
        assert (fault["part"], fault["pointer"]) == ("images", "")
        assert "refused" in fault["detail"]
        assert answer.json()["detail"].startswith("Nothing was kept; 1 fault: the archive")


@pytest.mark.slow
def test_a_point_outside_is_pointed_at(client: TestClient, kit: Any) -> None:
    """Whether the document declares the image's size or not."""
    for size in ({}, {"width": 40, "height": 30}):
        document = kit.points(1, 1)
        document["images"] = [{"id": 1, "file_name": "1.png", **size}]
        document["annotations"][0]["point"] = [40, 3]
        (fault,) = refused(kit.upload(client, document, kit.images(1)))
        assert fault["pointer"] == "/annotations/0/point"


@pytest.mark.slow
def test_a_bad_archive_is_a_fault_of_the_images(client: TestClient, kit: Any) -> None:
    good = kit.zipped(kit.images())
    for archive in (b"not a zip", good[: len(good) // 2], kit.zipped({"../1.png": b"x"})):
        errors = refused(kit.upload(client, kit.points(), archive))
        assert ("images", "") in where(errors)


class TestForms:
    @pytest.mark.slow
    def test_another_kind_of_body(self, client: TestClient) -> None:
        refused(client.post("/datasets", json={"name": "x"}), 415)
        refused(client.post("/datasets"), 415)

    @pytest.mark.slow
    @pytest.mark.parametrize(
        ("kind", "body"),
        [
            ("multipart/form-data", b""),
            ("multipart/form-data; boundary=x", b"nonsense"),
            ("multipart/form-data; boundary=x", b""),
            ("multipart/form-data; boundary=x", b"--x\r\n\r\nno name\r\n--x--\r\n"),
            (
                "multipart/form-data; boundary=x",
                b'--x\r\nContent-Disposition: form-data; name="images"; filename="a"\r\n\r\nhalf',
            ),
        ],
    )
    def test_broken_forms(self, client: TestClient, kind: str, body: bytes) -> None:
        refused(client.post("/datasets", content=body, headers={"content-type": kind}), 400)

    @pytest.mark.slow
    def test_a_long_text_field(self, client: TestClient, kit: Any) -> None:
        refused(kit.upload(client, kit.points(), kit.images(), name="x" * 20_000), 413)


class TestLimits:
    @pytest.fixture
    def settings(self, make_settings: Callable[..., Settings]) -> Settings:
        return make_settings(max_upload_bytes=20_000, max_document_bytes=3_000, max_form_parts=50)

    def test_the_header_is_enough(self, app: FastAPI) -> None:
        async def receive() -> Any:
            raise AssertionError("the body was asked for")

        assert post_raw(app, receive, (b"content-length", b"20001")) == [413]

    @pytest.mark.slow
    def test_bytes_are_counted_all_the_same(self, client: TestClient) -> None:
        start = b'--x\r\nContent-Disposition: form-data; name="images"; filename="a"\r\n\r\n'
        chunks = iter([start, *[b"0" * 1_000] * 30])
        headers = {"content-type": "multipart/form-data; boundary=x"}
        refused(client.post("/datasets", content=chunks, headers=headers), 413)

    @pytest.mark.slow
    def test_documents_and_parts(self, client: TestClient, kit: Any) -> None:
        document = json.dumps(kit.points()).encode() + b" " * 3_000
        refused(kit.upload(client, document, kit.images()), 413)
        many = {f"{i}.png": b"" for i in range(60)}
        refused(kit.upload(client, kit.points(), many), 413)


class TestFailures:
    """The service itself fails half-way: a 500 without a word of the inside, and no trace."""

    @pytest.mark.slow
    @pytest.mark.parametrize(
        ("error", "status"),
        [(OSError(28, "No space left on device /secret"), 507), (OSError(5, "bad /secret"), 500)],
        ids=["full", "broken"],
    )
    def test_storage_fails(
        self,
        app: FastAPI,
        client: TestClient,
        kit: Any,
        monkeypatch: pytest.MonkeyPatch,
        error: OSError,
        status: int,
    ) -> None:
        put, done = app.state.storage.put_files, []

        def fails_at_the_third(files: dict[str, Path], **options: Any) -> None:
            done.extend(list(files.items())[:2])
            put(dict(done), **options)
            raise error

        monkeypatch.setattr(app.state.storage, "put_files", fails_at_the_third)
        answer = kit.upload(client, kit.points(), kit.images())
        refused(answer, status)
        assert "secret" not in answer.text
        assert len(done) == 2

    @pytest.mark.slow
    def test_the_commit_fails(
        self, client: TestClient, kit: Any, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def fails(*_: Any) -> None:
            raise RuntimeError("no rows today")

        monkeypatch.setattr("app.datasets.rows.batches", fails)
        refused(kit.upload(client, kit.points(), kit.images()), 500)


@pytest.mark.slow
def test_a_client_that_leaves(settings: Settings, kit: Any, stored: Stored) -> None:
    """The connection ends in the middle of the body."""
    app = create_app(settings)
    start = b'--x\r\nContent-Disposition: form-data; name="images"; filename="a"\r\n\r\n'
    messages = iter(
        [
            {"type": "http.request", "body": start + b"0" * 2_000_000, "more_body": True},
            {"type": "http.disconnect"},
        ]
    )
    seen: list[bool] = []

    async def receive() -> Any:
        seen.append(any((settings.data_dir / "uploads").rglob("part-*")))
        return next(messages)

    post_raw(app, receive)
    assert seen == [False, True]  # it was on disk when the client left
    assert is_empty(app, settings, stored)
