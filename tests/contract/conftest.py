"""A real service on a free port, with something of every kind in it: what the contract is held to.

The models it predicts with are stand-ins (a trained one would only be slower); all the rest is
what a user gets.
"""

import io
import json
import os
import shutil
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx2
import pytest
import uvicorn
from fastapi import FastAPI
from PIL import Image

from app.auth import keys
from app.db import migrate as schema
from app.db.session import Database
from app.main import create_app
from app.predict.model_cache import Runtime
from app.settings import Settings
from app.storage.store import make_storage
from sapnet.types import ByteArray, Category
from worker.jobs.execute import execute
from worker.runtime.types import Outcome, WorkerContext

FAKE_TRAINER = Path(__file__).parents[1] / "jobs" / "fake_trainer.py"


class Nothing:
    """A model that sees nothing in any image."""

    categories = (Category(7, "cat"),)

    def predict(self, image: ByteArray, score_threshold: float = 0.1) -> list[dict[str, Any]]:
        return []


@dataclass(frozen=True)
class Service:
    """A service that runs, a key for it, and the ids of what is in it."""

    url: str
    key: str
    settings: Settings
    dataset: str
    spare: str
    job: str
    queued: str
    model: str
    export: str


def image_bytes(seed: int = 0) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (40, 30), (37 * seed % 256, 91, 13)).save(buffer, "PNG")
    return buffer.getvalue()


def points() -> dict[str, Any]:
    return {
        "images": [{"id": 1, "file_name": "1.png"}, {"id": 2, "file_name": "2.png"}],
        "annotations": [
            {"id": 10 + i, "image_id": i, "category_id": 7, "point": [3.5, 4.5]} for i in (1, 2)
        ],
        "categories": [{"id": 7, "name": "cat"}],
    }


def upload(client: httpx2.Client, name: str) -> str:
    files = [
        ("annotations", ("points.json", json.dumps(points()).encode())),
        ("images", ("1.png", image_bytes(1))),
        ("images", ("2.png", image_bytes(2))),
    ]
    answer = client.post("/datasets", files=files, data={"name": name})
    return str(answer.raise_for_status().json()["id"])


@pytest.fixture
def settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    for name in list(os.environ):
        if name.startswith("SAPNET_"):
            monkeypatch.delenv(name)
    return Settings(
        _env_file=None,  # type: ignore[call-arg]
        data_dir=tmp_path / "var",
        log_level="error",
        key_cache_seconds=0,
        event_stream_seconds=0.2,
        trainer_command=(sys.executable, str(FAKE_TRAINER)),
    )


@pytest.fixture
def app(settings: Settings) -> Iterator[FastAPI]:
    database = Database(settings.database)
    schema.upgrade(database)
    database.dispose()
    app = create_app(settings)
    app.state.runtime = Runtime(2, loader=lambda path: Nothing())
    yield app
    shutil.rmtree(settings.data_dir, ignore_errors=True)


@pytest.fixture
def url(app: FastAPI) -> Iterator[str]:
    """The app behind uvicorn, in a thread."""
    config = uvicorn.Config(
        app, port=0, log_config=None, log_level="error", timeout_graceful_shutdown=1
    )
    socket, server = config.bind_socket(), uvicorn.Server(config)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [socket]}, daemon=True)
    thread.start()
    while not server.started:
        assert thread.is_alive(), "the server did not start"
        time.sleep(0.02)
    yield f"http://127.0.0.1:{socket.getsockname()[1]}"
    server.should_exit = True
    thread.join(20)


@pytest.fixture
def service(url: str, settings: Settings) -> Service:
    with httpx2.Client(base_url=url, timeout=60) as client:
        dataset, spare = upload(client, "cells"), upload(client, "spare")
        train = {"dataset_id": dataset, "truth": None}
        job = client.post("/jobs/train", json=train).raise_for_status().json()["id"]
        database = Database(settings.database)
        worker = WorkerContext(settings, database, make_storage(settings))
        assert execute(job, worker) is Outcome.ENDED
        wanted = {"format": "coco"}
        export = client.post(f"/jobs/{job}/exports", json=wanted).raise_for_status().json()["id"]
        assert execute(export, worker) is Outcome.ENDED
        queued = client.post("/jobs/train", json=train).raise_for_status().json()["id"]
        model = client.get(f"/jobs/{job}").json()["model_id"]
        new = {"If-None-Match": "*"}
        client.put("/models/aliases/production", json={"model": model}, headers=new)
    with database.begin() as session:
        key, _ = keys.create(session, "root", keys.Scope.ADMIN)
    database.dispose()
    return Service(url, key, settings, dataset, spare, job, queued, model, export)
