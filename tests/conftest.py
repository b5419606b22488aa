"""What holds for every test, and the real servers that some of them need.

Nobody is mocked: PostgreSQL and Redis are Debian's, the S3 server is moto's, from PyPI. Each is
started once, on a free port, by the first test that asks for it.
"""

import os
import secrets
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import hypothesis
import pytest

if TYPE_CHECKING:
    import torch

    from app.settings import Settings

Stack = dict[str, str]
"""Settings that name servers: `database_url`, `broker_url`, `storage_url`; none on the embedded."""


# The same examples in every run, however long the machine takes for one.
hypothesis.settings.register_profile(
    "calm",
    derandomize=True,
    deadline=None,
    suppress_health_check=[hypothesis.HealthCheck.too_slow],
)
hypothesis.settings.load_profile("calm")


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup() -> None:
    """One thread a test: they run beside each other, and threads of their own would only wait.

    torch is not imported for this: some tests assert that it never was.
    """
    torch = sys.modules.get("torch")
    if torch is not None and torch.get_num_threads() != 1:
        torch.set_num_threads(1)


@pytest.fixture
def generator() -> "torch.Generator":
    import torch

    return torch.Generator().manual_seed(0)


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
    folder = Path(tempfile.mkdtemp(prefix="sapnet-pg-"))
    # As root it must be somebody else: PostgreSQL refuses to run as root.
    as_user = ["runuser", "-u", "postgres", "--"] if os.geteuid() == 0 else []
    if as_user:
        shutil.chown(folder, "postgres")
    pg_ctl = [*as_user, str(programs / "pg_ctl"), "-D", str(folder / "data"), "-s", "-w"]
    try:
        subprocess.run(
            [*pg_ctl, "-o", "-U sapnet -A trust", "init"], check=True, stdout=subprocess.DEVNULL
        )
        port = free_port()
        options = f"-p {port} -k {folder} -c listen_addresses=127.0.0.1 -c fsync=off"
        started = [*pg_ctl, "-o", options, "-l", str(folder / "log"), "-t", "240", "start"]
        subprocess.run(started, check=True, timeout=250)
        yield f"postgresql+psycopg://sapnet@127.0.0.1:{port}/postgres"
    finally:
        subprocess.run([*pg_ctl, "-m", "immediate", "stop"], check=False)
        shutil.rmtree(folder, ignore_errors=True)


def _postgres_programs() -> Path | None:
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
    on_path = shutil.which("initdb")
    return found[-1].parent if found else Path(on_path).parent if on_path else None


@pytest.fixture(scope="session")
def redis_server() -> Iterator[str]:
    """A Redis of our own on a free port, that keeps nothing; its URL."""
    if shutil.which("redis-server") is None:
        pytest.skip("no redis-server is installed (apt-get install redis-server)")
    port = free_port()
    command = ["redis-server", "--port", str(port), "--save", "", "--appendonly", "no"]
    with running(command, port):
        yield f"redis://127.0.0.1:{port}/0"


@pytest.fixture(scope="session")
def s3_server() -> Iterator[str]:
    """An S3 server of our own on a free port, in a process of its own; its URL."""
    port = free_port()
    command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)]
    with running(command, port):
        yield f"http://127.0.0.1:{port}"


@pytest.fixture
def bucket(s3_server: str, monkeypatch: pytest.MonkeyPatch) -> str:
    """An empty bucket, `s3://…`; the environment of the test says where it is, as a user's does."""
    for name, value in {
        "AWS_ENDPOINT": s3_server,
        "AWS_ALLOW_HTTP": "true",
        "AWS_ACCESS_KEY_ID": "sapnet",
        "AWS_SECRET_ACCESS_KEY": "sapnet-secret",
        "AWS_REGION": "us-east-1",
    }.items():
        monkeypatch.setenv(name, value)
    name = f"test-{secrets.token_hex(8)}"
    with urllib.request.urlopen(urllib.request.Request(f"{s3_server}/{name}", method="PUT")):
        return f"s3://{name}/blobs"


@pytest.fixture(scope="session")
def postgres_template(postgres_server: str) -> str:
    """The name of a database with the newest schema, to be copied."""
    from app.db import migrate as schema
    from app.db.session import Database

    name = "sapnet_template"
    _psql(postgres_server, f"CREATE DATABASE {name}")
    database = Database(postgres_server.replace("/postgres", f"/{name}"))
    schema.upgrade(database)
    database.dispose()
    return name


@pytest.fixture
def postgres_database(postgres_server: str, postgres_template: str) -> Iterator[str]:
    """The URL of a migrated database of the test's own."""
    name = f"test_{secrets.token_hex(8)}"
    _psql(postgres_server, f"CREATE DATABASE {name} TEMPLATE {postgres_template}")
    yield postgres_server.replace("/postgres", f"/{name}")
    _psql(postgres_server, f"DROP DATABASE {name} WITH (FORCE)")


@pytest.fixture
def redis_database(redis_server: str) -> str:
    """The URL of an empty Redis."""
    from redis import Redis

    with Redis.from_url(redis_server) as client:
        client.flushall()
    return redis_server


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Tests marked `both_stacks` run on SQLite, a folder and no broker, and on real servers."""
    marked = metafunc.definition.get_closest_marker("both_stacks")
    if marked and "stack" in metafunc.fixturenames:
        full = pytest.param("full", marks=pytest.mark.service)
        metafunc.parametrize("stack", ["embedded", full], indirect=True)


@pytest.fixture
def stack(request: pytest.FixtureRequest) -> Stack:
    """What the settings of a test's service name: nothing, or PostgreSQL, Redis and S3."""
    if getattr(request, "param", "embedded") == "embedded":
        return {}
    servers = {"database_url": "postgres_database", "broker_url": "redis_database"}
    return {
        **{name: request.getfixturevalue(fixture) for name, fixture in servers.items()},
        "storage_url": request.getfixturevalue("bucket"),
    }


@pytest.fixture
def remove_deleted() -> Callable[["Settings"], None]:
    """What a worker does beside its jobs: remove what was deleted, and what nothing needs."""

    def remove(settings: "Settings") -> None:
        from app.db.session import Database
        from app.storage.store import make_storage
        from worker.background.remover import Remover

        database = Database(settings.database)
        try:
            Remover(database, make_storage(settings), settings).remove_once()
        finally:
            database.dispose()

    return remove


@pytest.fixture
def stored() -> Callable[[str], set[str]]:
    """Names of the files in a storage, as `Settings.storage` names it."""

    def names(storage: str) -> set[str]:
        if "://" not in storage:
            return {p.name for p in Path(storage).rglob("*") if p.is_file()}
        import obstore
        from obstore.store import from_url

        found = [entry for page in obstore.list(from_url(storage)) for entry in page]
        return {Path(entry["path"]).name for entry in found}

    return names


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


@contextmanager
def running(command: list[str], port: int, seconds: float = 120) -> Iterator[None]:
    """A server that answers on its port; it ends with the block."""
    with tempfile.TemporaryDirectory(prefix="sapnet-server-") as folder:
        log = Path(folder) / "log"
        with log.open("wb") as output:
            process = subprocess.Popen(command, cwd=folder, stdout=output, stderr=output)
        try:
            deadline = time.monotonic() + seconds
            while not _answers(port):
                assert process.poll() is None, log.read_text()
                assert time.monotonic() < deadline, f"{command[0]} does not answer"
                time.sleep(0.05)
            yield
        finally:
            process.kill()
            process.wait()


def _answers(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), timeout=1).close()
    except OSError:
        return False
    return True


def _psql(url: str, statement: str) -> None:
    import psycopg

    with psycopg.connect(url.replace("+psycopg", ""), autocommit=True) as connection:
        connection.execute(statement)  # type: ignore[call-overload]
