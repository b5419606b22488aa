"""A database, a storage and a fake trainer, in a folder of the test's own."""

import contextlib
import io
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fastapi.testclient import TestClient
from PIL import Image as PILImage
from pycocotools import mask as coco_mask
from sqlalchemy import text, update
from sqlalchemy.orm import undefer

from app.db import migrate as schema
from app.db.columns import now
from app.db.models import (
    Annotation,
    Category,
    Dataset,
    DatasetStatus,
    Image,
    Job,
    JobState,
    Model,
)
from app.db.session import Database
from app.main import create_app
from app.predict.model_cache import Runtime
from app.settings import Settings
from app.storage.store import Storage, make_storage
from sapnet.types import ByteArray
from sapnet.types import Category as ImageCategory
from worker.jobs.context import JobContext
from worker.jobs.execute import execute
from worker.runtime.lease import Lease
from worker.runtime.types import Outcome, WorkerContext

FAKE = Path(__file__).with_name("fake_trainer.py")
ENDLESS = ("--steps", "9999", "--sleep", "0.05")  # a test that acts on it is never too late


def fake_command(*args: str) -> tuple[str, ...]:
    return (sys.executable, str(FAKE), *args)


@pytest.fixture
def database_url(stack: dict[str, str]) -> str | None:
    """The stack's: None is SQLite. A module may have a fixture of its own by this name."""
    return stack.get("database_url")


@pytest.fixture
def settings(tmp_path: Path, stack: dict[str, str], database_url: str | None) -> Settings:
    return Settings(
        _env_file=None,  # type: ignore[call-arg]
        data_dir=tmp_path / "data",
        database_url=database_url,
        storage_url=stack.get("storage_url"),
        broker_url=stack.get("broker_url"),
        trainer_command=fake_command(),
        poll_seconds=0.05,
        heartbeat_seconds=0.2,
        lease_seconds=60,  # no stall of the machine ends it: see `expire`
        stop_grace_seconds=2,
        max_attempts=3,
    )


@pytest.fixture(scope="session")
def migrated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A SQLite file with the newest schema, to be copied."""
    path = tmp_path_factory.mktemp("schema") / "sapnet.db"
    database = Database(f"sqlite:///{path}")
    schema.upgrade(database)
    database.dispose()
    return path


@pytest.fixture
def database(settings: Settings, stack: dict[str, str], migrated: Path) -> Iterator[Database]:
    if settings.database_url is None:
        shutil.copy(migrated, settings.folder() / "sapnet.db")
    database = Database(settings.database)
    if settings.database_url != stack.get("database_url"):  # shared, and not of this test alone
        with database.engine.begin() as connection:
            connection.execute(text("DROP SCHEMA public CASCADE; CREATE SCHEMA public"))
        schema.upgrade(database)
    yield database
    database.dispose()


@pytest.fixture
def storage(settings: Settings) -> Storage:
    return make_storage(settings)


@pytest.fixture
def dataset_id(database: Database, storage: Storage) -> str:
    """Two images, three points, categories 0 and 7, ids with gaps."""
    sha = storage.put_bytes(b"an image")
    with database.begin() as session:
        dataset = Dataset(
            name="cells",
            status=DatasetStatus.READY,
            images=2,
            annotations=3,
            report={},
            document_sha=storage.put_bytes(b"{}"),
        )
        session.add(dataset)
        session.flush()
        session.add_all(
            Category(dataset_id=dataset.id, category_id=i, name=name, annotations=n)
            for i, name, n in [(0, "cell", 2), (7, "dust", 1)]
        )
        session.add_all(
            Image(
                dataset_id=dataset.id,
                image_id=i,
                file_name=f"{i}.png",
                width=40,
                height=30,
                annotations=n,
                sha256=sha,
            )
            for i, n in [(12, 2), (99, 1)]
        )
        session.add_all(
            Annotation(
                dataset_id=dataset.id, annotation_id=a, image_id=i, category_id=c, x=x, y=20.5
            )
            for a, i, c, x in [(501, 12, 0, 0.5), (502, 12, 7, 39.5), (900, 99, 0, 10.5)]
        )
        return dataset.id


@pytest.fixture
def new_job(database: Database, dataset_id: str) -> Callable[..., str]:
    def new(**values: Any) -> str:
        job = Job(
            **{
                "dataset_id": dataset_id,
                "method": "sapnet++",
                "preset": "cpu",
                "seed": 3,
                "request": {"overrides": {}, "proposals": {"kind": "hierarchy"}},
                **values,
            }
        )
        with database.begin() as session:
            session.add(job)
        return job.id

    return new


@pytest.fixture
def new_worker(
    database: Database, storage: Storage, settings: Settings
) -> Callable[..., WorkerContext]:
    def new(*args: str, **values: Any) -> WorkerContext:
        """args: of the fake trainer. values: other settings, or `stopping`."""
        stopping = values.pop("stopping", lambda: False)
        changed = settings.model_copy(update={"trainer_command": fake_command(*args), **values})
        return WorkerContext(changed, database, storage, stopping)

    return new


def context_of(
    worker: WorkerContext, job: str | Lease, check_stop: Callable[[], None] = lambda: None
) -> JobContext:
    """What an attempt of this worker at a job works with. job: its id, or a lease of it."""
    lease = Lease(job, worker.owner, 1, 1, False) if isinstance(job, str) else job
    at = (worker.database, worker.storage, worker.settings, lease)
    return JobContext(*at, check_stop=check_stop)


@pytest.fixture
def done(new_job: Callable[..., str], new_worker: Callable[..., WorkerContext]) -> str:
    """A job with results. Qualities: 0.25 of 502 and 900, 0.75 of 501."""
    job_id = new_job()
    execute(job_id, new_worker())
    return job_id


@pytest.fixture
def job_row(database: Database) -> Callable[[str], Job]:
    def row(job_id: str) -> Job:
        with database.read() as session:
            return session.get_one(Job, job_id, options=[undefer(Job.request), undefer(Job.report)])

    return row


@pytest.fixture
def set_row(database: Database) -> Callable[..., None]:
    def change(job_id: str, **values: Any) -> None:
        with database.begin() as session:
            session.execute(update(Job).where(Job.id == job_id).values(values))

    return change


@pytest.fixture
def expire(set_row: Callable[..., None]) -> Callable[[str], None]:
    """Ends the lease of a worker that renews it no more, which would take a minute."""
    return lambda job_id: set_row(job_id, lease_until=now() - timedelta(seconds=1))


@dataclass(frozen=True)
class Training:
    """A job in the middle of its training. outcome: waits for its worker to let it go."""

    job_id: str
    worker: WorkerContext
    outcome: Callable[[], Outcome]


@pytest.fixture
def training(
    new_job: Callable[..., str],
    new_worker: Callable[..., WorkerContext],
    job_row: Callable[[str], Job],
) -> Iterator[Training]:
    job_id, worker = new_job(), new_worker("--steps", "9999", "--sleep", "0.02")
    pool = ThreadPoolExecutor(1)
    ended = pool.submit(execute, job_id, worker)
    while job_row(job_id).stage != "train":
        assert not ended.done()
    yield Training(job_id, worker, partial(ended.result, 60))
    pool.shutdown(wait=False)


@pytest.fixture
def until() -> Callable[..., None]:
    """Counts looks, not seconds: a stall of the machine takes none of the patience."""

    def wait(condition: Callable[[], Any], seconds: float = 60.0) -> None:
        for _ in range(int(seconds / 0.02)):
            if condition():
                return
            time.sleep(0.02)
        assert condition(), "waited in vain"

    return wait


@pytest.fixture
def alive() -> Callable[[int], bool]:
    def running(pid: int) -> bool:
        try:
            return "\nState:\tZ" not in Path(f"/proc/{pid}/status").read_text()
        except FileNotFoundError:
            return False

    return running


@pytest.fixture
def children() -> Callable[[int], list[int]]:
    """Processes that any thread of this one has started. Threads and processes end meanwhile."""

    def of(pid: int) -> list[int]:
        found = []
        for task in sorted(Path(f"/proc/{pid}/task").iterdir(), key=lambda t: int(t.name)):
            with contextlib.suppress(FileNotFoundError, ProcessLookupError):
                found += [int(child) for child in (task / "children").read_text().split()]
        return found

    return of


@pytest.fixture
def starts(settings: Settings) -> Callable[[str], list[int]]:
    """Process ids of the trainers that were started for a job whose folder is still there."""

    def pids(job_id: str) -> list[int]:
        path = settings.data_dir / "jobs" / job_id / "starts.txt"
        return [int(line) for line in path.read_text().split()] if path.exists() else []

    return pids


@pytest.fixture
def service_env(settings: Settings) -> dict[str, str]:
    """The settings as an environment, for processes of their own."""
    values = settings.model_dump(mode="json", exclude_none=True)
    texts = {n: v if isinstance(v, str) else json.dumps(v) for n, v in values.items()}
    root = str(Path(__file__).resolve().parents[2])
    settings_env = {f"SAPNET_{name.upper()}": text for name, text in texts.items()}
    return {**os.environ, **settings_env, "PYTHONPATH": root}


@pytest.fixture
def client(settings: Settings, database: Database) -> Iterator[TestClient]:
    """The real app on the test's database. Its errors come as answers, as a server gives them."""
    with TestClient(create_app(settings), raise_server_exceptions=False) as client:
        yield client


@pytest.fixture
def start(
    service_env: dict[str, str], tmp_path: Path
) -> Iterator[Callable[..., subprocess.Popen[bytes]]]:
    """Start a program with the test's settings; whatever is left of it ends with the test."""
    started: list[subprocess.Popen[bytes]] = []

    def run(
        *command: str, trainer: tuple[str, ...] = ENDLESS, **env: str
    ) -> subprocess.Popen[bytes]:
        fake = [sys.executable, str(FAKE), *trainer]
        settings = {**service_env, "SAPNET_TRAINER_COMMAND": json.dumps(fake), **env}
        with (tmp_path / "output.txt").open("ab") as output:
            process = subprocess.Popen(
                [sys.executable, "-m", *command], env=settings, stdout=output, stderr=output
            )
        started.append(process)
        return process

    yield run
    for process in started:
        process.kill()
        process.wait()


class Square:
    """A model that finds one square twice, at the upper left, in every image."""

    categories = (ImageCategory(0, "cell"), ImageCategory(7, "dust"))

    def predict(self, image: ByteArray, score_threshold: float = 0.1) -> list[dict[str, Any]]:
        mask = np.zeros(image.shape[:2], np.uint8, order="F")
        mask[:4, :4] = 1
        rle = coco_mask.encode(mask)
        rle["counts"] = rle["counts"].decode()
        results = [
            {"category_id": 7, "segmentation": rle, "bbox": [0.0, 0.0, 4.0, 4.0], "score": score}
            for score in (0.9, 0.3)
        ]
        return [r for r in results if r["score"] >= score_threshold]


@pytest.fixture
def png() -> Callable[..., bytes]:
    def make(height: int = 30, width: int = 40) -> bytes:
        buffer = io.BytesIO()
        PILImage.fromarray(np.full((height, width, 3), 90, np.uint8)).save(buffer, format="PNG")
        return buffer.getvalue()

    return make


@pytest.fixture
def model_id(
    client: TestClient,
    new_job: Callable[..., str],
    database: Database,
    storage: Storage,
    png: Callable[..., bytes],
) -> str:
    """A trained model that is a `Square` once it is loaded; the images of its data set are PNGs."""
    client.app.state.runtime = Runtime(2, loader=lambda path: Square())  # type: ignore[attr-defined]
    model = Model(
        job_id=new_job(state=JobState.SUCCEEDED),
        name="cells",
        categories=[{"id": 0, "name": "cell"}, {"id": 7, "name": "dust"}],
        sha256=storage.put_bytes(b"weights"),
        size=7,
        meta={},
    )
    with database.begin() as session:
        session.execute(update(Image).values(sha256=storage.put_bytes(png())))
        session.add(model)
    return model.id
