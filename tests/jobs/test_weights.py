"""`sapnet-service weights`: published files from a server on loopback, with and without faults."""

import hashlib
import threading
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from app.cli import weights
from app.cli.main import app
from sapnet.config.presets import PRESETS
from sapnet.config.published import PRESET_WEIGHTS, PUBLISHED, missing_segmenter

CONTENT = b"weights" * 1000


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *_: object) -> None: ...


@pytest.fixture
def server(tmp_path: Path) -> Iterator[str]:
    folder = tmp_path / "served"
    folder.mkdir()
    (folder / "file.pth").write_bytes(CONTENT)
    handler = partial(Quiet, directory=str(folder))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as running:
        thread = threading.Thread(target=running.serve_forever, args=(0.01,))
        thread.start()
        yield f"http://127.0.0.1:{running.server_address[1]}"
        running.shutdown()
        thread.join()


@pytest.fixture
def published(monkeypatch: pytest.MonkeyPatch) -> str:
    """The name of a file with the sha256 of what the server has."""
    digits = hashlib.sha256(CONTENT).hexdigest()[:8]
    url = f"https://nowhere.invalid/solov2_20220101_000000-{digits}.pth"
    one = replace(PUBLISHED["solov2-light-r18"], url=url)
    monkeypatch.setitem(weights.PUBLISHED, "solov2-light-r18", one)
    return one.filename


def fetch(name: str, *arguments: str) -> Result:
    return CliRunner().invoke(app, ["weights", "fetch", name, *arguments])


@pytest.mark.parametrize("name", ["solov2-light-r18", "light_r18"])
def test_a_file_comes_with_its_checksum(
    server: str, published: str, tmp_path: Path, name: str
) -> None:
    out = tmp_path / "out"
    done = fetch(name, "--out", str(out), "--from", f"{server}/file.pth")
    assert done.exit_code == 0, done.output
    assert done.stdout.strip() == str(out / published)
    assert (out / published).read_bytes() == CONTENT
    assert f"models import {out / published}" in done.stderr.replace("\n", "")
    again = fetch(name, "--out", str(out))  # no server: it is not asked
    assert (again.exit_code, "here already" in again.stderr) == (0, True)


@pytest.mark.parametrize(
    ("address", "says"), [("file.pth", "came with sha256"), ("none.pth", "404")]
)
def test_another_file_is_not_kept(server: str, tmp_path: Path, address: str, says: str) -> None:
    done = fetch("solov2-r50-3x", "--out", str(tmp_path / "out"), "--from", f"{server}/{address}")
    assert done.exit_code == 1
    assert says in done.stderr
    assert "fed092d4" in done.stderr
    assert list((tmp_path / "out").iterdir()) == []


def test_without_a_network_it_says_so_in_a_line(tmp_path: Path) -> None:
    url = "http://127.0.0.1:9/file.pth"  # nobody listens there
    done = fetch("solov2-light-r18", "--out", str(tmp_path), "--from", url)
    assert done.exit_code == 1
    (line,) = done.stderr.splitlines()
    assert "could not download http://127.0.0.1:9" in line
    assert "without a network, bring https://download.openmmlab.com/" in line
    assert fetch("unknown").exit_code == 2


def test_every_file_says_its_checksum_and_every_preset_its_file() -> None:
    for one in PUBLISHED.values():
        assert len(one.sha256_prefix) == 8
        int(one.sha256_prefix, 16)
        assert one.url.startswith("https://")
    assert set(PRESET_WEIGHTS) == set(PRESETS) - {"cpu", "demo"}
    assert set(PRESET_WEIGHTS.values()) <= set(PUBLISHED)
    assert "weights fetch solov2-light-r34" in (missing_segmenter("light_r34") or "")
    assert missing_segmenter("cpu") is missing_segmenter("demo") is None
    listed = CliRunner().invoke(app, ["weights", "list"]).stdout
    assert "solov2-light-r18: SOLOv2 on COCO, light, ResNet-18, AP 29.7 (Apache-2.0)" in listed
