"""200 seeded uploads of somebody who means harm: none is a 500, and nothing of any is kept."""

import gzip
import io
import json
import random
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from fastapi import FastAPI
from PIL import Image
from sqlalchemy import func, select
from starlette.testclient import TestClient

from app.db.models import BlobPin, Dataset, Job
from app.db.session import Database
from app.settings import Settings

Random = random.Random
Form = list[tuple[str, Any]]
Make = Callable[[Random], Form]

EACH = 25
ODD = [None, True, -1, 0.5, 1e308, 10**30, "", "\0", "../x", "\ud800", [], {}, [[]], "9" * 5000]


def image_bytes(width: int = 40, height: int = 30, kind: str = "PNG") -> bytes:
    buffer = io.BytesIO()
    Image.effect_noise((width, height), 50).convert("RGB").save(buffer, kind)
    return buffer.getvalue()


IMAGE = image_bytes()


def document(**changes: Any) -> dict[str, Any]:
    return {
        "images": [{"id": 1, "file_name": "1.png", "width": 40, "height": 30}],
        "annotations": [{"id": 5, "image_id": 1, "category_id": 7, "point": [3.5, 4.5]}],
        "categories": [{"id": 7, "name": "cat"}],
        **changes,
    }


def form(points: Any = None, images: bytes = IMAGE, name: str = "1.png") -> Form:
    raw = points if isinstance(points, bytes) else json.dumps(points or document()).encode()
    return [("annotations", ("points.json", raw)), ("images", (name, images))]


def broken_bytes(r: Random) -> Form:
    """JSON cut, flipped, doubled, in other encodings, nested without end."""
    raw = bytearray(json.dumps(document()).encode())
    match r.randrange(6):
        case 0:
            raw = raw[: r.randrange(len(raw) - 1)]
        case 1:
            for _ in range(r.randint(3, 60)):
                raw[r.randrange(len(raw))] = r.choice(b'\x00\xff{}[]",:\\u')
        case 2:
            raw = raw * 2
        case 3:
            raw = bytearray(raw.decode().encode(r.choice(["utf-16", "utf-32", "cp037"])))
        case 4:
            raw = bytearray(b"[" * r.choice([10, 1_000, 300_000]))
        case _:
            raw = bytearray(r.randbytes(r.randrange(2_000)))
    return form(bytes(raw))


def broken_values(r: Random) -> Form:
    """Well-formed JSON in which a value is what it must not be, or names what is not there."""
    points = document()
    part, field, bad = r.choice(
        [
            ("images", "id", [v for v in ODD if v not in (True, -1)]),
            ("images", "file_name", ["", "\0", "../x", 5, None, [], "no.png"]),
            ("images", "width", [-1, 0.5, 1e308, 10**30, "", [], 41]),
            ("annotations", "id", [v for v in ODD if v not in (True, -1)]),
            ("annotations", "image_id", ODD[1:]),
            ("annotations", "category_id", ODD[1:]),
            ("annotations", "point", [*ODD, [1], [1, 2, 3, 4], [-1, 3], [1e400, 3], ["a", "b"]]),
            ("categories", "id", ODD[1:]),
            ("annotations", "segmentation", [{"size": [30, 40], "counts": "\ud800"}, ["\ud800"]]),
        ]
    )
    value = r.choice([v for v in bad if v is not True])
    points[part][0][field] = value
    if r.random() < 0.3:
        points["annotations"].append(dict(points["annotations"][0]))  # its id is there twice
    if field == "point" and isinstance(value, list):
        points["annotations"][0].pop("bbox", None)
    points["annotations"].append({"id": 6, "image_id": 99, "category_id": 7, "point": [1, 1]})
    return form(points)


def zip_traps(r: Random) -> Form:
    """Zips with names that leave the folder, links, devices, damage, lies and bombs."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        trap = r.randrange(8)
        if trap == 0:
            archive.writestr(r.choice(["../1.png", "/etc/1.png", "a/../../1.png", "C:/1.png"]), "x")
        elif trap == 1:
            info = zipfile.ZipInfo("1.png")
            info.external_attr = r.choice([0o120777, 0o020666, 0o010644]) << 16
            archive.writestr(info, "/etc/passwd")
        elif trap == 2:
            archive.writestr("1.png", bytes(r.choice([24, 48]) << 20))  # a bomb
        elif trap == 3:
            for i in range(300):  # more than the test's limit
                archive.writestr(f"{i}.txt", b"")
        elif trap == 4:
            archive.writestr("1.png", nested(r))
        else:
            archive.writestr("1.png", IMAGE)
    raw = bytearray(buffer.getvalue())
    if trap == 5:
        raw = raw[: r.randrange(30, len(raw) - 30)]
    elif trap == 6:
        for _ in range(200):
            raw[r.randrange(30, len(raw))] ^= 1 << r.randrange(8)
    elif trap == 7:
        raw[6:8], at = b"\x01\x00", raw.rfind(b"PK\x01\x02")
        raw[at + 8 : at + 10] = b"\x01\x00"  # encrypted, it says
    return form(images=bytes(raw), name="images.zip")


def nested(r: Random) -> bytes:
    data = b"0" * 1000
    for _ in range(r.randint(1, 5)):
        buffer = io.BytesIO()
        with zipfile.ZipFile(buffer, "w") as archive:
            archive.writestr("1.png", data)
        data = buffer.getvalue()
    return data


def tar_traps(r: Random) -> Form:
    buffer = io.BytesIO()
    trap = r.randrange(6)
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.PAX_FORMAT) as archive:
        info = tarfile.TarInfo("1.png")
        body = IMAGE
        if trap == 0:
            info.name = r.choice(["../1.png", "/etc/1.png", "a/../../1.png", "x\\..\\..\\1.png"])
        elif trap == 1:
            kinds = [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.FIFOTYPE]
            info.type, info.linkname, body = r.choice(kinds), "/etc/passwd", b""
        elif trap == 2:
            info.pax_headers = {"comment": "x" * (2 << 20)}
        elif trap == 3:
            info.pax_headers = {"size": r.choice(["-5", "1e9", str(2**70), "x"])}
        elif trap == 4:
            body = bytes(30 << 20)
        info.size = len(body)
        archive.addfile(info, io.BytesIO(body))
    raw = bytearray(buffer.getvalue())
    if trap == 5:
        raw = raw[: r.randrange(300, len(raw) // 2)]
        raw[124:136] = b"77777777777\0"  # a size that nobody sent
    packed = gzip.compress(bytes(raw), 6, mtime=0) if trap == 4 or r.random() < 0.5 else bytes(raw)
    if trap == 5 and packed[:2] == b"\x1f\x8b":
        packed = packed[: len(packed) - r.randint(1, 12)]
    return form(images=packed, name=r.choice(["images.tar", "images.tgz", "1.png"]))


def chunk(kind: bytes, data: bytes) -> bytes:
    tail = struct.pack(">I", zlib.crc32(kind + data))
    return struct.pack(">I", len(data)) + kind + data + tail


def false_images(r: Random) -> Form:
    """Files that are no image, or one of another size, or one of 3.6 gigapixels."""
    head = struct.pack(">IIBBBBB", 60_000, 60_000, 8, 2, 0, 0, 0)
    bomb = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(bytes(99)))
    torn = bytearray(image_bytes(80, 60, r.choice(["PNG", "JPEG"])))
    cut = bytes(torn[: r.randrange(10, len(torn) // 2)])
    data = r.choice(
        [
            bomb,
            cut,
            r.randbytes(r.randrange(5_000)),
            image_bytes(31, 30),
            b"<svg xmlns='http://www.w3.org/2000/svg'><script>alert(1)</script></svg>",
            b"<!DOCTYPE html><script>alert(1)</script>",
            b"%PDF-1.7\n" + r.randbytes(200),
            b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 40 30\nshowpage",
            b"\x7fELF" + bytes(500),
            b"GIF89a" + r.randbytes(60),
            b"II*\0" + r.randbytes(400),
            b"",
        ]
    )
    return form(images=data)


def strange_forms(r: Random) -> Form:
    """Parts that are missing, there twice, unknown, nameless, too many, or too long."""
    right = form()
    return r.choice(
        [
            right[:1],
            right[1:],
            [*right, right[0]],
            [*right, ("nobody", ("x", b"x"))],
            [*right, ("name", (None, "x" * r.choice([201, 9_000, 20_000])))],
            [*right, ("name", (None, "a\x00\x1b[31m"))],
            [*right, ("parent", (None, r.choice(["x", "\0", "' OR 1=1 --", "../.."])))],
            [*right, ("truth", ("t.json", r.choice([b"", b"{}", b"[]", b"nul", b"\xff"])))],
            [*right, *[(f"p{i}", ("x", b"")) for i in range(400)]],
            [*right, ("images", ("1.png", image_bytes()))],  # another one by the same name
            [right[0], ("images", ("../../../tmp/1.png" + "\0", b"x"))],
            [("annotations", ("a", b"x" * (3 << 20))), right[1]],  # above the test's limit
        ]
    )


@pytest.fixture
def settings(settings: Settings) -> Settings:
    """Limits that a test can reach."""
    small = {"max_document_bytes": 2 << 20, "max_upload_bytes": 4 << 20, "max_archive_files": 200}
    return settings.model_copy(update=small)


@pytest.fixture
def client(app: FastAPI) -> Iterator[TestClient]:
    with TestClient(app, raise_server_exceptions=False) as client:
        yield client


def refused(answer: Any, settings: Settings, database: Database, what: object) -> None:
    said = f"{what!r:.200}: {answer.status_code} {answer.text[:500]}"
    assert 400 <= answer.status_code < 500, said
    assert answer.headers["content-type"] == "application/problem+json", said
    assert answer.json()["detail"], said
    for secret in ("Traceback", str(settings.data_dir)):
        assert secret not in answer.text, said
    with database.read() as session:
        for table in (Dataset, Job, BlobPin):
            assert session.scalar(select(func.count()).select_from(table)) == 0, said
    for folder in ("blobs", "uploads"):
        left = [p for p in (settings.data_dir / folder).rglob("*") if p.is_file()]
        assert left == [], said


FAMILIES: list[Make] = [
    broken_bytes,
    broken_values,
    zip_traps,
    tar_traps,
    false_images,
    strange_forms,
]


@pytest.mark.slow
@pytest.mark.parametrize("make", FAMILIES, ids=lambda make: make.__name__)
def test_hostile_forms(make: Make, client: TestClient, app: FastAPI, settings: Settings) -> None:
    for seed in range(EACH):
        answer = client.post("/datasets", files=make(Random(seed)))
        refused(answer, settings, app.state.database, (make.__name__, seed))


@pytest.mark.slow
def test_the_form_that_the_hostile_ones_are_made_of_is_taken(client: TestClient) -> None:
    assert client.post("/datasets", files=form()).status_code == 201


def wrong_kind(r: Random) -> tuple[str, bytes]:
    """A body that is not of the kind it says, or of none that is taken."""
    text = json.dumps(document()).encode()
    part = b'--x\r\nContent-Disposition: form-data; name="images"; filename="1.png"\r\n\r\n'
    return r.choice(
        [
            ("application/json", text),
            ("text/plain", text),
            ("application/x-www-form-urlencoded", b"annotations=%7B%7D&images=x"),
            ("multipart/form-data", text),
            ("multipart/form-data; boundary=", text),
            ("multipart/form-data; boundary=x", text),
            ("multipart/form-data; boundary=x", part + IMAGE),
            ("multipart/form-data; boundary=x", part + IMAGE + b"\r\n--y--\r\n"),
            ("multipart/form-data; boundary=x", b"--x\r\nA: b\r\n\r\nc\r\n--x--\r\n"),
            ("multipart/form-data; boundary=x", b"--x\r\n" + b"A: b\r\n" * 9_000),
            ("multipart/form-data; boundary=" + "x" * 9_000, b""),
            ("multipart/mixed; boundary=x", part + b"\r\n--x--\r\n"),
            ("application/zip", b"PK\x03\x04" + r.randbytes(99)),
            ("multipart/form-data; boundary=x", r.randbytes(5_000)),
            ("\x00\xff", b"x"),
            ("", b""),
        ]
    )


@pytest.mark.slow
def test_hostile_content_types(client: TestClient, app: FastAPI, settings: Settings) -> None:
    for seed in range(EACH):
        kind, body = wrong_kind(Random(seed))
        headers = {"content-type": kind.encode("latin-1")}
        answer = client.post("/datasets", content=body, headers=headers)
        refused(answer, settings, app.state.database, (kind, seed))


@pytest.mark.slow
def test_hostile_bodies_elsewhere(client: TestClient, app: FastAPI, settings: Settings) -> None:
    """What starts a job or predicts takes no better care of strangers' bytes."""
    for seed in range(EACH):
        r = Random(seed)
        path = r.choice(["/jobs/train", "/predict"])
        kind, body = wrong_kind(r)
        if path == "/jobs/train":
            odd = {"dataset_id": r.choice(ODD), "seed": r.choice(ODD), "truth": r.choice(ODD)}
            kind, body = "application/json", r.choice([json.dumps(odd).encode(), body])
        headers = {"content-type": kind.encode("latin-1")}
        answer = client.post(path, content=body, headers=headers)
        refused(answer, settings, app.state.database, (path, kind, seed))
