"""A line that breaks, a service that is away or busy: nothing is lost, and nothing done twice."""

import asyncio
import json
import os
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx2
import pytest
from sqlalchemy import func, select

from app.db.models import Job, JobState
from app.db.session import Database
from app.jobs import events
from sapnet_client import (
    AsyncClient,
    BrokenUpload,
    Client,
    Problem,
    SapnetError,
    Segmentation,
    TooManyRequests,
    Unavailable,
    Unreachable,
    transfers,
)
from sapnet_client.types import Mask

Photos = tuple[Path, Path]
MB = 2**20


@pytest.fixture
def big(tmp_path: Path) -> Path:
    path = tmp_path / "big.bin"
    path.write_bytes(os.urandom(6 * MB + 17))
    return path


def stored(url: str, upload_id: str) -> dict[str, Any]:
    document: dict[str, Any] = (
        httpx2.get(f"{url}/uploads/{upload_id}", timeout=60).raise_for_status().json()
    )
    return document


@pytest.mark.slow
def test_an_upload_goes_on_where_it_broke(
    server: str, line: Callable[..., Any], big: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(transfers, "PIECE", 2 * MB)
    told: list[float] = []
    with line(MB, 700_000, 3 * MB) as broken:
        with Client(broken.url, progress=lambda p: told.append(p.done)) as client:
            upload_id = client.upload(big)
        assert broken.cuts == []
    about = stored(server, upload_id)
    assert (about["offset"], about["length"], about["filename"]) == (
        big.stat().st_size,
        big.stat().st_size,
        "big.bin",
    )
    within = [done for done in told if done % (2 * MB) and done < big.stat().st_size]
    assert within, "what came of a piece before the break was kept"
    assert told == sorted(told)


@pytest.mark.slow
def test_an_upload_is_resumed_by_another_client(
    server: str, line: Callable[..., Any], big: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(transfers, "TRIES", 0)
    with (
        line(2 * MB) as broken,
        Client(broken.url, progress=False) as client,
        pytest.raises(BrokenUpload) as caught,
    ):
        client.upload(big)
    monkeypatch.setattr(transfers, "TRIES", 3)
    deadline = time.monotonic() + 60
    while not 0 < stored(server, caught.value.upload_id)["offset"] < big.stat().st_size:
        assert time.monotonic() < deadline
        time.sleep(0.05)
    other = big.with_name("short.bin")
    other.write_bytes(b"x")
    with Client(server, progress=False) as client:
        with pytest.raises(SapnetError, match="another size"):
            client.upload(other, resume=caught.value.upload_id)
        assert client.upload(big, resume=caught.value.upload_id) == caught.value.upload_id
    assert stored(server, caught.value.upload_id)["offset"] == big.stat().st_size


@pytest.mark.slow
def test_a_large_data_set_over_a_bad_line(
    server: str, line: Callable[..., Any], photos: Photos, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its archive goes by tus, since it is larger than what goes by form here."""
    monkeypatch.setattr("sapnet_client.datasets.BY_FORM", 200)
    with line(400, 900) as broken, Client(broken.url, progress=False) as client:
        dataset = client.create_dataset(*photos)
        assert (dataset.images, dataset.status) == (3, "ready")
        assert broken.cuts == []
    with Client(server, progress=False) as client:
        assert [d.id for d in client.datasets()] == [dataset.id]


@pytest.mark.slow
@pytest.mark.parametrize("trainer", [("--steps", "1", "--model-mb", "5")])
@pytest.mark.parametrize("loop", [False, True])
def test_a_download_goes_on_where_it_broke(
    worked: str,
    line: Callable[..., Any],
    photos: Photos,
    tmp_path: Path,
    trainer: Any,
    loop: bool,
) -> None:
    with Client(worked, progress=False) as client:
        job = client.wait(client.train(client.create_dataset(*photos)))
        whole = client.download_checkpoint(job, tmp_path / "whole.pt").read_bytes()
    assert len(whole) > 5_000_000
    told: list[float] = []

    async def by_loop(url: str) -> Path:
        async with AsyncClient(url, progress=lambda p: told.append(p.done)) as client:
            return await client.download_checkpoint(job, tmp_path / "results")

    with line(MB, 2 * MB) as broken:
        if loop:
            path = asyncio.run(by_loop(broken.url))
        else:
            with Client(broken.url, progress=lambda p: told.append(p.done)) as client:
                path = client.download_checkpoint(job, tmp_path / "results")
        assert broken.cuts == []
    assert path.read_bytes() == whole
    assert told == sorted(told), "it never began anew"
    assert [p.name for p in path.parent.iterdir()] == [path.name]


@pytest.mark.slow
@pytest.mark.parametrize("trainer", [("--steps", "1", "--model-mb", "3")])
def test_a_download_that_was_left_is_finished(
    worked: str,
    line: Callable[..., Any],
    photos: Photos,
    tmp_path: Path,
    trainer: Any,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with Client(worked, progress=False) as client:
        job = client.wait(client.train(client.create_dataset(*photos)))
        monkeypatch.setattr(transfers, "TRIES", 0)
        with (
            line(MB) as broken,
            Client(broken.url, progress=False) as cut,
            pytest.raises(Unreachable, match="broke off"),
        ):
            cut.download_checkpoint(job, tmp_path / "model.pt")
        (part,) = tmp_path.glob(".model.pt.*.part")
        had = part.stat().st_size
        assert had > 0
        told: list[float] = []
        with Client(worked, progress=lambda p: told.append(p.done)) as again:
            path = again.download_checkpoint(job, tmp_path / "model.pt")
        assert told[0] == had
        part.write_bytes(b"y" * had)  # of bytes that are not the file's
        with pytest.raises(SapnetError, match="other bytes"):
            client.download_checkpoint(job, tmp_path / "model.pt")
        assert path.read_bytes() == client.download_checkpoint(job, tmp_path / "x.pt").read_bytes()
        assert not part.exists()


@pytest.mark.slow
def test_a_post_whose_answer_was_lost_makes_one_thing(
    server: str, database: Database, photos: Photos
) -> None:
    class LosesAnswers(httpx2.HTTPTransport):
        lost = 0

        def handle_request(self, request: httpx2.Request) -> httpx2.Response:
            answer = super().handle_request(request)
            if request.method == "POST" and LosesAnswers.lost % 2 == 0:
                LosesAnswers.lost += 1
                answer.read()
                answer.close()
                raise httpx2.ReadError("the line broke")
            LosesAnswers.lost += request.method == "POST"
            return answer

    http = httpx2.Client(base_url=server, transport=LosesAnswers(), timeout=60)
    with Client(http=http, progress=False) as client:
        job = client.train(client.create_dataset(*photos))
        assert [j.id for j in client.jobs()] == [job.id]
        assert len(list(client.datasets())) == 1
    with database.read() as session:
        assert session.scalar(select(func.count()).select_from(Job)) == 1


@pytest.mark.service
def test_waiting_over_restarts(
    start: Callable[..., subprocess.Popen[bytes]],
    database: Database,
    dataset_id: str,
    until: Callable[..., None],
    job_row: Callable[[str], Job],
) -> None:
    """The API is killed, is away, and comes back, twice: the events seen are those that there
    are, and waiting goes on."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])

    def api() -> subprocess.Popen[bytes]:
        return start("app.cli", "serve", "--no-worker", "--port", port)

    process = api()
    url = f"http://127.0.0.1:{port}"
    until(lambda: _ready(url), 30)
    with Client(url, progress=False) as client, Client(url, progress=False) as other:
        job = client.train(dataset_id)
        other.job(job)
        seen: list[Any] = []
        ended: list[Any] = []
        reader = threading.Thread(target=lambda: seen.extend(client.events(job)))
        waiter = threading.Thread(target=lambda: ended.append(other.wait(job, check=False)))
        reader.start()
        waiter.start()
        start("worker.main", trainer=("--steps", "9999", "--sleep", "0.05"))
        until(lambda: job_row(job.id).state is JobState.RUNNING, 30)
        for how in (signal.SIGKILL, signal.SIGTERM):
            process.send_signal(how)
            process.wait(60)
            process = api()
            until(lambda: _ready(url), 30)
        with Client(url, progress=False) as third:
            third.cancel(job)
        for thread in (reader, waiter):
            thread.join(90)
            assert not thread.is_alive()
    with database.read() as session:
        truth = [events.document(e) for e in events.after(session, job.id, 0, 10_000)]
    assert [e.id for e in seen] == [e["id"] for e in truth]
    assert [e.type for e in seen] == [e["type"] for e in truth]
    assert ended[0].state == "cancelled"


def _ready(url: str) -> bool:
    try:
        return httpx2.get(f"{url}/readyz").is_success
    except httpx2.TransportError:
        return False


class Scripted:
    """A server that gives the answers that it was told to, in their order; the last for ever."""

    def __init__(self, *answers: tuple[int, dict[str, str], Any]) -> None:
        self.answers = list(answers)
        self.asked: list[str] = []
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def answer(self) -> None:
                self.rfile.read(int(self.headers.get("content-length", 0)))
                outer.asked.append(f"{self.command} {self.headers.get('idempotency-key', '-')}")
                few = len(outer.answers) > 1
                status, headers, body = outer.answers.pop(0) if few else outer.answers[0]
                raw = body.encode() if isinstance(body, str) else json.dumps(body).encode()
                self.send_response(status)
                for name, value in {**headers, "Content-Length": str(len(raw))}.items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(raw)

            do_GET = do_POST = do_PATCH = answer

            def log_message(self, *_: Any) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,))

    def __enter__(self) -> "Scripted":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


JOB = (200, {}, {"id": "j", "state": "queued"})
BUSY = (503, {"Retry-After": "0"}, {"type": "/problems/unavailable", "detail": "Not now."})
OFTEN = (429, {"Retry-After": "0"}, {"type": "/problems/too-many-requests", "detail": "Slower."})
FULL = (429, {}, {"type": "/problems/quota-exceeded", "detail": "No more than 3 data sets."})


@pytest.mark.slow
def test_busy_and_too_often_are_tried_again() -> None:
    with Scripted(BUSY, OFTEN, BUSY, JOB) as busy, Client(busy.url, progress=False) as client:
        assert client.job("j").state == "queued"
        assert len(busy.asked) == 4
    with Scripted(OFTEN, BUSY, JOB) as busy, Client(busy.url, progress=False) as client:
        client.train("d")
        keys = {asked.split()[1] for asked in busy.asked}
        assert (len(busy.asked), len(keys)) == (3, 1)
        assert keys != {"-"}


def test_what_must_not_be_sent_twice_is_not() -> None:
    empty = Segmentation(size=[1, 1], counts="1")
    mask = Mask(
        id=1, image_id=1, category_id=1, segmentation=empty, bbox=[], area=0, quality=0, source=""
    )
    with Scripted(BUSY) as busy, Client(busy.url, progress=False) as client:
        with pytest.raises(Unavailable, match=r"Not now\."):
            client.accept(mask)
        assert len(busy.asked) == 1


def test_a_quota_is_no_matter_of_patience() -> None:
    with Scripted(FULL) as full, Client(full.url, progress=False) as client:
        with pytest.raises(TooManyRequests, match="No more than 3") as caught:
            client.job("j")
        assert caught.value.slug == "quota-exceeded"
        assert len(full.asked) == 1


def test_longer_than_patience_is_not_waited_for() -> None:
    later = (429, {"Retry-After": "50"}, {"detail": "Ask again in 50 s."})
    with Scripted(later) as often, Client(often.url, progress=False, patience=5) as client:
        began = time.monotonic()
        with pytest.raises(TooManyRequests, match="in 50 s") as caught:
            client.job("j")
        assert caught.value.retry_after == 50
        assert time.monotonic() - began < 40


@pytest.mark.slow
def test_what_is_no_service(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sapnet_client.calls.LONGEST_PAUSE", 0.05)
    page = (502, {"Content-Type": "text/html"}, "<h1>Bad gateway</h1>")
    with Scripted(page) as proxy, Client(proxy.url, progress=False, patience=2) as client:
        with pytest.raises(Problem, match="502 Bad Gateway"):
            client.job("j")
        assert len(proxy.asked) >= 2
    with (
        Scripted((200, {}, "<h1>Welcome</h1>")) as other,
        Client(other.url, progress=False) as client,
        pytest.raises(SapnetError, match="no Job that this client knows"),
    ):
        client.job("j")


@pytest.mark.slow
def test_nobody_there() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{free.getsockname()[1]}"
    began = time.monotonic()
    with Client(url, progress=False) as client, pytest.raises(Unreachable, match="serve"):
        client.job("j")
    assert time.monotonic() - began < 40, "it is not waited for what was never there"
    with Client("nowhere:8000", progress=False) as client, pytest.raises(SapnetError):
        client.job("j")
