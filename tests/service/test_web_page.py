"""The page's files as the API serves them: to browsers at /, to all below /web, without a key."""

import re
from collections.abc import Callable

import pytest
from starlette.testclient import TestClient

import app.http.web_page
from app.main import create_app
from app.settings import Settings

BROWSER = "text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,*/*;q=0.8"
WEB = app.http.web_page.WEB


@pytest.mark.slow
@pytest.mark.parametrize("accept", ["*/*", "application/json", "application/json, text/html"])
def test_programs_get_json_at_the_root(client: TestClient, accept: str) -> None:
    answer = client.get("/", headers={"accept": accept})
    assert answer.json()["datasets"] == "/datasets"
    assert answer.headers["vary"] == "Accept"


@pytest.mark.slow
def test_browsers_get_the_page_at_the_root(client: TestClient) -> None:
    answer = client.get("/", headers={"accept": BROWSER})
    assert answer.headers["content-type"].startswith("text/html")
    assert answer.headers["vary"] == "Accept"
    policy = answer.headers["content-security-policy"]
    assert "default-src 'self'" in policy
    assert "unsafe" not in policy
    assert answer.headers["cache-control"] == "no-cache"


@pytest.mark.slow
def test_what_the_page_names_is_there(client: TestClient) -> None:
    """All that HTML and modules load, from relative addresses alone: a proxy may add a prefix."""
    index = (WEB / "index.html").read_text()
    loaded = re.findall(r'(?:href|src)="([^"#]+)"', index)
    assert {"web/main.js", "web/styles/style.css"} <= set(loaded)
    for address in loaded:
        assert not address.startswith(("/", "http")), address
        assert client.get(f"/{address}").status_code == 200, address
    for module in WEB.rglob("*.js"):
        imports = re.findall(r'(?:from|import\() ?"([^"]+)"', module.read_text())
        for address in imports:
            assert address.startswith("."), f"{module.name}: {address}"
            assert (module.parent / address).is_file(), f"{module.name}: {address}"


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("main.js", "text/javascript"),
        ("styles/style.css", "text/css"),
        ("icon.svg", "image/svg+xml"),
    ],
)
def test_files_are_asked_for_again_and_sent_once(client: TestClient, name: str, kind: str) -> None:
    first = client.get(f"/web/{name}")
    assert first.headers["content-type"].startswith(kind)
    assert first.headers["cache-control"] == "no-cache"
    again = client.get(f"/web/{name}", headers={"if-none-match": first.headers["etag"]})
    assert (again.status_code, again.content) == (304, b"")


@pytest.mark.slow
@pytest.mark.parametrize(
    "path", ["/web/none.js", "/web/", "/web/views", "/web/%2e%2e/main.py", "/web/..%2fmain.py"]
)
def test_nothing_else_is_below_web(client: TestClient, path: str) -> None:
    answer = client.get(path)
    assert answer.status_code == 404
    assert answer.headers["content-type"] == "application/problem+json"


def test_the_page_needs_no_key_and_shows_nothing_without(
    make_settings: Callable[..., Settings],
) -> None:
    """A stranger gets the page, that asks for a key; of the data nothing."""
    stranger = TestClient(create_app(make_settings()), client=("192.0.2.7", 50_000))
    assert stranger.get("/", headers={"accept": BROWSER}).status_code == 200
    assert stranger.get("/web/main.js").status_code == 200
    assert stranger.get("/datasets").status_code == 401


def test_files_stay_small() -> None:
    files = [*WEB.rglob("*.js"), *WEB.rglob("*.css"), *WEB.rglob("*.html")]
    assert files
    for path in files:
        assert len(path.read_text().splitlines()) <= 400, path.name


@pytest.mark.slow
def test_the_apis_page_is_the_services_own(client: TestClient) -> None:
    page = client.get("/docs")
    assert page.headers["content-security-policy"] == app.http.web_page.POLICY
    loaded = re.findall(r'(?:href|src)="([^"#]+)"', page.text)
    assert len(loaded) >= 4
    for address in loaded:
        assert not address.startswith(("/", "http")), address
        assert client.get(f"/{address}").status_code == 200, address
    assert not re.search(r"<script>|<style|\son\w+=", page.text), "no policy allows that"
    assert client.get("/redoc").status_code == 404
    assert client.get("/docs/oauth2-redirect").status_code == 404
