"""Webhooks are delivered: the same events, in order, again until they are taken, to no private
address."""

import json
import socket
import threading
import time
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from fastapi.testclient import TestClient
from sqlalchemy import select, update

from app.db.columns import now
from app.db.models import EventType, Webhook
from app.db.session import Database
from app.jobs import events
from app.main import create_app
from app.settings import Settings
from app.webhooks import service
from worker.background.webhook_sender import WebhookSender
from worker.jobs.execute import execute
from worker.runtime.types import WorkerContext

pytestmark = pytest.mark.both_stacks

NewJob = Callable[..., str]
NewWorker = Callable[..., WorkerContext]
Until = Callable[..., None]
Receiver = Any  # of conftest.py, as are the fixtures below
StartSender = Callable[[Settings], WebhookSender]
Hooked = Callable[..., str]
Row = Callable[[str], Webhook]
Verify = Callable[[str, dict[str, str], bytes], None]


@pytest.mark.slow
def test_from_the_request_to_the_receiver(
    allowing: Settings,
    database: Database,
    dataset_id: str,
    new_worker: NewWorker,
    receiver: Receiver,
    sender: StartSender,
    until: Until,
    secret: str,
    verify: Verify,
) -> None:
    with TestClient(create_app(allowing)) as client:
        hook = {"url": receiver.url, "secret": secret}
        answer = client.post("/jobs/train", json={"dataset_id": dataset_id, "webhook": hook})
        assert secret not in answer.text
        job_id = answer.raise_for_status().json()["id"]
        sender(allowing)
        execute(job_id, new_worker())
        until(lambda: "end" in receiver.types)
        page = client.get(f"/jobs/{job_id}/events", headers={"accept": "application/json"})
        assert [json.loads(body) for _, body in receiver.got] == page.json()["events"]
        for headers, body in receiver.got:
            verify(secret, headers, body)
            assert headers["content-type"] == "application/json"
        assert len({headers["webhook-id"] for headers, _ in receiver.got}) == len(receiver.got)

        def status() -> dict[str, Any]:
            found = client.get(f"/jobs/{job_id}/webhooks").json()["webhooks"]
            assert secret not in str(found)
            return dict(found[0])

        until(lambda: status()["delivery"] == "delivered")
        assert status() == {
            "url": receiver.url,
            "events": None,
            "delivery": "delivered",
            "sent": receiver.ids[-1],
            "tries": 0,
            "next_try_at": None,
            "error": None,
        }
        assert client.get("/jobs/nobody/webhooks").status_code == 404
    with database.read() as session:
        assert session.scalars(select(Webhook.secret)).all() == [None], "forgotten at the end"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("wanted", "got"),
    [(["end"], ["end"]), (["warning"], ["warning"] * 2), (["created", "end"], ["created", "end"])],
)
def test_only_what_is_wanted(
    wanted: list[str],
    got: list[str],
    allowing: Settings,
    hooked: Hooked,
    row: Row,
    receiver: Receiver,
    sender: StartSender,
    until: Until,
) -> None:
    job_id = hooked(receiver.url, wanted=wanted)
    sender(allowing)
    until(lambda: row(job_id).due_at is None)
    assert (receiver.types, row(job_id).sent) == (got, 4)


@pytest.mark.slow
def test_passed_over_events_do_not_come_later(
    allowing: Settings,
    hooked: Hooked,
    row: Row,
    receiver: Receiver,
    sender: StartSender,
    until: Until,
    database: Database,
) -> None:
    job_id = hooked(receiver.url, over=False, wanted=["error"])
    sender(allowing)
    until(lambda: row(job_id).sent == 3)
    with database.begin() as session:
        events.append(session, job_id, [(EventType.ERROR, {}), (EventType.END, {})])
    until(lambda: row(job_id).due_at is None)
    assert receiver.types == ["error"]


@pytest.mark.slow
def test_tried_again_in_order(
    allowing: Settings,
    hooked: Hooked,
    row: Row,
    receiver: Receiver,
    sender: StartSender,
    until: Until,
    secret: str,
    verify: Verify,
) -> None:
    receiver.answers = [500, 302, 204, 503, None, 404]
    job_id = hooked(receiver.url)
    sender(allowing)
    until(lambda: row(job_id).due_at is None)
    assert receiver.ids == [1, 1, 1, 2, 2, 2, 2, 3, 4]
    named: dict[int, set[str]] = {}
    for (headers, body), number in zip(receiver.got, receiver.ids, strict=True):
        verify(secret, headers, body)
        named.setdefault(number, set()).add(headers["webhook-id"])
    assert all(len(names) == 1 for names in named.values()), "a try has the id of the first one"
    assert (row(job_id).error, row(job_id).tries) == (None, 0)


@pytest.mark.slow
@pytest.mark.parametrize(("answers", "tries"), [([500] * 9, 4), ([410], 1)])
def test_given_up(
    answers: list[int | None],
    tries: int,
    allowing: Settings,
    hooked: Hooked,
    row: Row,
    receiver: Receiver,
    sender: StartSender,
    until: Until,
    client: TestClient,
    secret: str,
) -> None:
    receiver.answers = list(answers)
    job_id = hooked(receiver.url)
    sender(allowing)
    until(lambda: row(job_id).due_at is None)
    time.sleep(0.2)
    assert receiver.ids == [1] * tries
    (status,) = client.get(f"/jobs/{job_id}/webhooks").json()["webhooks"]
    assert (status["delivery"], status["tries"], status["sent"]) == ("given_up", tries, 0)
    assert str(answers[0]) in status["error"]
    assert row(job_id).secret is None


@pytest.mark.slow
def test_a_name_that_leads_home_is_never_called(
    settings: Settings,
    hooked: Hooked,
    row: Row,
    receiver: Receiver,
    sender: StartSender,
    until: Until,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    real = socket.getaddrinfo

    def fake(host: Any, *args: Any, **options: Any) -> Any:
        return real("127.0.0.1" if host == "hooks.example.org" else host, *args, **options)

    monkeypatch.setattr(socket, "getaddrinfo", fake)
    port = receiver.url.rpartition(":")[2]
    job_id = hooked(f"http://hooks.example.org:{port}")
    sender(settings)
    until(lambda: row(job_id).tries >= 1)
    assert "not public" in str(row(job_id).error)
    assert receiver.got == []


@pytest.mark.slow
def test_two_senders_deliver_each_event_once(
    allowing: Settings,
    hooked: Hooked,
    row: Row,
    receiver: Receiver,
    sender: StartSender,
    until: Until,
) -> None:
    jobs = [hooked(receiver.url, warnings=5) for _ in range(4)]
    for _ in range(3):
        sender(allowing)
    until(lambda: all(row(job_id).due_at is None for job_id in jobs))
    got = [(json.loads(body)["job_id"], json.loads(body)["id"]) for _, body in receiver.got]
    for job_id in jobs:
        assert [number for job, number in got if job == job_id] == list(range(1, 8))


@pytest.mark.slow
def test_a_sender_that_died_is_followed_by_another(
    allowing: Settings,
    hooked: Hooked,
    row: Row,
    receiver: Receiver,
    sender: StartSender,
    until: Until,
    database: Database,
) -> None:
    job_id = hooked(receiver.url)
    with database.begin() as session:
        (seen,) = service.due(session, 9)
        dead = service.take(session, seen, allowing)
    assert dead is not None
    with database.begin() as session:
        assert service.due(session, 9) == [], "it is in somebody's hands"
        assert service.take(session, seen, allowing) is None
        session.execute(update(Webhook).values(due_at=now() - timedelta(seconds=1)))
    sender(allowing)
    until(lambda: row(job_id).due_at is None)
    assert receiver.ids == [1, 2, 3, 4]
    with database.begin() as session:  # the dead one comes back, and changes nothing
        assert service.following(session, dead) is None
        service.failed(session, dead, allowing, "late", gone=False)
        service.release(session, dead, 0)
    assert (row(job_id).sent, row(job_id).error, row(job_id).due_at) == (4, None, None)


@pytest.mark.slow
def test_a_slow_endpoint_keeps_up_no_other(
    allowing: Settings,
    hooked: Hooked,
    row: Row,
    receiver: Receiver,
    sender: StartSender,
    until: Until,
) -> None:
    slow, others_are_done = type(receiver)(), threading.Event()
    slow.pause = others_are_done.wait
    try:
        slow_job, job_id = hooked(slow.url, warnings=0), hooked(receiver.url)
        sender(allowing)
        until(lambda: row(job_id).due_at is None)
        assert row(slow_job).sent == 0
        others_are_done.set()
        until(lambda: row(slow_job).due_at is None)
    finally:
        slow.close()


@pytest.mark.slow
def test_the_webhook_of_the_settings(
    allowing: Settings,
    database: Database,
    new_job: NewJob,
    receiver: Receiver,
    sender: StartSender,
    until: Until,
    row: Row,
    secret: str,
    verify: Verify,
) -> None:
    settings = allowing.model_copy(update={"webhook_url": receiver.url, "webhook_secret": secret})
    job_id, other = new_job(), new_job()
    with database.begin() as session:
        for each in (job_id, other):
            service.register(session, settings, each, None)
            events.append(session, each, [(EventType.END, {})])
        session.execute(update(Webhook).where(Webhook.job_id == other).values(due_at=None))
    first = sender(settings)
    until(lambda: row(job_id).due_at is None)
    first.stop()
    first.join()
    ((headers, body),) = receiver.got
    verify(secret, headers, body)
    with database.begin() as session:
        session.execute(update(Webhook).where(Webhook.job_id == other).values(due_at=now()))
    without = WebhookSender(database, allowing)
    without.run_once()
    until(lambda: row(other).error)
    assert "no webhook any more" in str(row(other).error)
    assert len(receiver.got) == 1
