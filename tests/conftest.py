"""What holds for every test."""

import os
import shutil
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup() -> None:
    """One thread a test: they run beside each other, and threads of their own would only wait.

    torch is not imported for this: some tests assert that it never was.
    """
    torch = sys.modules.get("torch")
    if torch is not None and torch.get_num_threads() != 1:
        torch.set_num_threads(1)


@pytest.fixture(scope="session")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A MobileNetV2 of random numbers, as if it had been trained: no download, no GroupNorm."""
    import torch
    import torchvision

    path = tmp_path_factory.mktemp("weights") / "mobilenet.pt"
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = torchvision.models.mobilenet_v2(weights=None)
    torch.save(network.state_dict(), path)
    return path


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[str]:
    """A PostgreSQL of our own on a free port; the URL of its empty database."""
    programs = _postgres_programs()
    if programs is None:
        pytest.skip("PostgreSQL's programs are not installed (apt-get install postgresql)")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    folder = Path(tempfile.mkdtemp(prefix="sapnet-pg-"))
    # As root it must be somebody else: PostgreSQL refuses to run as root.
    as_user = ["runuser", "-u", "postgres", "--"] if os.geteuid() == 0 else []
    if as_user:
        shutil.chown(folder, "postgres")
    pg_ctl = [*as_user, str(programs / "pg_ctl"), "-D", str(folder / "data"), "-s", "-w"]
    options = f"-p {port} -k {folder} -c listen_addresses=127.0.0.1 -c fsync=off"
    try:
        subprocess.run(
            [*pg_ctl, "-o", "-U sapnet -A trust", "init"], check=True, stdout=subprocess.DEVNULL
        )
        subprocess.run(
            [*pg_ctl, "-o", options, "-l", str(folder / "log"), "start"], check=True, timeout=60
        )
        yield f"postgresql+psycopg://sapnet@127.0.0.1:{port}/postgres"
    finally:
        subprocess.run([*pg_ctl, "-m", "immediate", "stop"], check=False)
        shutil.rmtree(folder, ignore_errors=True)


def _postgres_programs() -> Path | None:
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
    on_path = shutil.which("initdb")
    return found[-1].parent if found else Path(on_path).parent if on_path else None
