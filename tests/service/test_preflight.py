"""What stops the service from starting is said in one line, with what to do about it."""

import os
import socket
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest

from app.cli.preflight import LOCK
from app.db import migrate as schema

pytestmark = pytest.mark.slow


def run(folder: Path, *command: str, **settings: str) -> tuple[int, str]:
    """Exit code and stderr of a command that ends by itself."""
    env = {**os.environ, "SAPNET_DATA_DIR": str(folder), **settings}
    done = subprocess.run(
        [sys.executable, "-m", "app.cli", *command],
        env=env,
        capture_output=True,
        text=True,
        timeout=300,
    )
    return done.returncode, done.stderr


def only_line(error: str) -> str:
    (line,) = error.strip().splitlines()
    assert "Traceback" not in line
    return line


def test_a_port_in_use(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        code, error = run(tmp_path, "serve", "--port", port)
    assert code == 2
    assert port in only_line(error)
    assert "--port 0" in error


@pytest.mark.parametrize(
    ("host", "remedy"), [("203.0.113.7", "--host 127.0.0.1"), ("no such host", "--host")]
)
def test_an_address_that_cannot_be_listened_at(tmp_path: Path, host: str, remedy: str) -> None:
    code, error = run(tmp_path, "serve", "--port", "0", "--host", host)
    assert code == 2
    assert host in only_line(error)
    assert remedy in error


@pytest.mark.parametrize("command", [["serve", "--port", "0"], ["doctor"], ["keys", "list"]])
def test_a_data_folder_that_cannot_be_made(tmp_path: Path, command: list[str]) -> None:
    (tmp_path / "file").write_text("")
    code, error = run(tmp_path / "file" / "data", *command)
    assert code == 2
    assert str(tmp_path / "file" / "data") in only_line(error)
    assert "SAPNET_DATA_DIR" in error


def test_a_second_server_of_one_folder(tmp_path: Path) -> None:
    import fcntl

    with (tmp_path / LOCK).open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        file.write("sapnet-service, process 4711,")
        file.flush()
        code, error = run(tmp_path, "serve", "--port", "0")
    assert code == 2
    assert "process 4711" in only_line(error)
    assert "SAPNET_DATA_DIR" in error


@pytest.mark.parametrize("command", [["serve", "--port", "0"], ["migrate"], ["keys", "list"]])
def test_a_schema_that_is_newer_than_the_code(tmp_path: Path, command: list[str]) -> None:
    assert run(tmp_path, "migrate")[0] == 0
    (path,) = tmp_path.glob("*.db*")
    database = sqlite3.connect(path)
    database.execute("UPDATE alembic_version SET version_num = '9999'")
    database.commit()
    database.close()
    code, error = run(tmp_path, *command)
    assert code == 2
    assert "'9999'" in only_line(error)
    assert schema.head() in error


def test_a_revision_that_does_not_exist(tmp_path: Path) -> None:
    code, error = run(tmp_path, "migrate", "nonsense")
    assert code == 2
    assert "nonsense" in only_line(error)


def test_doctor_before_the_first_start(tmp_path: Path) -> None:
    code, error = run(tmp_path, "doctor", SAPNET_PORT=str(free_port()))
    assert (code, error) == (0, "")


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
