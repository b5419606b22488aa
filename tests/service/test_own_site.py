"""Without a key: what other sites' pages, other names and proxies may not do."""

import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import httpx2
import pytest
import uvicorn
from fastapi import FastAPI
from pydantic import ValidationError
from starlette.testclient import TestClient
from starlette.websockets import WebSocketDisconnect

from app.auth import keys
from app.auth.keys import Scope
from app.main import create_app
from app.settings import Settings

PROBLEM = "application/problem+json"
OWN_URL = "http://127.0.0.1:8765"
MakeSettings = Callable[..., Settings]


def browser(app: FastAPI, url: str = OWN_URL, address: str = "127.0.0.1") -> TestClient:
    """A client whose requests come from an address of the network."""
    return TestClient(app, base_url=url, client=(address, 50_000), raise_server_exceptions=False)


def refused(answer: Any, status: int = 403) -> str:
    assert (answer.status_code, answer.headers["content-type"]) == (status, PROBLEM), answer.text
    detail = str(answer.json()["detail"])
    assert "sapnet-service keys create" in detail
    return detail


def create_empty(client: TestClient, **headers: str) -> Any:
    """A request that changes something where it is let in: it begins an upload."""
    tus = {"Tus-Resumable": "1.0.0", "Upload-Length": "10"}
    return client.post("/uploads", headers={**tus, **headers})


@pytest.mark.slow
@pytest.mark.parametrize(
    "host",
    [
        "localhost",
        "localhost:8000",
        "LocalHost:31337",
        "localhost.",
        "localhost.:8000",
        "127.0.0.1",
        "127.0.0.1:1",
        "127.0.0.2:8000",
        "[::1]",
        "[::1]:8000",
        "[0:0:0:0:0:0:0:1]:8000",
    ],
)
def test_names_of_this_machine_are_answered(app: FastAPI, host: str) -> None:
    client = browser(app)
    assert client.get("/datasets", headers={"Host": host}).status_code == 200
    own = {"Host": host, "Origin": f"http://{host}", "Sec-Fetch-Site": "same-origin"}
    assert create_empty(client, **own).status_code == 201


@pytest.mark.slow
@pytest.mark.parametrize(
    "host",
    [
        "evil.example",
        "evil.example:8000",
        "localhost.evil.example",
        "127.0.0.1.evil.example:80",
        "evil-localhost",
        "127.0.0.1@evil.example",
        "localhost:80:80",
        "localhost, evil.example",
        "localhost/evil",
        "10.0.0.1:8000",
        "0.0.0.0:8000",
        "[::]:8000",
        "[::1",
        "2130706433",
        "0x7f.1",
        "",
        " ",
    ],
)
def test_other_names_are_refused(app: FastAPI, host: str) -> None:
    for method in ("GET", "POST", "DELETE", "PATCH"):
        answer = browser(app).request(method, "/jobs/x", headers={"Host": host})
        assert "SAPNET_ALLOWED_HOSTS" in refused(answer)
    assert browser(app).get("/healthz", headers={"Host": host}).status_code == 200


@pytest.mark.slow
def test_a_setting_names_more_hosts(make_settings: MakeSettings) -> None:
    app = create_app(make_settings(allowed_hosts="Lab-Box., sapnet.example.org"))
    for host in ("lab-box:8000", "LAB-BOX.", "sapnet.example.org", "localhost"):
        assert browser(app).get("/jobs", headers={"Host": host}).status_code == 200
    refused(browser(app).get("/jobs", headers={"Host": "example.org"}))
    refused(browser(app).get("/jobs", headers={"Host": "x.lab-box"}))


def test_how_the_setting_is_written(
    monkeypatch: pytest.MonkeyPatch, make_settings: MakeSettings
) -> None:
    for text in ("a,b.example", '["A", "b.example."]', " a , b.example, "):
        monkeypatch.setenv("SAPNET_ALLOWED_HOSTS", text)
        assert Settings(_env_file=None).allowed_hosts == ("a", "b.example")  # type: ignore[call-arg]
    for text in ("a:80", "https://a", "a b", "*", "[oh no"):
        monkeypatch.setenv("SAPNET_ALLOWED_HOSTS", text)
        with pytest.raises(ValidationError):
            Settings(_env_file=None)  # type: ignore[call-arg]


@pytest.mark.slow
@pytest.mark.parametrize(
    "sent",
    [
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site"},  # another port of this machine
        {"Sec-Fetch-Site": "Cross-Site", "Origin": OWN_URL},
        {"Sec-Fetch-Site": "something new"},
        {"Sec-Fetch-Site": ""},
        {"Origin": "null"},
        {"Origin": ""},
        {"Origin": "https://evil.example"},
        {"Origin": "http://127.0.0.1:8766"},
        {"Origin": "http://127.0.0.1"},
        {"Origin": "http://localhost:8765"},
        {"Origin": "http://127.0.0.1.evil.example:8765"},
        {"Origin": "file://127.0.0.1:8765"},
        {"Origin": "http://127.0.0.1:8765/"},
        {"Origin": "null", "Sec-Fetch-Site": "same-origin"},
    ],
)
def test_what_another_sites_page_sends_changes_nothing(
    app: FastAPI, kit: Any, sent: dict[str, str]
) -> None:
    client = browser(app)
    refused(create_empty(client, **sent))
    form = {"files": {"annotations": b"{}"}, "headers": sent}
    refused(client.post("/datasets", **form))
    plain = {"content": b'{"dataset_id": "x"}', "headers": {**sent, "Content-Type": "text/plain"}}
    refused(client.post("/jobs/train", **plain))
    refused(client.put("/models/aliases/x", headers=sent))
    refused(client.delete("/jobs/x", headers=sent))
    assert client.get("/datasets", headers=sent).json()["datasets"] == []


@pytest.mark.slow
@pytest.mark.parametrize(
    "sent",
    [
        {},
        {"Origin": OWN_URL},
        {"Origin": "HTTP://127.0.0.1:8765"},
        {"Origin": OWN_URL, "Sec-Fetch-Site": "same-origin"},
        {"Sec-Fetch-Site": "none"},
    ],
)
def test_its_own_page_and_other_programs_may(app: FastAPI, sent: dict[str, str]) -> None:
    assert create_empty(browser(app), **sent).status_code == 201


def test_ports_that_go_without_saying(app: FastAPI) -> None:
    for host, origin in (("localhost", "http://localhost"), ("localhost:80", "http://localhost")):
        assert create_empty(browser(app), Host=host, Origin=origin).status_code == 201
    refused(create_empty(browser(app), Host="localhost", Origin="http://localhost:8000"))


@pytest.mark.slow
@pytest.mark.parametrize(
    "header",
    [
        "Forwarded",
        "Via",
        "X-Real-IP",
        "X-Forwarded-For",
        "X-Forwarded-Host",
        "X-Forwarded-Proto",
        "X-Forwarded-Port",
        "X-Forwarded-Server",
        "CF-Connecting-IP",
    ],
)
@pytest.mark.parametrize("value", ["127.0.0.1", "for=127.0.0.1", "", "localhost"])
def test_behind_a_proxy_a_key_is_needed(app: FastAPI, header: str, value: str) -> None:
    for client in (browser(app), TestClient(app)):
        answer = client.get("/datasets", headers={header: value})
        assert "SAPNET_ALLOW_WITHOUT_KEYS" in refused(answer, 401)
        assert answer.headers["www-authenticate"] == 'Bearer realm="sapnet"'


@pytest.mark.slow
def test_where_a_proxy_is_trusted(make_settings: MakeSettings) -> None:
    """It keeps strangers out, and hands users' requests on: also those that other pages send."""
    app = create_app(make_settings(allow_without_keys=True))
    handed = {"Host": "sapnet.example.org", "X-Forwarded-For": "203.0.113.9"}
    client = browser(app, address="10.0.0.7")
    assert client.get("/jobs", headers=handed).status_code == 200
    page = {"Origin": "https://sapnet.example.org"}
    assert create_empty(client, **handed, **page).status_code == 201
    other_name = {"Host": "api:8000", "Sec-Fetch-Site": "same-origin"}
    assert create_empty(client, **page, **other_name).status_code == 201
    refused(create_empty(client, **handed, **page, **{"Sec-Fetch-Site": "cross-site"}))
    refused(create_empty(client, **handed, Origin="https://evil.example"))


def test_a_trusted_proxy_with_names(make_settings: MakeSettings) -> None:
    app = create_app(make_settings(allow_without_keys=True, allowed_hosts="sapnet.example.org"))
    client = browser(app)
    handed = {"Host": "sapnet.example.org", "X-Forwarded-For": "203.0.113.9"}
    assert client.get("/jobs", headers=handed).status_code == 200
    refused(client.get("/jobs", headers={"Host": "evil.example"}))
    refused(browser(app, address="anything").get("/jobs", headers={**handed, "Host": "evil"}))


def test_with_a_key_the_key_decides(app: FastAPI) -> None:
    with app.state.database.begin() as session:
        key, _ = keys.create(session, "ann", Scope.WRITE)
    sent = {
        "Authorization": f"Bearer {key}",
        "Host": "sapnet.example.org",
        "Origin": "https://elsewhere.example",
        "Sec-Fetch-Site": "cross-site",
        "X-Forwarded-For": "203.0.113.9",
    }
    assert create_empty(browser(app, address="10.0.0.7"), **sent).status_code == 201
    assert browser(app).get("/jobs").status_code == 401


def test_a_websocket_is_refused(app: FastAPI) -> None:
    @app.websocket("/live")
    async def live(websocket: Any) -> None:
        await websocket.accept()

    with (
        pytest.raises(WebSocketDisconnect),
        TestClient(app).websocket_connect("/live", headers={"Origin": "https://evil.example"}),
    ):
        pass


@pytest.mark.slow
def test_no_answer_names_a_host(app: FastAPI, client: TestClient, kit: Any) -> None:
    """Whoever may choose Host must not choose where a client goes on."""
    with app.state.database.begin() as session:
        key, _ = keys.create(session, "ann", Scope.ADMIN)
    client.headers |= {"Authorization": f"Bearer {key}", "Host": "evil.example:81"}
    for n in range(2):
        made = kit.upload(client, kit.points(), kit.images(), name=f"n{n}")
        assert made.headers["location"].startswith("/datasets/")
    page = client.get("/datasets", params={"limit": 1})
    following = page.links["next"]["url"]
    assert following.startswith("/datasets?")
    assert client.get(following).json()["datasets"][0]["name"] == "n0"
    assert create_empty(client).headers["location"].startswith("/uploads/")
    moved = client.get("/datasets/?limit=1", follow_redirects=False)
    assert (moved.status_code, moved.headers["location"]) == (307, "/datasets?limit=1")
    assert client.get("/datasets/?limit=1").status_code == 200
    twice = client.get("//evil.example/web/", follow_redirects=False)
    assert not twice.headers.get("location", "").startswith("//")
    for answer in (page, moved, client.get("/openapi.json"), client.get("/jobs/none")):
        assert "evil.example" not in f"{answer.headers} {answer.text}"


@contextmanager
def served(app: FastAPI, **options: Any) -> Iterator[int]:
    """Behind a real server; its port."""
    config = uvicorn.Config(app, port=0, log_config=None, **options)
    server = uvicorn.Server(config)
    with config.bind_socket() as bound:
        bound.listen()
        thread = threading.Thread(target=server.run, kwargs={"sockets": [bound]})
        thread.start()
        try:
            yield bound.getsockname()[1]
        finally:
            server.should_exit = True
            thread.join()


def said(port: int, head: str) -> int:
    """The status of the answer to a request as it is written."""
    with socket.create_connection(("127.0.0.1", port), timeout=60) as connection:
        connection.sendall(head.replace("\n", "\r\n").encode() + b"\r\n\r\n")
        return int(connection.recv(4_096).split()[1])


@pytest.mark.slow
@pytest.mark.parametrize("http", ["h11", "httptools"])
def test_what_a_real_server_makes_of_odd_requests(app: FastAPI, http: str) -> None:
    with served(app, http=http, forwarded_allow_ips="*") as port:
        assert said(port, f"GET /jobs HTTP/1.1\nHost: localhost:{port}") == 200
        assert said(port, f"GET /jobs HTTP/1.1\nHost: evil.example:{port}") == 403
        assert said(port, "GET /jobs HTTP/1.1") in (400, 403)
        assert said(port, "GET /jobs HTTP/1.0\nHost: localhost") == 401
        two = said(port, "GET /jobs HTTP/1.1\nHost: localhost\nHost: evil.example")
        assert two in (400, 403)
        assert said(port, "GET /jobs HTTP/1.1\nHost: evil.example\nHost: localhost") in (400, 403)
        absolute = "GET http://localhost/jobs HTTP/1.1\nHost: evil.example"
        assert said(port, absolute) in (400, 403, 404)
        # A server that believes any proxy takes the first of these for a client of this machine.
        for header in ("X-Forwarded-For: 127.0.0.1", "X-Forwarded-For: testclient", "Via: 1.1 x"):
            for host in ("localhost", "evil.example"):
                assert said(port, f"GET /jobs HTTP/1.1\nHost: {host}\n{header}") == 401
        with httpx2.Client(base_url=f"http://localhost:{port}", timeout=60) as client:
            assert client.get("/jobs").status_code == 200
