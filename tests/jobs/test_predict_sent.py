"""POST /predict as JSON: an image in base64 or at an address, and lists; and what is hostile."""

import base64
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
from fastapi.testclient import TestClient

from app.main import create_app
from app.predict.model_cache import Runtime
from app.settings import Settings

IMAGES: dict[str, tuple[int, str, bytes]] = {}
"""What the web server answers, by path: status, type, body."""


class Web(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        status, kind, body = IMAGES.get(self.path, (404, "text/plain", b"nothing"))
        self.send_response(status)
        self.send_header("Content-Type", kind)
        if 300 <= status < 400:
            self.send_header("Location", body.decode())
            body = b""
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture(scope="module")
def web() -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Web)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_address[1]}"
    server.shutdown()
    server.server_close()


@pytest.fixture
def near(settings: Settings, model_id: str, client: TestClient) -> Iterator[TestClient]:
    """A service that may call this machine."""
    app = create_app(settings.model_copy(update={"import_private_addresses": True}))
    app.state.runtime = client.app.state.runtime  # type: ignore[attr-defined]
    with TestClient(app, raise_server_exceptions=False) as other:
        yield other


def refused(answer: Any, status: int = 422) -> list[dict[str, str]]:
    kind = answer.headers["content-type"]
    assert (answer.status_code, kind) == (status, "application/problem+json"), answer.text
    found: list[dict[str, str]] = answer.json().get("errors", [])
    return found


def encoded(content: bytes) -> str:
    return base64.b64encode(content).decode()


@pytest.mark.slow
def test_an_image_in_base64(client: TestClient, model_id: str, png: Callable[..., bytes]) -> None:
    for text in (encoded(png(8, 9)), "data:image/png;base64," + encoded(png(8, 9))):
        body = {"model": model_id, "image": text}
        answer = client.post("/predict", json=body)
        assert answer.status_code == 200, answer.text
        assert [r["score"] for r in answer.json()] == [0.9, 0.3]
        assert answer.json()[0]["segmentation"]["size"] == [8, 9]
        sure = client.post("/predict", json={**body, "score": 0.5})
        assert len(sure.json()) == 1
        drawn = client.post("/predict", json=body, headers={"accept": "image/png"})
        assert drawn.headers["content-type"] == "image/png"


@pytest.mark.slow
def test_an_image_at_an_address(
    near: TestClient, model_id: str, web: str, png: Callable[..., bytes]
) -> None:
    IMAGES["/a.png"] = (200, "image/png", png(8, 9))
    IMAGES["/moved"] = (302, "", b"/a.png")
    for path in ("/a.png", "/moved"):
        for sent in (
            {"json": {"model": model_id, "url": web + path}},
            {"data": {"model": model_id, "url": web + path}},
        ):
            answer = near.post("/predict", **sent)  # type: ignore[arg-type]
            assert answer.status_code == 200, answer.text
            assert answer.json()[0]["segmentation"]["size"] == [8, 9]
    assert list(near.app.state.settings.folder("uploads").iterdir()) == []  # type: ignore[attr-defined]


@pytest.mark.slow
@pytest.mark.parametrize(
    "url",
    [
        "http://127.0.0.1/a.png",
        "http://localhost/a.png",
        "http://[::1]/a.png",
        "http://[::ffff:10.0.0.1]/a.png",
        "http://169.254.169.254/latest/meta-data",
        "http://2130706433/",
        "http://0x7f.1/",
        "https://user:secret@example.org/a.png",
        "file:///etc/passwd",
        "gopher://example.org/",
        "ftp://example.org/a.png",
        "s3://somebody-else/a.png",
        "http://",
        "http://example.org:99999/",
        "//example.org/a.png",
        "",
        "\0",
        "a.png",
    ],
)
def test_addresses_that_are_not_called(client: TestClient, model_id: str, url: str) -> None:
    """As JSON, in a form, in a list, and for a worker: refused before anything is made."""
    (fault,) = refused(client.post("/predict", json={"model": model_id, "url": url}))
    assert (fault["part"], fault["pointer"]) == ("body", "/url")
    (fault,) = refused(client.post("/predict", json={"model": model_id, "images": [12, url]}))
    assert fault["pointer"] == "/images/1/url"
    asynchronous = {"Prefer": "respond-async"}
    body = {"model": model_id, "images": [{"url": url}]}
    (fault,) = refused(client.post("/predict", json=body, headers=asynchronous))
    assert [j["kind"] for j in client.get("/jobs").json()["jobs"]] == ["train"]
    if url and "\0" not in url:
        (fault,) = refused(client.post("/predict", data={"model": model_id, "url": url}))
        assert (fault["part"], fault["pointer"]) == ("url", "")
    assert "secret@" not in fault["detail"] or "password" in fault["detail"]


@pytest.mark.slow
def test_an_address_that_leads_home(
    client: TestClient, model_id: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A name is looked up when it is called, and what it is then is checked."""
    home = [(2, 1, 6, "", ("127.0.0.1", 80))]
    monkeypatch.setattr("socket.getaddrinfo", lambda *args, **kwargs: home)
    body = {"model": model_id, "url": "http://images.example.org/a.png"}
    (fault,) = refused(client.post("/predict", json=body))
    assert "127.0.0.1" in fault["detail"]
    assert fault["pointer"] == "/url"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("answer", "why"),
    [
        ((404, "text/plain", b"no"), "404"),
        ((200, "text/html", b"<html>"), "text/html"),
        ((200, "image/png", b"no image"), "no image"),
        ((302, "", b"file:///etc/passwd"), ""),
        ((302, "", b"/loop"), "redirects"),
        ((200, "image/png", bytes(3000)), "2,000 bytes"),
    ],
)
def test_what_an_address_may_answer(
    near: TestClient, model_id: str, web: str, answer: Any, why: str
) -> None:
    near.app.state.settings = near.app.state.settings.model_copy(  # type: ignore[attr-defined]
        update={"max_fetch_bytes": 2_000}
    )
    IMAGES["/odd"], IMAGES["/loop"] = answer, (302, "", b"/loop")
    (fault,) = refused(near.post("/predict", json={"model": model_id, "url": f"{web}/odd"}))
    assert why in fault["detail"]
    body = {"model": model_id, "images": [12, f"{web}/odd"]}
    first, second = near.post("/predict", json=body).json()["predictions"]
    assert (first["error"], len(first["results"])) == (None, 2)
    assert why in second["error"]
    assert second["results"] == []


@pytest.mark.slow
@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "0 bytes"),
        ("!!!!", "base64"),
        ("YWJj\nYWJj", "base64"),
        ("YWJ", "base64"),
        ("é" * 8, "base64"),
        ("data:image/png;base64,%%%%", "base64"),
        (encoded(b"a text"), "no image"),
    ],
)
def test_what_is_no_image(client: TestClient, model_id: str, text: str, why: str) -> None:
    (fault,) = refused(client.post("/predict", json={"model": model_id, "image": text}))
    assert (fault["part"], fault["pointer"]) == ("body", "/image")
    assert why in fault["detail"]


@pytest.mark.slow
def test_bombs(
    client: TestClient, model_id: str, settings: Settings, png: Callable[..., bytes]
) -> None:
    """A small text of many pixels; a text larger than JSON may be, told and untold; a deep one."""
    tight = settings.model_copy(update={"max_json_bytes": 10_000, "max_image_pixels": 1_000})
    client.app.state.settings = tight  # type: ignore[attr-defined]
    (fault,) = refused(
        client.post("/predict", json={"model": model_id, "image": encoded(png(300, 300))})
    )
    assert "pixels" in fault["detail"]
    large = b'{"model": "' + model_id.encode() + b'", "image": "' + b"A" * 20_000 + b'"}'
    kind = {"content-type": "application/json"}

    def in_pieces() -> Iterator[bytes]:
        for start in range(0, len(large), 1_000):
            yield large[start : start + 1_000]

    for content in (large, in_pieces()):
        refused(client.post("/predict", content=content, headers=kind), 413)
    (fault,) = refused(client.post("/predict", content=b"[" * 9_000, headers=kind))
    assert fault["part"] == "body"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("body", "pointers"),
    [
        ({}, {"/model"}),
        ({"image": "A", "url": "https://example.org"}, {"/model"}),
        ({"model": "x"}, {""}),
        ({"model": "x", "image": "A", "url": "https://example.org"}, {""}),
        ({"model": "x", "images": []}, {"/images"}),
        ({"model": "x", "images": [{}]}, {"/images/0"}),
        ({"model": "x", "images": [{"id": 1, "url": "https://example.org"}]}, {"/images/0"}),
        ({"model": "x", "images": [True, None, 2**70]}, None),
        ({"model": "x", "images": [{"path": "/etc/passwd"}]}, None),
        ({"model": "x", "image": 5, "surprise": 1}, {"/image", "/surprise"}),
        ({"model": "x", "image": "AAAA", "score": 2}, {"/score"}),
        ([], {""}),
        ("x", {""}),
    ],
)
def test_bodies_that_say_too_little_or_too_much(
    client: TestClient, body: Any, pointers: set[str] | None
) -> None:
    faults = refused(client.post("/predict", json=body))
    assert faults
    assert pointers is None or pointers <= {f["pointer"] for f in faults}
    for content in (b"{", b"\xff\xfe", b""):
        kind = {"content-type": "application/json"}
        assert refused(client.post("/predict", content=content, headers=kind))


@pytest.mark.slow
def test_a_list(near: TestClient, model_id: str, web: str, png: Callable[..., bytes]) -> None:
    IMAGES["/a.png"] = (200, "image/png", png(8, 9))
    images = [12, {"id": 99}, f"{web}/a.png", {"image": encoded(png(5, 6))}, f"{web}/none"]
    body = {"model": model_id, "images": images}
    answer = near.post("/predict", json=body)
    assert answer.status_code == 200, answer.text
    found = answer.json()["predictions"]
    assert [p["number"] for p in found] == [0, 1, 2, 3, 4]
    assert [p["image_id"] for p in found] == [12, 99, None, None, None]
    assert [p["size"] for p in found] == [[30, 40], [30, 40], [8, 9], [5, 6], None]
    assert found[0]["results"][0]["image_id"] == 12
    assert "image_id" not in found[2]["results"][0]
    assert "404" in found[4]["error"]
    one = near.post("/predict", json={"model": model_id, "images": [12]}).json()
    assert len(one["predictions"]) == 1
    refused(near.post("/predict", json=body, headers={"accept": "image/png"}), 406)


@pytest.mark.slow
def test_more_than_a_few_are_work_for_a_worker(client: TestClient, model_id: str) -> None:
    answer = client.post("/predict", json={"model": model_id, "images": [12] * 9})
    (fault,) = refused(answer)
    assert (fault["pointer"], "Prefer: respond-async" in fault["hint"]) == ("/images", True)
    dataset = client.get("/jobs").json()["jobs"][0]["dataset_id"]
    (fault,) = refused(client.post("/predict", json={"model": model_id, "dataset": dataset}))
    assert (fault["pointer"], "Prefer: respond-async" in fault["hint"]) == ("/dataset", True)


@pytest.mark.slow
def test_what_is_not_there(client: TestClient, model_id: str) -> None:
    refused(client.post("/predict", json={"model": "none", "images": [12]}), 404)
    body = {"model": model_id, "dataset": "none", "images": [12]}
    refused(client.post("/predict", json=body), 404)
    faults = refused(client.post("/predict", json={"model": model_id, "images": [12, 13, 14]}))
    assert [f["pointer"] for f in faults] == ["/images/1/id", "/images/2/id"]


@pytest.mark.slow
def test_an_alias_is_a_model(client: TestClient, model_id: str) -> None:
    client.put(
        "/models/aliases/best", json={"model": model_id}, headers={"If-None-Match": "*"}
    ).raise_for_status()
    assert client.get("/predict", params={"model": "best", "image": 12}).status_code == 200
    answer = client.post("/predict", json={"model": "best", "images": [12]})
    assert answer.json()["predictions"][0]["error"] is None


@pytest.mark.slow
def test_a_stored_image_that_is_gone(client: TestClient, model_id: str, settings: Settings) -> None:
    client.app.state.runtime = Runtime(1, client.app.state.runtime._loader)  # type: ignore[attr-defined]
    for path in (settings.data_dir / "blobs").rglob("*"):
        if path.is_file():
            path.unlink()
    answer = client.post("/predict", json={"model": model_id, "images": [12, 99]})
    assert ["missing" in p["error"] for p in answer.json()["predictions"]] == [True, True]
