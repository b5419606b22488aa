"""A receiver of webhooks on loopback, senders, and jobs that have a webhook."""

import base64
import hashlib
import hmac
import json
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
from sqlalchemy import select, update

from app.db.models import EventType, Job, JobState, Webhook
from app.db.session import Database
from app.jobs import events
from app.settings import Settings
from app.webhooks import service
from app.webhooks.schemas import WebhookIn
from worker.background.webhook_sender import WebhookSender

NewJob = Callable[..., str]


@pytest.fixture
def secret() -> str:
    return "whsec_" + base64.b64encode(bytes(range(32))).decode()


@pytest.fixture
def allowing(settings: Settings) -> Settings:
    """The receiver is on loopback."""
    changes = {
        "webhook_private_addresses": True,
        "webhook_retry_seconds": 0.05,
        "webhook_timeout_seconds": 600,  # a late answer would be one try more
        "webhook_max_tries": 4,
        "poll_seconds": 0.02,
    }
    return settings.model_copy(update=changes)


class Receiver:
    """An endpoint on loopback. `answers` are given in turn, then 204; None is no answer at all.
    `pause` is called before each."""

    def __init__(self, port: int = 0) -> None:
        self.got: list[tuple[dict[str, str], bytes]] = []
        self.answers: list[int | None] = []
        self.pause: Callable[[], Any] = lambda: None
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["content-length"]))
                headers = {name.lower(): value for name, value in self.headers.items()}
                outer.got.append((headers, body))
                answer = outer.answers.pop(0) if outer.answers else 204
                outer.pause()
                if answer is not None:
                    self.send_response(answer)
                    self.send_header("Location", outer.url + "/elsewhere")
                    self.send_header("Content-Length", "0")
                    self.end_headers()

            def log_message(self, *_: Any) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", port), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}/hook"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,))
        self._thread.start()

    @property
    def ids(self) -> list[int]:
        return [json.loads(body)["id"] for _, body in self.got]

    @property
    def types(self) -> list[str]:
        return [json.loads(body)["type"] for _, body in self.got]

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    receiver = Receiver()
    yield receiver
    receiver.close()


@pytest.fixture
def sender(database: Database) -> Iterator[Callable[[Settings], WebhookSender]]:
    """Starts senders, which end with the test."""
    started: list[WebhookSender] = []

    def start(settings: Settings) -> WebhookSender:
        started.append(WebhookSender(database, settings))
        started[-1].start()
        return started[-1]

    yield start
    for each in started:
        each.stop()
        each.join()


@pytest.fixture
def hooked(
    database: Database, new_job: NewJob, settings: Settings, secret: str
) -> Callable[..., str]:
    """A job with a webhook and some events: created, warning …, then the end."""

    def new(
        url: str | None, *, warnings: int = 2, over: bool = True, wanted: list[str] | None = None
    ) -> str:
        job_id = new_job()
        with database.begin() as session:
            hook = WebhookIn.model_construct(url=url, secret=secret, events=wanted)
            service.register(session, settings, job_id, hook)
            events.created(session, session.get_one(Job, job_id))
            told = [(EventType.WARNING, {"message": str(i)}) for i in range(warnings)]
            events.append(session, job_id, told)
            if over:
                session.execute(
                    update(Job).where(Job.id == job_id).values(state=JobState.SUCCEEDED)
                )
                events.append_state(session, job_id)
        return job_id

    return new


@pytest.fixture
def row(database: Database) -> Callable[[str], Webhook]:
    def read(job_id: str) -> Webhook:
        with database.read() as session:
            return session.scalars(select(Webhook).where(Webhook.job_id == job_id)).one()

    return read


@pytest.fixture
def verify() -> Callable[..., None]:
    def check(secret: str, headers: dict[str, str], body: bytes) -> None:
        """As a receiver does it, from the convention's text."""
        key = base64.b64decode(secret.removeprefix("whsec_"))
        content = f"{headers['webhook-id']}.{headers['webhook-timestamp']}.{body.decode()}"
        expected = base64.b64encode(
            hmac.new(key, content.encode(), hashlib.sha256).digest()
        ).decode()
        version, _, signature = headers["webhook-signature"].partition(",")
        assert version == "v1"
        assert hmac.compare_digest(signature, expected)
        assert abs(time.time() - int(headers["webhook-timestamp"])) < 60

    return check
