"""The same foundation on PostgreSQL: schema, uploads, updates that are not lost."""

import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import text
from starlette.testclient import TestClient

from app.db import migrate as schema
from app.db.models import Dataset
from app.db.session import Database
from app.main import create_app
from app.settings import Settings
from app.storage import garbage_collection as blobs
from app.storage.store import FolderStorage

pytestmark = pytest.mark.service


@pytest.fixture
def database(postgres_server: str) -> Iterator[Database]:
    database = Database(postgres_server)
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
    database: Database,
    postgres_server: str,
    make_settings: Callable[..., Settings],
    kit: Any,
    remove_deleted: Callable[[Settings], None],
) -> None:
    schema.upgrade(database)
    settings = make_settings(database_url=postgres_server)
    with TestClient(create_app(settings)) as client:
        assert client.get("/readyz").status_code == 200
        document = kit.points(2)
        document["annotations"][0]["id"] = 2**62  # ids are 64 bits wide
        answer = kit.upload(client, document, kit.zipped(kit.images()))
        assert answer.status_code == 201, answer.text
        url = answer.headers["location"]
        assert client.get(f"{url}/images/1").content == kit.images()["1.png"]
        assert client.get(url).json() == answer.json()
        assert client.delete(url).status_code == 204
        remove_deleted(settings)
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
