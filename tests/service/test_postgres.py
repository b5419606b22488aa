"""The same foundation on PostgreSQL: schema, uploads, updates that are not lost."""

import os
import shutil
import socket
import subprocess
import tempfile
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import text
from starlette.testclient import TestClient

from app import blobs, schema
from app.db import Database
from app.main import create_app
from app.models import Dataset
from app.settings import Settings
from app.storage import FolderStorage

pytestmark = [pytest.mark.service, pytest.mark.xdist_group("postgres")]


def binaries() -> Path | None:
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
    on_path = shutil.which("initdb")
    return found[-1].parent if found else Path(on_path).parent if on_path else None


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    """A server of its own on a free port; the URL of its empty database."""
    bin_folder = binaries()
    if bin_folder is None:
        pytest.skip("PostgreSQL's programs are not installed (apt-get install postgresql)")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    folder = Path(tempfile.mkdtemp(prefix="sapnet-pg-"))
    # As root it must be somebody else: PostgreSQL refuses to run as root.
    as_user = ["runuser", "-u", "postgres", "--"] if os.geteuid() == 0 else []
    if as_user:
        shutil.chown(folder, "postgres")
    pg_ctl = [*as_user, str(bin_folder / "pg_ctl"), "-D", str(folder / "data"), "-s", "-w"]
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


@pytest.fixture
def database(server: str) -> Iterator[Database]:
    database = Database(server)
    with database.engine.begin() as connection:
        connection.execute(text("DROP SCHEMA public CASCADE; CREATE SCHEMA public"))
    yield database
    database.dispose()


def at_once(work: Callable[[], None], threads: int = 4) -> list[BaseException]:
    failures: list[BaseException] = []

    def guarded() -> None:
        try:
            work()
        except BaseException as error:
            failures.append(error)

    running = [threading.Thread(target=guarded) for _ in range(threads)]
    for thread in running:
        thread.start()
    for thread in running:
        thread.join()
    return failures


def test_schema_there_and_back(database: Database) -> None:
    assert at_once(lambda: schema.upgrade(database), 3) == []
    assert schema.current(database) == schema.head()
    schema.check(database)
    schema.downgrade(database, "base")
    schema.upgrade(database)


def test_uploads(
    database: Database, server: str, make_settings: Callable[..., Settings], kit: Any
) -> None:
    schema.upgrade(database)
    settings = make_settings(database_url=server)
    with TestClient(create_app(settings)) as client:
        assert client.get("/readyz").status_code == 200
        document = kit.points(2)
        document["annotations"][0]["id"] = 2**62  # ids are 64 bits wide
        answer = kit.upload(client, document, kit.zipped(kit.pictures()))
        assert answer.status_code == 201, answer.text
        url = answer.headers["location"]
        assert client.get(f"{url}/images/1").content == kit.pictures()["1.png"]
        assert client.get(url).json() == answer.json()
        assert client.delete(url).status_code == 204
        assert not [p for p in Path(settings.storage).rglob("*") if p.is_file()]


def test_pins_take_turns(database: Database, tmp_path: Path) -> None:
    schema.upgrade(database)
    storage = FolderStorage(tmp_path / "blobs")
    sha = storage.put_bytes(b"x")

    def work() -> None:
        for _ in range(5):
            with blobs.pinned(database, storage, [sha]):
                storage.put_bytes(b"x")
                with database.begin() as session:
                    dataset = Dataset(
                        name="n",
                        status="ready",
                        images=0,
                        annotations=0,
                        report={},
                        document_sha=sha,
                    )
                    session.add(dataset)
            assert storage.exists(sha)
            with database.begin() as session:
                session.delete(session.get_one(Dataset, dataset.id))
            blobs.forget(database, storage, [sha])

    assert at_once(work) == []
    assert not storage.exists(sha)
