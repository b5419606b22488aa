"""A real service on loopback with a worker beside it, and a line to it that can be cut."""

import json
import select
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import uvicorn
from fastapi import FastAPI
from PIL import Image as PILImage
from sqlalchemy import select as query

from app.db.models import Job, JobState
from app.db.session import Database
from app.main import create_app
from app.predict.model_cache import Runtime
from app.settings import Settings
from sapnet_client import Client
from worker.jobs.execute import execute
from worker.runtime.types import WorkerContext


@pytest.fixture
def server(settings: Settings, database: Database) -> Iterator[str]:
    """The URL of the API; nobody works on its jobs."""
    with serve(create_app(settings)) as url:
        yield url


@contextmanager
def serve(app: FastAPI) -> Iterator[str]:
    """Serve on loopback from a thread; gives the URL."""
    config = uvicorn.Config(
        app, port=0, log_config=None, log_level="error", timeout_graceful_shutdown=3
    )
    running = uvicorn.Server(config)
    app.state.feed.closing = lambda: running.should_exit
    thread = threading.Thread(target=running.run)
    thread.start()
    while not running.started:
        assert thread.is_alive()
        time.sleep(0.01)
    yield f"http://127.0.0.1:{running.servers[0].sockets[0].getsockname()[1]}"
    running.should_exit = True
    thread.join()


@pytest.fixture
def serve_also(settings: Settings) -> Iterator[Callable[[Runtime], str]]:
    """Serves the same data once more, with a runtime of the test's own; gives the URL."""
    with ExitStack() as stack:

        def start(runtime: Runtime) -> str:
            app = create_app(settings)
            app.state.runtime = runtime
            return stack.enter_context(serve(app))

        yield start


@pytest.fixture
def trainer() -> tuple[str, ...]:
    """Arguments of the fake trainer; a module or a test may have its own."""
    return ("--steps", "3")


@pytest.fixture
def worked(
    server: str,
    database: Database,
    new_worker: Callable[..., WorkerContext],
    trainer: tuple[str, ...],
) -> Iterator[str]:
    """The same with a worker beside it."""
    over = threading.Event()
    queued = query(Job.id).where(Job.state == JobState.QUEUED)

    def work() -> None:
        worker = new_worker(*trainer, stopping=over.is_set)
        while not over.wait(0.05):
            with database.read() as session:
                waiting = list(session.scalars(queued))
            for job_id in waiting:
                execute(job_id, worker)

    thread = threading.Thread(target=work)
    thread.start()
    yield server
    over.set()
    thread.join()


@pytest.fixture
def client(worked: str) -> Iterator[Client]:
    with Client(worked, progress=False) as client:
        yield client


@pytest.fixture
def photos(tmp_path: Path) -> tuple[Path, Path]:
    """A folder of three images, one of them deeper, and one that no point names; points.json."""
    folder = tmp_path / "photos"
    (folder / "deep").mkdir(parents=True)
    names = ["a.png", "b.png", "deep/c.png"]
    for number, name in enumerate([*names, "other.png"]):
        PILImage.fromarray(np.full((30, 40, 3), 40 * number, np.uint8)).save(folder / name)
    points: dict[str, Any] = {
        "images": [{"id": i, "file_name": name} for i, name in enumerate(names, 1)],
        "categories": [{"id": 7, "name": "cell"}],
        "annotations": [
            {"id": 10 * i + j, "image_id": i, "category_id": 7, "point": [5.5 + 20 * j, 10.5]}
            for i in (1, 2, 3)
            for j in (0, 1)
        ],
    }
    path = tmp_path / "points.json"
    path.write_text(json.dumps(points))
    return folder, path


class Line:
    """A way to the service that breaks: `cuts` are the bytes, up and down together, after which
    each connection is cut; once they are used up it holds. A context manager; see `url`."""

    def __init__(self, url: str, cuts: list[int]) -> None:
        host, port = url.removeprefix("http://").split(":")
        self._to, self.cuts = (host, int(port)), list(cuts)
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._socket.getsockname()[1]}"
        self._over = threading.Event()
        self._threads = [threading.Thread(target=self._accept)]

    def __enter__(self) -> "Line":
        self._threads[0].start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        for thread in self._threads:
            thread.join()
        self._socket.close()

    def _accept(self) -> None:
        while not self._over.is_set():
            if select.select([self._socket], [], [], 0.05)[0]:
                near, _ = self._socket.accept()
                thread = threading.Thread(target=self._carry, args=(near,))
                self._threads.append(thread)
                thread.start()

    def _carry(self, near: socket.socket) -> None:
        with near, socket.create_connection(self._to) as far, suppress(OSError):
            carried = 0
            while not self._over.is_set():
                for source in select.select([near, far], [], [], 0.05)[0]:
                    data = source.recv(65536)
                    if not data:
                        return
                    (far if source is near else near).sendall(data)
                    carried += len(data)
                if self.cuts and carried >= self.cuts[0]:
                    self.cuts.pop(0)
                    return


@pytest.fixture
def line(server: str) -> Callable[..., Line]:
    return lambda *cuts: Line(server, list(cuts))
