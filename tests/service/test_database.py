"""Sessions: no update is lost, readers do not wait, and an answer follows its commit."""

import threading
from datetime import UTC, datetime, timedelta, timezone

import pytest
from fastapi import FastAPI
from sqlalchemy import Connection, event, select
from sqlalchemy.exc import IntegrityError, StatementError
from starlette.testclient import TestClient

from app.db.columns import new_id
from app.db.models import Dataset, DatasetStatus, Image, Job, JobKind
from app.db.session import Database, SessionDep
from app.jobs import queue


def dataset(**values: object) -> Dataset:
    fields: dict[str, object] = {
        "name": "n",
        "status": DatasetStatus.READY,
        "images": 0,
        "annotations": 0,
        "report": {},
        "document_sha": "0" * 64,
    }
    return Dataset(**(fields | values))


@pytest.fixture
def database(app: FastAPI) -> Database:
    database: Database = app.state.database
    return database


@pytest.mark.slow
def test_concurrent_updates_are_not_lost(database: Database) -> None:
    with database.begin() as session:
        session.add(counter := dataset())

    def count() -> None:
        for _ in range(25):
            with database.begin() as session:
                session.get_one(Dataset, counter.id).images += 1

    threads = [threading.Thread(target=count) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    with database.read() as session:
        assert session.get_one(Dataset, counter.id).images == 100


def test_a_reader_does_not_wait_for_a_writer(database: Database) -> None:
    with database.begin() as writing:
        writing.add(dataset())
        writing.flush()
        with database.read() as reading:
            assert reading.scalars(select(Dataset)).all() == []
    with database.read() as reading:
        assert len(reading.scalars(select(Dataset)).all()) == 1


def test_foreign_keys_hold(database: Database) -> None:
    row = Image(
        dataset_id="nobody",
        image_id=1,
        file_name="a",
        width=1,
        height=1,
        annotations=0,
        sha256="0" * 64,
    )
    with pytest.raises(IntegrityError), database.begin() as session:
        session.add(row)


def test_moments_are_aware_and_utc(database: Database) -> None:
    there = datetime(2030, 1, 1, 12, tzinfo=timezone(timedelta(hours=2)))
    with database.begin() as session:
        session.add(row := dataset(created_at=there))
    with database.read() as session:
        found = session.get_one(Dataset, row.id).created_at
        assert (found, found.tzinfo) == (there, UTC)
        later = select(Dataset.id).where(Dataset.created_at > there - timedelta(seconds=1))
        assert session.scalars(later).all() == [row.id]
    with pytest.raises(StatementError, match="naive"), database.begin() as session:
        session.add(dataset(created_at=datetime(2030, 1, 1)))


def test_ids_sort_by_time(monkeypatch: pytest.MonkeyPatch) -> None:
    ids = []
    for milliseconds in (1, 10**12, 10**13):
        monkeypatch.setattr("time.time_ns", lambda ns=milliseconds * 10**6: ns)
        ids += [new_id(), new_id()]
    assert len(set(ids)) == 6
    assert [i[:12] for i in sorted(ids)] == [i[:12] for i in ids]
    assert all(len(i) == 32 for i in ids)


@pytest.mark.slow
def test_no_201_for_a_commit_that_failed(app: FastAPI, client: TestClient) -> None:
    @app.post("/test", status_code=201)
    def create(session: SessionDep) -> str:
        session.add(dataset())
        return "done"

    @event.listens_for(app.state.database.engine, "commit")
    def fail(_connection: Connection) -> None:
        raise OSError("the disk is full")

    assert client.post("/test").status_code == 500


class TestQueue:
    @pytest.fixture
    def sent(self, monkeypatch: pytest.MonkeyPatch) -> list[str]:
        sent: list[str] = []

        class Celery:
            def send_task(self, name: str, args: list[str], **options: object) -> None:
                assert (name, options["queue"]) == ("sapnet.execute", "train")
                sent.extend(args)

        monkeypatch.setattr(queue, "_celery", lambda url: Celery())
        return sent

    def test_sent_after_the_commit(self, database: Database, sent: list[str]) -> None:
        with database.begin() as session:
            session.add(parent := dataset())
            session.flush()
            session.add(
                job := Job(dataset_id=parent.id, method="m", preset="p", seed=0, request={})
            )
            session.flush()
            queue.enqueue(session, job, "redis://nowhere")
            assert sent == []
        assert sent == [job.id]

    def test_not_sent_after_a_rollback(self, database: Database, sent: list[str]) -> None:
        def create() -> None:
            with database.begin() as session:
                queue.enqueue(session, Job(id="a", kind=JobKind.TRAIN), "redis://nowhere")
                session.add(Job(dataset_id="nobody", method="m", preset="p", seed=0, request={}))

        with pytest.raises(IntegrityError):
            create()
        with database.begin() as session:
            session.add(dataset())
        assert sent == []

    def test_embedded_sends_nothing(self, database: Database, sent: list[str]) -> None:
        with database.begin() as session:
            session.add(dataset())
            queue.enqueue(session, Job(id="a", kind=JobKind.TRAIN), None)
        assert sent == []

    @pytest.mark.slow
    def test_a_broker_that_is_down_loses_nothing(self, database: Database) -> None:
        with database.begin() as session:
            session.add(row := dataset())
            queue.enqueue(session, Job(id="a", kind=JobKind.TRAIN), "redis://127.0.0.1:1/0")
        with database.read() as session:
            assert session.get(Dataset, row.id) is not None
        assert queue.send("a", "redis://127.0.0.1:1/0") is False
