"""`examples/demo.py` as `make demo` runs it, on few scenes and for a moment."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image as PILImage

from sapnet.data.synthetic import Scenes, make_scenes

pytestmark = pytest.mark.service

ROOT = Path(__file__).resolve().parents[2]
SHORT = ["--set", "train.epochs=1", "--set", "data.short_sides=[96]", "--preset", "demo"]


def demo(folder: Path, *args: str, **env: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(ROOT / "examples" / "demo.py"), "--out", str(folder / "out")]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "TMPDIR": str(folder), **env}
    return subprocess.run(
        [*command, *args],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        timeout=240,
    )


@pytest.fixture
def scenes(tmp_path: Path) -> Scenes:
    return make_scenes(tmp_path / "mine", 3, size=(96, 112), seed=1)


def result_of(folder: Path) -> dict[str, Any]:
    document: dict[str, Any] = json.loads((folder / "out" / "result.json").read_text())
    return document


def test_on_drawn_scenes(tmp_path: Path) -> None:
    done = demo(tmp_path, *SHORT, "--scenes", "3")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "mIoU of the delivered masks" in done.stdout
    assert PILImage.open(tmp_path / "out" / "gallery.png").size > (100, 100)
    result = result_of(tmp_path)
    assert set(result["held_out"]) >= {"AP", "AP50"}
    assert result["masks"] == result["metrics"]["pseudo_masks"]["count"]
    assert list(tmp_path.glob("sapnet-demo-*")) == []


@pytest.mark.skipif(shutil.which("redis-server") is None, reason="no redis-server installed")
def test_on_your_own_images_with_celery(tmp_path: Path, scenes: Scenes) -> None:
    own = ["--images", str(scenes.images), "--points", str(scenes.points)]
    done = demo(tmp_path, *SHORT, *own, "--stack", "redis")
    assert done.returncode == 0, done.stdout + done.stderr
    result = result_of(tmp_path)
    assert result["metrics"]["pseudo_masks"] is None  # no truth was given
    assert "held_out" not in result


def test_what_is_wrong_is_said(tmp_path: Path, scenes: Scenes) -> None:
    (scenes.images / "scene-00002.png").unlink()
    own = ["--images", str(scenes.images), "--points", str(scenes.points)]
    done = demo(tmp_path, *SHORT, *own)
    assert done.returncode == 1
    assert "scene-00002.png" in done.stdout
    assert "Traceback" not in done.stdout + done.stderr


def test_redis_that_is_not_installed(tmp_path: Path) -> None:
    done = demo(tmp_path, "--stack", "redis", PATH=str(tmp_path))
    assert done.returncode == 1
    assert "redis-server" in done.stdout


@pytest.mark.parametrize("ending", [signal.SIGINT, signal.SIGTERM])
def test_ending_it_stops_everything(
    tmp_path: Path, ending: signal.Signals, until: Callable[..., None]
) -> None:
    command = [sys.executable, str(ROOT / "examples" / "demo.py"), "--out", str(tmp_path / "out")]
    environment = {**os.environ, "TMPDIR": str(tmp_path), "PYTHONUNBUFFERED": "1"}
    process = subprocess.Popen(
        [*command, "--scenes", "4"],
        cwd=ROOT,
        env=environment,
        stdout=subprocess.PIPE,
        text=True,
        # tests that run in a shell's background inherit a Ctrl-C that is ignored
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    assert process.stdout is not None
    for line in process.stdout:
        if line.startswith("Job "):
            break
    time.sleep(1)
    process.send_signal(ending)
    assert process.wait(90) == 130  # the demo itself gives the service 60 s
    process.stdout.close()
    mine, own = str(tmp_path).encode(), str(os.getpid())

    def left() -> list[Path]:
        found = Path("/proc").glob("[0-9]*/environ")
        return [p for p in found if p.parent.name != own and mine in _read(p)]

    until(lambda: not left())  # what was killed takes a moment to go
    assert list(tmp_path.glob("sapnet-demo-*")) == []


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError:
        return b""
