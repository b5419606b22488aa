"""A real server: memory stays flat whatever comes, a client that hangs up leaves nothing."""

import io
import json
import os
import socket
import subprocess
import sys
import tarfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2
import pytest

from app.settings import Settings

pytestmark = pytest.mark.service

MB = 2**20


@pytest.fixture
def server(settings: Settings, tmp_path: Path) -> Iterator[tuple[str, int]]:
    """Its URL and its process id."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    env = os.environ | {
        "SAPNET_DATA_DIR": str(settings.data_dir),
        "SAPNET_MAX_UPLOAD_BYTES": str(400 * MB),
        "SAPNET_SYNC_IMPORT_BYTES": str(400 * MB),
    }
    command = [sys.executable, "-m", "uvicorn", "--factory", "app.main:create_app"]
    with (tmp_path / "log").open("wb") as log:
        process = subprocess.Popen(
            [*command, "--port", str(port)], env=env, stdout=log, stderr=log, cwd=tmp_path
        )
    url = f"http://127.0.0.1:{port}"
    try:
        for _ in range(300):
            try:
                httpx2.get(f"{url}/healthz")
                break
            except httpx2.TransportError:
                assert process.poll() is None, (tmp_path / "log").read_text()
                time.sleep(0.1)
        yield url, process.pid
    finally:
        process.terminate()
        process.wait(20)


def peak_mb(pid: int) -> float:
    status = Path(f"/proc/{pid}/status").read_text()
    line = next(line for line in status.splitlines() if line.startswith("VmHWM"))
    return int(line.split()[1]) / 1024


def big_tar(path: Path, image: bytes, megabytes: int) -> None:
    with tarfile.open(path, "w") as archive:
        for i in range(megabytes // 50):
            info = tarfile.TarInfo(f"other-{i}.bin")
            info.size = 50 * MB
            archive.addfile(info, io.BytesIO(os.urandom(50 * MB)))
        info = tarfile.TarInfo("1.png")
        info.size = len(image)
        archive.addfile(info, io.BytesIO(image))


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="reads /proc: Linux only")
def test_300_mb_in_constant_memory(
    server: tuple[str, int], settings: Settings, tmp_path: Path, kit: Any
) -> None:
    url, pid = server
    small = {
        "annotations": ("points.json", json.dumps(kit.points(1)).encode()),
        "images": ("1.png", kit.image(seed=1)),
    }
    assert httpx2.post(f"{url}/datasets", files=small, timeout=60).status_code == 201
    before = peak_mb(pid)
    big_tar(tmp_path / "big.tar", kit.image(seed=1), 300)
    with (tmp_path / "big.tar").open("rb") as archive:
        files = {"annotations": small["annotations"], "images": ("big.tar", archive)}
        answer = httpx2.post(f"{url}/datasets", files=files, timeout=120)
    assert answer.status_code == 201, answer.text
    assert answer.json()["report"]["ignored_files"]["count"] == 6
    assert peak_mb(pid) - before < 30
    assert not list((settings.data_dir / "uploads").iterdir())


def test_hanging_up_in_the_middle(server: tuple[str, int], settings: Settings) -> None:
    url, _ = server
    host, port = url.removeprefix("http://").split(":")
    head = (
        "POST /datasets HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9000000\r\n"
        "Content-Type: multipart/form-data; boundary=x\r\n\r\n"
        '--x\r\nContent-Disposition: form-data; name="images"; filename="a"\r\n\r\n'
    )
    uploads = settings.data_dir / "uploads"
    with socket.create_connection((host, int(port))) as client:
        client.sendall(head.encode() + b"0" * 4_000_000)
        wait_until(lambda: any(uploads.rglob("part-*")))
    wait_until(lambda: not any(uploads.iterdir()))
    assert httpx2.get(f"{url}/datasets", timeout=60).json()["datasets"] == []
    assert not [p for p in (settings.data_dir / "blobs").rglob("*") if p.is_file()]


def test_too_large_is_said_before_the_body_comes(server: tuple[str, int]) -> None:
    host, port = server[0].removeprefix("http://").split(":")
    head = (
        f"POST /datasets HTTP/1.1\r\nHost: localhost\r\nContent-Length: {500 * MB}\r\n"
        "Content-Type: multipart/form-data; boundary=x\r\nExpect: 100-continue\r\n\r\n"
    )
    with socket.create_connection((host, int(port)), timeout=10) as client:
        client.sendall(head.encode())
        answer = client.recv(65536)
    assert b" 413 " in answer.split(b"\r\n")[0]
    assert b"application/problem+json" in answer


def test_curl_as_the_readme_has_it(server: tuple[str, int], tmp_path: Path, kit: Any) -> None:
    (tmp_path / "points.json").write_text(json.dumps(kit.points(2)))
    (tmp_path / "images.zip").write_bytes(kit.zipped(kit.images()))
    form = ["-F", "name=cells", "-F", "annotations=@points.json", "-F", "images=@images.zip"]
    done = subprocess.run(
        ["curl", "-sS", *form, f"{server[0]}/datasets"],
        capture_output=True,
        check=True,
        cwd=tmp_path,
    )
    assert json.loads(done.stdout)["status"] == "ready"


def wait_until(condition: Any, seconds: float = 60) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.02)
