"""The documentation site: it builds in strict mode, without a network, and has all of it."""

import os
import re
import shutil
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest

from app.cli.main import app as cli
from app.main import create_app
from app.settings import Settings
from sapnet.config.overrides import override_names
from sapnet.config.schema import Config

ROOT = Path(__file__).resolve().parents[2]
DOCS = ROOT / "docs"
LOADS = {"script": "src", "img": "src", "iframe": "src", "source": "src", "link": "href"}
NO_NETWORK = """
import runpy, socket, sys

def refuse(*args, **kwargs):
    raise AssertionError(f"the build asks for the network: {args}")

socket.socket.connect = socket.create_connection = socket.getaddrinfo = refuse
sys.argv[0] = "mkdocs"
runpy.run_module("mkdocs", run_name="__main__")
"""
pytestmark = pytest.mark.slow


class References(HTMLParser):
    """What a page loads, where its links lead, and the ids that it has."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.loads: list[str] = []
        self.links: list[str] = []
        self.ids: set[str] = set()
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = dict(attrs)
        self.ids.add(values.get("id") or "")
        is_loaded = tag != "link" or values.get("rel") not in ("canonical", "prev", "next")
        if (address := values.get(LOADS.get(tag, ""))) and is_loaded:
            self.loads.append(address)
        if tag == "a" and values.get("href"):
            self.links.append(values["href"] or "")


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("site")
    done = subprocess.run(
        [sys.executable, "-c", NO_NETWORK, "build", "--strict", "--site-dir", str(folder)],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT), "NO_MKDOCS_2_WARNING": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return folder


@pytest.fixture(scope="module")
def pages(site: Path) -> dict[str, References]:
    return {
        str(path.relative_to(site)): References(path.read_text())
        for path in sorted(site.rglob("*.html"))
        if "source" not in path.relative_to(site).parts
    }


def text_of(site: Path, name: str) -> str:
    return (site / name).read_text()


def test_nothing_is_loaded_from_another_host(site: Path, pages: dict[str, References]) -> None:
    for name, page in pages.items():
        for address in page.loads:
            assert not re.match(r"(?:https?:)?//", address), f"{name} loads {address}"
    for sheet in site.rglob("*.css"):
        for address in re.findall(r"(?:url\(|@import )['\"]?([^)'\";]+)", sheet.read_text()):
            assert not re.match(r"(?:https?:)?//", address), f"{sheet.name} loads {address}"


def test_it_works_from_a_folder(site: Path, pages: dict[str, References]) -> None:
    """What pages load and link to is there, as a file with its name written out."""
    missing = []
    for name, page in pages.items():
        for address in page.loads + page.links:
            where = urlsplit(address)
            if where.scheme or where.netloc or address.startswith("data:"):
                continue
            base = "404.html" if name == "404.html" else name
            path = unquote(where.path)
            there = site / path.lstrip("/") if path.startswith("/") else (site / base).parent / path
            there = there if path else site / name
            if not there.is_file() and not (name == "404.html" and there.is_dir()):
                missing.append(f"{name}: {address}")
            elif where.fragment and (to := pages.get(str(there.resolve().relative_to(site)))):
                ids = to.ids | {"", "__consent", "__search"}
                if unquote(where.fragment) not in ids:
                    missing.append(f"{name}: {address}")
    assert not missing, "\n".join(missing[:20])
    assert (site / "search" / "search_index.js").is_file()


def test_the_search_works_without_a_server(site: Path) -> None:
    playwright = pytest.importorskip("playwright.sync_api")
    program = shutil.which("chromium") or shutil.which("google-chrome")
    if program is None:
        pytest.skip("no chromium is installed (apt-get install chromium)")
    asked: list[str] = []
    with playwright.sync_playwright() as started:
        browser = started.chromium.launch(executable_path=program, args=["--no-sandbox"])
        page = browser.new_page()
        page.on("request", lambda request: asked.append(request.url))
        page.goto((site / "index.html").as_uri())
        page.get_by_role("textbox", name="Search").fill("point distance guidance")
        found = page.locator(".md-search-result__item").first
        playwright.expect(found).to_be_visible(timeout=60_000)
        browser.close()
    assert not [url for url in asked if not url.startswith(("file:", "data:", "blob:"))]


def test_every_page_of_the_folder_is_reached(site: Path, pages: dict[str, References]) -> None:
    """From the first page, by links: the navigation takes up what lies in docs/."""
    left, reached = ["index.html"], {"index.html"}
    while left:
        name = left.pop()
        for address in pages[name].links:
            path = unquote(urlsplit(address).path)
            if not path or urlsplit(address).scheme:
                continue
            there = os.path.normpath(Path(name).parent / path)
            if there in pages and there not in reached:
                reached.add(there)
                left.append(there)
    written = {str(p.relative_to(DOCS).with_suffix(".html")) for p in DOCS.rglob("*.md")}
    assert written <= reached, written - reached
    assert {"contributing.html", "changelog.html", "decisions/index.html"} <= reached


def test_the_rest_reference_has_every_operation(site: Path) -> None:
    document = create_app(Settings(_env_file=None)).openapi()  # type: ignore[call-arg]
    index = text_of(site, "reference/rest/index.html")
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            page = text_of(site, f"reference/rest/{operation['tags'][0]}.html")
            shown = f"{method.upper()} {path}"
            assert f"<code>{shown}</code>" in page, shown
            assert f"<code>{shown}</code>" in index, shown
            for parameter in operation.get("parameters", []):
                assert f"<code>{parameter['name']}</code>" in page, (shown, parameter["name"])
    schemas = text_of(site, "reference/rest/schemas.html")
    for name in document["components"]["schemas"]:
        assert f'id="{name.lower()}"' in schemas, name


def test_the_settings_references_have_every_setting(site: Path) -> None:
    service = text_of(site, "reference/settings/service.html")
    for name in Settings.model_fields:
        assert f"<code>SAPNET_{name.upper()}</code>" in service, name
    training = text_of(site, "reference/settings/training.html")
    for name in override_names(Config()):
        assert f"<code>{name}</code>" in training, name
    assert str(ROOT) not in service
    assert sys.executable not in service


def test_the_python_reference_has_the_client(site: Path) -> None:
    page = text_of(site, "reference/client.html")
    from sapnet_client import AsyncClient, errors

    for name in vars(AsyncClient).keys() | {n for b in AsyncClient.__mro__ for n in vars(b)}:
        if not name.startswith("_") and callable(getattr(AsyncClient, name, None)):
            assert f'id="sapnet_client.AsyncClient.{name}"' in page, name
    for name, made in vars(errors).items():
        if isinstance(made, type) and made.__module__ == errors.__name__:
            assert f'id="sapnet_client.errors.{name}"' in page or name.startswith("_"), name


def test_the_commands_are_there(site: Path) -> None:
    page = text_of(site, "reference/commands.html")
    for command in cli.registered_commands:
        assert command.callback is not None
        name = (command.name or command.callback.__name__).replace("_", "-")
        assert f'id="sapnet-service-{name}"' in page, name
