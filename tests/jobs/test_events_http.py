"""GET /jobs/{id}/events: server-sent events that are resumed, kept alive and ended; pages."""

import json
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import httpx2
import pytest
import uvicorn
from fastapi import FastAPI
from fastapi.testclient import TestClient
from sqlalchemy import delete

from app.db.models import Dataset, EventType, Job, JobState
from app.db.session import Database
from app.jobs import event_stream as feed
from app.jobs import events
from app.main import create_app
from app.settings import Settings

NewJob = Callable[..., str]
SSE = {"accept": "text/event-stream"}
JSON = {"accept": "application/json"}


def parse(text: str) -> list[dict[str, str]]:
    """The blocks of an event stream that have data, by the letter of the specification."""
    blocks = (b for b in text.split("\n\n") if any(li.startswith("data: ") for li in b.split("\n")))
    return [dict(line.split(": ", 1) for line in block.split("\n")) for block in blocks]


@pytest.mark.slow
def test_the_stream_of_a_job_that_is_over(client: TestClient, done: str) -> None:
    answer = client.get(f"/jobs/{done}/events")
    assert answer.status_code == 200
    assert answer.headers["content-type"].startswith("text/event-stream")
    assert answer.headers["cache-control"] == "no-cache"
    assert answer.headers["x-accel-buffering"] == "no"
    assert answer.text.startswith("retry: 1000\n\n")
    found = parse(answer.text)
    page = client.get(f"/jobs/{done}/events", headers=JSON).json()
    assert page["next"] is None
    assert [json.loads(event["data"]) for event in found] == page["events"]
    assert [(int(e["id"]), e["event"]) for e in found] == [
        (e["id"], e["type"]) for e in page["events"]
    ]
    assert [e["id"] for e in page["events"]] == list(range(1, len(found) + 1))
    assert found[-1]["event"] == "end"
    assert set(page["events"][0]) == {"id", "type", "timestamp", "job_id", "attempt", "data"}


@pytest.mark.slow
def test_resumed_by_last_event_id(client: TestClient, done: str) -> None:
    whole = parse(client.get(f"/jobs/{done}/events").text)
    for seen in range(len(whole)):
        headers = {"Last-Event-ID": str(seen)}
        assert parse(client.get(f"/jobs/{done}/events", headers=headers).text) == whole[seen:]
    for seen in (len(whole), len(whole) + 7):  # a browser does not come again after a 204
        answer = client.get(f"/jobs/{done}/events", headers={"Last-Event-ID": str(seen)})
        assert (answer.status_code, answer.content) == (204, b"")


@pytest.mark.slow
def test_pages(client: TestClient, done: str) -> None:
    whole = client.get(f"/jobs/{done}/events", headers=JSON).json()["events"]
    url: str | None = f"/jobs/{done}/events?limit=2"
    found: list[dict[str, Any]] = []
    while url:
        answer = client.get(url, headers=JSON)
        assert len(answer.json()["events"]) <= 2
        found += answer.json()["events"]
        url = answer.links["next"]["url"] if "next" in answer.links else None
        assert (answer.json()["next"] is None) == (url is None)
    assert found == whole
    later = client.get(f"/jobs/{done}/events", headers={**JSON, "Last-Event-ID": "3"})
    assert later.json()["events"] == whole[3:]
    assert client.get(f"/jobs/{done}/events", headers={**JSON, "Last-Event-ID": "999"}).json() == {
        "events": [],
        "next": None,
    }


@pytest.mark.slow
@pytest.mark.parametrize("bad", ["x", "-1", "1.5", "99999999999999999999"])
def test_an_id_that_is_none(client: TestClient, done: str, bad: str) -> None:
    answer = client.get(f"/jobs/{done}/events", headers={"Last-Event-ID": bad})
    assert answer.status_code == 422
    assert answer.json()["errors"][0]["part"] == "header"


@pytest.mark.slow
def test_refused(client: TestClient, done: str) -> None:
    assert client.get("/jobs/nobody/events").status_code == 404
    assert client.get("/jobs/nobody/events", headers=JSON).status_code == 404
    assert client.get(f"/jobs/{done}/events", headers={"accept": "image/png"}).status_code == 406
    assert client.get(f"/jobs/{done}/events?cursor=x", headers=JSON).status_code == 422
    head = client.head(f"/jobs/{done}/events")
    assert (head.status_code, head.content) == (200, b"")


@pytest.mark.slow
def test_a_job_from_before_there_were_events(client: TestClient, new_job: NewJob) -> None:
    job_id = new_job(state=JobState.SUCCEEDED)
    assert client.get(f"/jobs/{job_id}/events").status_code == 204
    assert client.get(f"/jobs/{job_id}/events", headers=JSON).json()["events"] == []


@pytest.fixture
def app(settings: Settings, database: Database) -> FastAPI:
    return create_app(settings)


@pytest.fixture
def server(app: FastAPI) -> Iterator[str]:
    """A real server on loopback; a client in the test's own process would buffer the stream."""
    config = uvicorn.Config(
        app, port=0, log_config=None, log_level="error", timeout_graceful_shutdown=3
    )
    uvicorn_server = uvicorn.Server(config)
    app.state.feed.closing = lambda: uvicorn_server.should_exit
    thread = threading.Thread(target=uvicorn_server.run)
    thread.start()
    while not uvicorn_server.started:
        assert thread.is_alive()
        time.sleep(0.01)
    port = uvicorn_server.servers[0].sockets[0].getsockname()[1]
    yield f"http://127.0.0.1:{port}"
    uvicorn_server.should_exit = True
    thread.join()


class Reader(threading.Thread):
    """Follows a job; what it was sent so far is `text`."""

    def __init__(self, url: str) -> None:
        super().__init__()
        self.text, self._url = "", url
        self.start()

    def run(self) -> None:
        with httpx2.stream("GET", self._url, headers=SSE, timeout=60) as answer:
            for part in answer.iter_text():
                self.text += part

    def types(self) -> list[str]:
        return [event["event"] for event in parse(self.text + "\n\n")]


def tell(database: Database, job_id: str, *types: EventType) -> None:
    with database.begin() as session:
        events.append(session, job_id, [(type_, {}) for type_ in types])


@pytest.mark.slow
def test_followed_live_without_a_session(
    server: str,
    app: FastAPI,
    new_job: NewJob,
    database: Database,
    until: Callable[..., None],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(feed, "KEEPALIVE_SECONDS", 0.5)
    job_id = new_job()
    tell(database, job_id, EventType.CREATED)
    readers = [Reader(f"{server}/jobs/{job_id}/events") for _ in range(5)]
    until(lambda: all(r.types() == ["created"] for r in readers))
    until(lambda: all(r.text.endswith(": ping\n\n" * 2) for r in readers))
    # a reader that waits holds none; a tick, or the look after a ping, takes one for a moment
    until(lambda: app.state.database.engine.pool.checkedout() == 0)
    tell(database, job_id, EventType.WARNING, EventType.WARNING)
    until(lambda: all(len(r.types()) == 3 for r in readers))
    with database.begin() as session:
        session.get_one(Job, job_id).state = JobState.CANCELLED
        session.flush()
        events.append_state(session, job_id)
    for reader in readers:
        reader.join(60)
        assert not reader.is_alive(), "the server closes after the end"
        assert reader.types() == ["created", "warning", "warning", "end"]


@pytest.mark.slow
def test_a_stream_does_not_last_for_ever(
    server: str, app: FastAPI, new_job: NewJob, database: Database
) -> None:
    app.state.feed.stream_seconds = 0.3
    job_id = new_job()
    tell(database, job_id, EventType.CREATED)
    reader = Reader(f"{server}/jobs/{job_id}/events")
    reader.join(60)
    assert not reader.is_alive()
    assert reader.types() == ["created"]


@pytest.mark.slow
def test_a_job_that_is_deleted_ends_its_streams(
    server: str, new_job: NewJob, database: Database, until: Callable[..., None]
) -> None:
    job_id = new_job()
    tell(database, job_id, EventType.CREATED)
    reader = Reader(f"{server}/jobs/{job_id}/events")
    until(lambda: reader.types() == ["created"])
    with database.begin() as session:
        session.execute(delete(Dataset))
    reader.join(60)
    assert not reader.is_alive()


@pytest.mark.slow
def test_a_reader_who_leaves_is_forgotten(
    server: str, app: FastAPI, new_job: NewJob, database: Database, until: Callable[..., None]
) -> None:
    job_id = new_job()
    with httpx2.stream("GET", f"{server}/jobs/{job_id}/events", headers=SSE, timeout=60) as answer:
        parts = answer.iter_text()
        assert next(parts).startswith("retry")
        until(lambda: app.state.feed._waiting)
    until(lambda: not app.state.feed._waiting)


@pytest.mark.slow
def test_a_server_that_stops_sends_its_readers_away(
    app: FastAPI, new_job: NewJob, database: Database, until: Callable[..., None]
) -> None:
    job_id = new_job()
    config = uvicorn.Config(
        app, port=0, log_config=None, log_level="error", timeout_graceful_shutdown=60
    )
    server = uvicorn.Server(config)
    app.state.feed.closing = lambda: server.should_exit
    thread = threading.Thread(target=server.run)
    thread.start()
    until(lambda: server.started)
    port = server.servers[0].sockets[0].getsockname()[1]
    reader = Reader(f"http://127.0.0.1:{port}/jobs/{job_id}/events")
    until(lambda: reader.text)
    server.should_exit = True
    thread.join(40)
    assert not thread.is_alive(), "it waits for its reader"
    reader.join(40)
    assert not reader.is_alive()
