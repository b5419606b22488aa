"""Images that are fetched: from the web and from S3, within limits, and what is said of each."""

import json
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import obstore
import pytest
from obstore.store import from_url
from starlette.testclient import TestClient

from app.datasets import fetching
from app.main import create_app
from app.settings import Settings
from worker.jobs.execute import execute
from worker.runtime.types import Outcome, WorkerContext

Answer = tuple[int, dict[str, str], bytes]


class Web:
    """What a server on loopback answers by path, and what it was asked."""

    def __init__(self) -> None:
        self.answers: dict[str, Any] = {}
        self.asked: list[str] = []
        self.url = ""

    def has(self, path: str, data: bytes, kind: str = "image/png", **headers: str) -> None:
        self.answers[path] = (200, {"Content-Type": kind, **headers}, data)


@pytest.fixture
def web() -> Iterator[Web]:
    web = Web()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            web.asked.append(self.path)
            answer = web.answers.get(self.path, (404, {}, b"no"))
            status, headers, data = answer() if callable(answer) else answer
            self.send_response(status)
            for name, value in {"Content-Length": str(len(data)), **headers}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, *_: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    web.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    yield web
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fetching, "_PAUSE", 0.01)


@pytest.fixture
def imported(make_settings: Callable[..., Settings]) -> Callable[..., dict[str, Any]]:
    """Ask for a data set, import it, and give it back as it is then."""

    def run(document: Any, images_url: str, **values: Any) -> dict[str, Any]:
        settings = make_settings(**{"import_private_addresses": True, **values})
        app = create_app(settings)
        with TestClient(app) as client:
            files = {"annotations": ("points.json", json.dumps(document).encode())}
            answer = client.post("/datasets", files=files, data={"images_url": images_url})
            assert answer.status_code == 202, answer.text
            job_id = answer.json()["report"]["progress"]["job_id"]
            worker = WorkerContext(settings, app.state.database, app.state.storage)
            assert execute(job_id, worker) is Outcome.ENDED
            found: dict[str, Any] = client.get(answer.headers["location"]).json()
            return found

    return run


def problems(dataset: dict[str, Any]) -> dict[str, str]:
    assert dataset["status"] == "invalid"
    return {e["pointer"]: e["detail"] for e in dataset["report"]["errors"]}


@pytest.mark.slow
def test_below_an_address(web: Web, imported: Any, kit: Any) -> None:
    document = kit.points()
    document["images"][1]["file_name"] = "a b/ü.png"
    web.has("/set/1.png", kit.image(seed=1))
    web.has("/set/a%20b/%C3%BC.png", kit.image(seed=2), kind="application/octet-stream")
    for base in (f"{web.url}/set", f"{web.url}/set/"):
        dataset = imported(document, base)
        assert (dataset["status"], dataset["images"]) == ("ready", 2)
    assert len(web.asked) == 4


@pytest.mark.slow
def test_by_the_documents_own_addresses(web: Web, imported: Any, kit: Any) -> None:
    document = kit.points(3)
    document["images"][0]["coco_url"] = f"{web.url}/x"
    document["images"][1] |= {"coco_url": None, "url": f"{web.url}/y"}
    web.has("/x", kit.image(seed=1))
    web.has("/y", kit.image(seed=2))
    found = problems(imported(document, "document"))
    assert list(found) == ["/images/2/file_name"]
    assert "no coco_url and no url" in found["/images/2/file_name"]
    document["images"][2]["url"] = f"{web.url}/x"
    assert imported(document, "document")["status"] == "ready"


@pytest.mark.slow
def test_names_with_backslashes_and_names_that_are_addresses(
    web: Web, imported: Any, kit: Any
) -> None:
    document = kit.points()
    document["images"][0]["file_name"] = "set\\1.png"
    web.has("/set/1.png", kit.image(seed=1))
    web.has("/2.png", kit.image(seed=2))
    assert imported(document, web.url)["status"] == "ready"
    for number, image in enumerate(document["images"], 1):
        image["file_name"] = f"{web.url}/x/{number}%20.png?key=7"
        web.has(f"/x/{number}%20.png?key=7", kit.image(seed=number))
    assert imported(document, "document")["status"] == "ready"


@pytest.mark.slow
def test_each_image_says_what_is_wrong_with_it(web: Web, imported: Any, kit: Any) -> None:
    document, image = kit.points(9), kit.image(seed=1)
    web.has("/1.png", image)
    web.has("/3.png", b"<html>", kind="text/html; charset=utf-8")
    web.has("/4.png", b"no image")
    web.has("/5.png", bytes(3_000))
    web.answers["/6.png"] = (200, {"Content-Type": "image/png", "Content-Encoding": "gzip"}, b"x")
    web.answers["/7.png"] = (302, {"Location": "/7.png"}, b"")
    web.answers["/8.png"] = (302, {"Location": "http://169.254.169.254/"}, b"")
    web.answers["/9.png"] = (500, {}, b"")
    found = problems(imported(document, web.url, max_fetch_bytes=2_000))
    expected = {2: "404", 3: "text/html", 4: "no image of a known format", 5: "more than 2,000"}
    expected |= {6: "compressed", 7: "more than 3 times", 9: "500"}
    assert set(found) == {f"/images/{i - 1}/file_name" for i in {8, *expected}}
    for i, words in expected.items():
        assert words in found[f"/images/{i - 1}/file_name"]
    assert web.asked.count("/9.png") == 3, "what may be better later is tried again"
    assert web.asked.count("/2.png") == 1


@pytest.mark.slow
def test_private_addresses_are_refused(web: Web, imported: Any, client: Any, kit: Any) -> None:
    document = kit.points(3)
    port = web.url.rpartition(":")[2]
    for i, host in enumerate(("127.0.0.1", "localhost", "[::1]")):
        document["images"][i]["coco_url"] = f"http://{host}:{port}/1.png"
    web.has("/1.png", kit.image(seed=1))
    found = problems(imported(document, "document", import_private_addresses=False))
    assert len(found) == 3
    assert all("not a public" in detail for detail in found.values())
    files = {"annotations": ("points.json", json.dumps(document).encode())}
    for url in (web.url, "http://10.0.0.1/", "file:///etc/", "s3://secret/", "s3:///", "x"):
        answer = client.post("/datasets", files=files, data={"images_url": url})
        (fault,) = answer.json()["errors"]
        assert (answer.status_code, fault["part"]) == (422, "images_url")
    assert web.asked == []


@pytest.mark.slow
def test_a_redirect_to_a_private_address_is_not_followed(
    web: Web, imported: Any, kit: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The server counts as public here; where it sends us does not."""
    monkeypatch.setattr("app.outbound.url_policy.is_public", lambda address: address == "127.0.0.1")
    monkeypatch.setattr("app.outbound.url_policy._is_private_text", lambda host: host == "10.0.0.1")
    web.answers["/1.png"] = (302, {"Location": "http://10.0.0.1/secret"}, b"")
    found = problems(imported(kit.points(1), web.url, import_private_addresses=False))
    assert "not public" in found["/images/0/file_name"]


@pytest.mark.slow
def test_a_slow_server_is_left(web: Web, imported: Any, kit: Any) -> None:
    def slow() -> Answer:
        threading.Event().wait(60)
        return 200, {"Content-Type": "image/png"}, kit.image(seed=1)

    web.answers["/1.png"] = slow
    found = problems(imported(kit.points(1), web.url, fetch_timeout_seconds=0.2))
    assert "could not be fetched" in found["/images/0/file_name"]


@pytest.mark.slow
def test_what_was_fetched_is_not_fetched_again(
    web: Web, make_settings: Callable[..., Settings], kit: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first attempt ends when half of the images are there."""
    monkeypatch.setattr(fetching, "_TOGETHER", 2)
    settings = make_settings(import_private_addresses=True, poll_seconds=0.05)
    app = create_app(settings)
    for i in range(1, 5):
        web.has(f"/{i}.png", kit.image(seed=i))
    fetched, heard, again = (threading.Event() for _ in range(3))

    def stopping() -> bool:
        """Called by the heartbeat: at the second time, what the first gave is known."""
        if fetched.is_set():
            (again if heard.is_set() else heard).set()
        return fetched.is_set()

    with TestClient(app) as client:
        files = {"annotations": ("points.json", json.dumps(kit.points(4)).encode())}
        answer = client.post("/datasets", files=files, data={"images_url": web.url})
        job_id = answer.json()["report"]["progress"]["job_id"]
        worker = WorkerContext(settings, app.state.database, app.state.storage)
        going = WorkerContext(settings, app.state.database, app.state.storage, stopping)
        real = fetching._fetch_some

        def some(*args: Any) -> None:
            real(*args)
            fetched.set()
            assert again.wait(60)

        monkeypatch.setattr(fetching, "_fetch_some", some)
        assert execute(job_id, going) is Outcome.RELEASED
        monkeypatch.setattr(fetching, "_fetch_some", real)
        assert sorted(web.asked) == ["/1.png", "/2.png"]
        assert execute(job_id, worker) is Outcome.ENDED
        assert client.get(answer.headers["location"]).json()["status"] == "ready"
    assert sorted(web.asked) == [f"/{i}.png" for i in range(1, 5)]


@pytest.mark.service
def test_from_a_bucket(bucket: str, imported: Any, client: Any, kit: Any) -> None:
    name = bucket.removeprefix("s3://").split("/")[0]
    store = from_url(f"s3://{name}")
    for i in (1, 2):
        obstore.put(store, f"images/{i}.png", kit.image(seed=i))
    url = f"s3://{name}/images/"
    dataset = imported(kit.points(), url, import_buckets=(name,))
    assert (dataset["status"], dataset["images"]) == ("ready", 2)
    found = problems(imported(kit.points(3), url, import_buckets=(name,)))
    assert "no such object" in found["/images/2/file_name"]
    found = problems(imported(kit.points(), url, import_buckets=(name,), max_fetch_bytes=10))
    assert len(found) == 2
    document = kit.points(1)
    document["images"][0]["url"] = "s3://another/1.png"
    found = problems(imported(document, "document", import_buckets=(name,)))
    assert "may not read the bucket 'another'" in found["/images/0/file_name"]
