"""The real service in a folder of its own, and Debian's Chromium in front of it.

SCREENSHOTS=DIR keeps the images that tests take there; default is the test's own folder.
"""

import json
import os
import shutil
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

pytest.importorskip("playwright", reason="playwright is not installed (pip install -e '.[dev]')")

from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import (
    Browser,
    BrowserContext,
    ConsoleMessage,
    Page,
    expect,
    sync_playwright,
)

PATIENCE = 60_000  # milliseconds: machines are busy
expect.set_options(timeout=PATIENCE)

FAKE = Path(__file__).parents[1] / "jobs" / "fake_trainer.py"
ROOT = Path(__file__).resolve().parents[2]
WIDE, NARROW = {"width": 1920, "height": 1080}, {"width": 360, "height": 780}
RULES = {"runOnly": ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"]}


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    here = Path(__file__).parent
    for item in items:
        if here in item.path.parents:
            item.add_marker(pytest.mark.service)


@dataclass
class Service:
    """A running service. `trainer` is read for each job that starts."""

    url: str
    folder: Path
    arguments: Path

    def trainer(self, *arguments: str) -> None:
        """What the fake trainer of jobs from now on is told: --steps 60 --sleep 0.05 …"""
        self.arguments.write_text(json.dumps(arguments))

    def ask(self, path: str, body: Any = None, method: str | None = None, **headers: str) -> Any:
        """JSON of the API, past the page."""
        data = None if body is None else json.dumps(body).encode()
        headers["Accept"] = "application/json"
        if data is not None:
            headers["Content-Type"] = "application/json"
        request = urllib.request.Request(self.url + path, data, headers, method=method)
        with urllib.request.urlopen(request, timeout=60) as answer:
            text = answer.read()
        return json.loads(text) if text else None

    def dataset(self, name: str = "cells", images: int = 3, each: int = 2) -> str:
        """A data set of small images with points of two classes; its id."""
        import httpx2

        document: dict[str, Any] = {
            "images": [{"id": i, "file_name": f"{i}.png"} for i in range(1, images + 1)],
            "categories": [{"id": 1, "name": "cell"}, {"id": 2, "name": "dust"}],
            "annotations": [
                {
                    "id": 10 * i + j,
                    "image_id": i,
                    "category_id": 1 + j % 2,
                    "point": [20 + 30 * j, 25],
                }
                for i in range(1, images + 1)
                for j in range(each)
            ],
        }
        files = [("annotations", ("points.json", json.dumps(document)))]
        for i in range(1, images + 1):
            path = make_image(self.folder / "sent" / f"{i}.png", seed=i)
            files.append(("images", (path.name, path.read_bytes())))
        answer = httpx2.post(f"{self.url}/datasets", data={"name": name}, files=files, timeout=60)
        assert answer.status_code == 201, answer.text
        return str(answer.json()["id"])

    def job(self, dataset_id: str, *, wait: bool = True, **wishes: Any) -> str:
        """A training by the fake trainer; its id, once it is over."""
        job = self.ask("/jobs/train", {"dataset_id": dataset_id, "preset": "demo", **wishes})
        deadline = time.monotonic() + 60
        while wait and self.ask(f"/jobs/{job['id']}")["state"] in ("queued", "running"):
            assert time.monotonic() < deadline, "the job does not end"
            time.sleep(0.1)
        return str(job["id"])


def make_image(path: Path, *, seed: int = 0, width: int = 120, height: int = 80) -> Path:
    """A small image with a bright square, another one for each seed."""
    path.parent.mkdir(parents=True, exist_ok=True)
    image = Image.new("RGB", (width, height), (30, 40 + 20 * (seed % 8), 70))
    image.paste((230, 210, 40 * (seed % 6)), (12, 15, 34, 37))
    image.paste((210, 120, 160), (45, 15, 62, 37))
    image.save(path)
    return path


@pytest.fixture(scope="session")
def start_service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[..., Service]]:
    """Start `sapnet-service serve` with these settings; it ends with the session."""
    started: list[subprocess.Popen[bytes]] = []

    def start(*, real: bool = False, **settings: str) -> Service:
        folder = tmp_path_factory.mktemp("service")
        arguments = folder / "trainer.json"
        arguments.write_text("[]")
        env = {k: v for k, v in os.environ.items() if not k.startswith("SAPNET_")}
        values = {"data_dir": str(folder / "var"), "poll_seconds": "0.1", **settings}
        if not real:
            program = (
                "import json, runpy, sys; "
                f"sys.argv[:1] = ['fake', *json.load(open({str(arguments)!r}))]; "
                f"runpy.run_path({str(FAKE)!r}, run_name='__main__')"
            )
            values["trainer_command"] = json.dumps([sys.executable, "-c", program])
            values["progress_event_seconds"] = "0.2"
        env |= {f"SAPNET_{name.upper()}": value for name, value in values.items()}
        env["PYTHONPATH"] = str(ROOT)
        output = folder / "output.txt"
        with output.open("wb") as file:
            command = [sys.executable, "-u", "-m", "app.cli", "serve", "--port", "0"]
            process = subprocess.Popen(command, env=env, cwd=folder, stdout=file, stderr=file)
        started.append(process)
        return Service(_address(process, output), folder, arguments)

    yield start
    for process in started:
        process.terminate()
    for process in started:
        try:
            process.wait(15)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _address(process: subprocess.Popen[bytes], output: Path) -> str:
    deadline = time.monotonic() + 60
    while True:
        told = output.read_text()
        if "is at http://" in told:
            return "http://" + told.split("is at http://", 1)[1].split()[0]
        assert process.poll() is None, told
        assert time.monotonic() < deadline, told
        time.sleep(0.1)


@pytest.fixture(scope="session")
def shared_service(start_service: Callable[..., Service]) -> Service:
    return start_service()


@pytest.fixture
def service(shared_service: Service) -> Service:
    """One service for the session's tests of the page, with a fake trainer that is fast."""
    shared_service.trainer()
    return shared_service


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    names = ("chromium", "chromium-browser", "google-chrome")
    program = next((found for name in names if (found := shutil.which(name))), None)
    if program is None:
        pytest.skip("no chromium is installed (apt-get install chromium)")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program, args=["--no-sandbox"])
        yield browser
        browser.close()


@dataclass
class Ui:
    """A page of the service in a browser.

    errors: what the page wrote to its console as an error, or threw; the test fails of any that
    `expected` does not name.
    """

    page: Page
    service: Service
    folder: Path
    errors: list[str] = field(default_factory=list)
    expected: list[str] = field(default_factory=list)

    def open(self, path: str = "/datasets") -> Page:
        """Go to a view, as `#/…` names it, and wait until it is there."""
        self.page.goto(f"{self.service.url}/#{path}")
        self.settled()
        return self.page

    def settled(self) -> None:
        self.page.wait_for_selector("main > section.view:not([aria-busy])")

    def shot(self, name: str) -> None:
        self.page.evaluate("scrollTo(0, 0)")
        self.page.screenshot(path=self.folder / f"{name}.png", full_page=True)

    def looks(self, name: str, *, shots: bool = True) -> None:
        """Axe finds nothing, in dark and light, wide and narrow; nothing sticks out sideways."""
        before = self.page.viewport_size
        for theme in ("light", "dark"):
            self.page.emulate_media(color_scheme=theme, reduced_motion="reduce")
            for size in (NARROW, WIDE):
                self.page.set_viewport_size(size)
                self.page.wait_for_timeout(100)
                where = f"{name}-{theme}-{size['width']}"
                if shots:
                    self.shot(where)
                found = Axe().run(self.page, options=RULES)
                assert found.violations_count == 0, f"{where}\n{found.generate_report()}"
                wide = "document.documentElement.scrollWidth"
                assert self.page.evaluate(wide) <= size["width"], f"{where} sticks out sideways"
        self.page.emulate_media(color_scheme="light", reduced_motion="no-preference")
        if before:
            self.page.set_viewport_size(before)


@pytest.fixture
def shots(tmp_path: Path) -> Path:
    folder = Path(os.environ.get("SCREENSHOTS") or tmp_path / "screenshots").resolve()
    folder.mkdir(parents=True, exist_ok=True)
    return folder


@pytest.fixture
def context(browser: Browser) -> Iterator[BrowserContext]:
    context = browser.new_context(viewport={"width": 1280, "height": 860})
    context.set_default_timeout(PATIENCE)
    yield context
    context.close()


@pytest.fixture
def ui(context: BrowserContext, service: Service, shots: Path) -> Iterator[Ui]:
    """A fresh browser profile; the test fails of any error in its console."""
    ui = watched(context, service, shots)
    yield ui
    unexpected = [e for e in ui.errors if not any(known in e for known in ui.expected)]
    assert not unexpected, unexpected


def watched(context: BrowserContext, service: Service, folder: Path) -> Ui:
    ui = Ui(context.new_page(), service, folder)

    def told(message: ConsoleMessage) -> None:
        if message.type == "error":
            ui.errors.append(message.text)

    ui.page.on("console", told)
    ui.page.on("pageerror", lambda error: ui.errors.append(str(error)))
    return ui
