"""Data sets that a worker imports: asked for, followed, ready or invalid, and nothing left over."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from fastapi import FastAPI
from sqlalchemy import func, select
from starlette.testclient import TestClient

from app.datasets import rows
from app.db.models import Annotation, BlobPin, Category, Dataset, Image, ImportFile, Job
from app.db.session import Database
from app.settings import Settings
from worker.jobs import import_dataset as imports
from worker.jobs.execute import execute
from worker.runtime.types import Outcome, WorkerContext

pytestmark = pytest.mark.both_stacks

LATER = {"Prefer": "respond-async"}


@pytest.fixture
def worker(app: FastAPI, settings: Settings) -> WorkerContext:
    fast = settings.model_copy(update={"poll_seconds": 0.02, "heartbeat_seconds": 0.1})
    return WorkerContext(fast, app.state.database, app.state.storage)


@pytest.fixture
def ask(client: TestClient, kit: Any) -> Callable[..., Any]:
    """POST /datasets, to be imported later; the answer."""

    def post(document: Any, images: Any, truth: Any = None, **fields: Any) -> Any:
        files: list[Any] = [("annotations", ("points.json", json.dumps(document).encode()))]
        if isinstance(images, bytes):
            files.append(("images", ("images.zip", images)))
        else:
            files += [("images", (name, data)) for name, data in (images or {}).items()]
        if truth is not None:
            files.append(("truth", ("truth.json", json.dumps(truth).encode())))
        return client.post("/datasets", files=files, data=fields, headers=LATER)

    return post


def job_of(answer: Any) -> str:
    job_id: str = answer.json()["report"]["progress"]["job_id"]
    return job_id


def counts(database: Database, *tables: Any) -> list[int]:
    with database.read() as session:
        return [session.scalar(select(func.count()).select_from(t)) or 0 for t in tables]


@pytest.mark.slow
def test_from_importing_to_ready(
    client: TestClient,
    ask: Callable[..., Any],
    worker: WorkerContext,
    kit: Any,
    stored: Any,
    remove_deleted: Callable[[Settings], None],
) -> None:
    document = kit.points()
    for annotation in document["annotations"][1:]:
        annotation["bbox"] = [0, 0, 40, 30]
    answer = ask(document, kit.zipped(kit.images()), name="cells", boxes="ignore")
    assert answer.status_code == 202, answer.text
    assert answer.headers["preference-applied"] == "respond-async"
    body, url = answer.json(), answer.headers["location"]
    assert url == f"/datasets/{body['id']}"
    assert (body["status"], body["images"], body["categories"]) == ("importing", 0, [])
    progress = body["report"]["progress"]
    assert (progress["state"], progress["progress"]) == ("queued", 0)
    assert client.get(url).json() == body
    assert client.get(f"{url}/images").json()["images"] == []
    assert client.get(f"{url}/images/1").status_code == 404
    assert client.post("/jobs/train", json={"dataset_id": body["id"]}).status_code == 409
    assert client.delete(url).status_code == 409

    assert execute(job_of(answer), worker) is Outcome.ENDED
    found = client.get(url).json()
    at_once = kit.upload(client, document, kit.zipped(kit.images()), boxes="ignore").json()
    assert (found["report"]["points"], found["report"]["boxes"]) == (
        len(document["annotations"]),
        0,
    )
    different = {"id", "created_at"}
    assert {n: v for n, v in found.items() if n not in different} == {
        n: v for n, v in at_once.items() if n not in different
    }
    assert client.get(f"{url}/images/2").content == kit.images()["2.png"]
    job = client.get(f"/jobs/{progress['job_id']}").json()
    assert (job["kind"], job["state"], job["progress"]) == ("import", "succeeded", 1)
    assert client.get(f"/jobs/{job['id']}/checkpoint").status_code == 409
    events = client.get(f"/jobs/{job['id']}/events", headers={"accept": "application/json"})
    assert [e["type"] for e in events.json()["events"]][-1] == "end"
    assert counts(worker.database, ImportFile, BlobPin) == [0, 0]
    assert client.delete(url).status_code == 204
    assert client.delete(f"/datasets/{at_once['id']}").status_code == 204
    remove_deleted(worker.settings)
    assert stored(worker.settings.storage) == set()
    assert not list((worker.settings.data_dir / "jobs").iterdir())


@pytest.mark.slow
def test_small_ones_are_answered_at_once_and_large_ones_later(
    make_settings: Callable[..., Settings], kit: Any
) -> None:
    from app.main import create_app

    archive = kit.zipped(kit.images())
    size = len(archive) + len(json.dumps(kit.points()))
    for limit, status in ((size, 201), (size - 1, 202)):
        app = create_app(make_settings(sync_import_bytes=limit))
        with TestClient(app) as client:
            assert kit.upload(client, kit.points(), archive).status_code == status


@pytest.mark.slow
def test_invalid_with_every_fault(
    client: TestClient,
    ask: Callable[..., Any],
    worker: WorkerContext,
    kit: Any,
    stored: Any,
    remove_deleted: Callable[[Settings], None],
) -> None:
    document = kit.points(3)
    document["annotations"][0]["category_id"] = 5
    document["images"][1]["width"] = 41
    answer = ask(document, kit.zipped(kit.images()), truth={"images": []})
    url = answer.headers["location"]
    assert execute(job_of(answer), worker) is Outcome.ENDED
    body = client.get(url).json()
    assert (body["status"], body["report"]["progress"]) == ("invalid", None)
    expected = client.post("/datasets", files=_files(document, kit, truth={"images": []}))
    assert expected.status_code == 422
    assert body["report"]["errors"] == expected.json()["errors"]
    job = client.get(f"/jobs/{job_of(answer)}").json()
    assert (job["state"], job["reason"]) == ("failed", "invalid_dataset")
    assert counts(worker.database, ImportFile, Image, Annotation, BlobPin) == [0, 0, 0, 0]
    assert len(stored(worker.settings.storage)) == 1, "the document, which the row names"
    assert client.delete(url).status_code == 204
    remove_deleted(worker.settings)
    assert stored(worker.settings.storage) == set()


def _files(document: Any, kit: Any, truth: Any) -> list[Any]:
    return [
        ("annotations", ("points.json", json.dumps(document).encode())),
        ("images", ("images.zip", kit.zipped(kit.images()))),
        ("truth", ("truth.json", json.dumps(truth).encode())),
    ]


@pytest.mark.slow
def test_faults_of_the_form_are_said_at_once(
    client: TestClient, ask: Callable[..., Any], kit: Any, stored: Any, settings: Settings
) -> None:
    for fields in ({"parent": "nobody"}, {"images_url": "ftp://x/"}, {"images_upload": "x"}):
        answer = ask(kit.points(), kit.images(), **fields)
        assert answer.status_code == 422, fields
        assert next(e["part"] for e in answer.json()["errors"]) in fields
    assert ask(kit.points(), None).status_code == 422
    assert stored(settings.storage) == set()


@pytest.mark.slow
@pytest.mark.parametrize("batch", ["first", "images", "annotations", "last"])
def test_a_killed_import_is_taken_up_again_and_gives_its_rows_once(
    ask: Callable[..., Any],
    client: TestClient,
    worker: WorkerContext,
    kit: Any,
    monkeypatch: pytest.MonkeyPatch,
    batch: str,
) -> None:
    """The first attempt ends after some of its rows, as if by kill -9; its lease runs out."""
    monkeypatch.setattr(rows, "BATCH", 1)
    answer = ask(kit.points(), kit.zipped(kit.images()))
    job_id, url = job_of(answer), answer.headers["location"]
    tables = {"first": Category, "images": Image, "annotations": Annotation, "last": None}

    class Killed(BaseException):
        pass

    real = rows.batches

    def dies(*args: Any) -> Iterator[Any]:
        seen: Any = None
        for table, rows_of in real(*args):
            if seen is tables[batch]:
                raise Killed
            seen = table
            yield table, rows_of
        raise Killed

    monkeypatch.setattr(rows, "batches", dies)
    with pytest.raises(Killed):
        execute(job_id, worker)
    monkeypatch.setattr(rows, "batches", real)
    assert execute(job_id, worker) is Outcome.REFUSED, "its lease still runs"
    assert client.get(url).json()["status"] == "importing"
    with worker.database.begin() as session:
        job = session.get_one(Job, job_id)
        assert job.lease_until is not None
        job.lease_until = job.created_at
    assert execute(job_id, worker) is Outcome.ENDED
    assert client.get(url).json()["status"] == "ready"
    assert counts(worker.database, Category, Image, Annotation, ImportFile) == [2, 2, 4, 0]
    for i in (1, 2):
        assert client.get(f"{url}/images/{i}").content == kit.images()[f"{i}.png"]


@pytest.mark.slow
def test_a_stale_attempt_writes_nothing(
    ask: Callable[..., Any], client: TestClient, worker: WorkerContext, kit: Any, monkeypatch: Any
) -> None:
    """Another worker takes the job, and finishes it, while the first is about to write rows."""
    answer = ask(kit.points(), kit.zipped(kit.images()))
    job_id, url = job_of(answer), answer.headers["location"]
    other = WorkerContext(worker.settings, worker.database, worker.storage)
    calm = worker.settings.model_copy(update={"heartbeat_seconds": 60.0, "lease_seconds": 120.0})
    first = WorkerContext(
        calm, worker.database, worker.storage
    )  # whose heart renews no lease meanwhile
    real, outcomes = imports.check, []

    def slow(*args: Any) -> Any:
        checked = real(*args)
        monkeypatch.setattr(imports, "check", real)
        with worker.database.begin() as session:
            job = session.get_one(Job, job_id)
            job.lease_until = job.created_at
        shared = worker.settings.folder("jobs", job_id)
        moved = shared.rename(shared.with_name("elsewhere"))  # as on another machine
        outcomes.append(execute(job_id, other))
        moved.rename(shared)
        return checked

    monkeypatch.setattr(imports, "check", slow)
    assert execute(job_id, first) is Outcome.LOST
    assert outcomes == [Outcome.ENDED]
    assert client.get(url).json()["status"] == "ready"
    assert counts(worker.database, Category, Image, Annotation) == [2, 2, 4]
    assert client.get(f"{url}/images/1").content == kit.images()["1.png"]


@pytest.mark.slow
def test_cancelled_in_the_queue_and_while_it_runs(
    ask: Callable[..., Any],
    client: TestClient,
    worker: WorkerContext,
    kit: Any,
    monkeypatch: pytest.MonkeyPatch,
    stored: Any,
    remove_deleted: Callable[[Settings], None],
) -> None:
    waiting = ask(kit.points(), kit.zipped(kit.images()))
    assert client.post(f"/jobs/{job_of(waiting)}/cancel").status_code == 202
    assert execute(job_of(waiting), worker) is Outcome.REFUSED

    running = ask(kit.points(), kit.zipped(kit.images()))
    real = imports.check

    def cancelled_meanwhile(sent: Any, folder: Path, settings: Settings, tell: Any) -> Any:
        checked = real(sent, folder, settings, tell)
        assert client.post(f"/jobs/{job_of(running)}/cancel").status_code == 202
        return checked

    monkeypatch.setattr(imports, "check", cancelled_meanwhile)
    assert execute(job_of(running), worker) is Outcome.ENDED
    for answer in (waiting, running):
        body = client.get(answer.headers["location"]).json()
        assert body["status"] == "invalid"
        assert "cancelled" in body["report"]["errors"][0]["detail"]
        job = client.get(f"/jobs/{job_of(answer)}").json()
        assert (job["state"], job["reason"]) == ("cancelled", "cancel_requested")
        assert client.delete(answer.headers["location"]).status_code == 204
    remove_deleted(worker.settings)
    assert counts(worker.database, Image, Annotation, ImportFile, BlobPin) == [0, 0, 0, 0]
    assert stored(worker.settings.storage) == set()


@pytest.mark.slow
def test_shut_down_and_taken_up_again(
    ask: Callable[..., Any], client: TestClient, worker: WorkerContext, kit: Any, monkeypatch: Any
) -> None:
    answer = ask(kit.points(), kit.zipped(kit.images()))
    told: list[int] = []
    going = WorkerContext(worker.settings, worker.database, worker.storage, lambda: bool(told))
    real = imports.check

    def told_meanwhile(sent: Any, folder: Path, settings: Settings, tell: Any) -> Any:
        told.append(1)
        while True:
            tell("images", 0, 1)

    monkeypatch.setattr(imports, "check", told_meanwhile)
    assert execute(job_of(answer), going) is Outcome.RELEASED
    monkeypatch.setattr(imports, "check", real)
    assert execute(job_of(answer), worker) is Outcome.ENDED
    assert client.get(answer.headers["location"]).json()["status"] == "ready"


@pytest.mark.slow
def test_a_failure_that_stays_makes_it_invalid(
    ask: Callable[..., Any], client: TestClient, worker: WorkerContext, kit: Any, monkeypatch: Any
) -> None:
    answer = ask(kit.points(), kit.zipped(kit.images()))

    def fails(*_: Any) -> Any:
        raise OSError("no disk today")

    monkeypatch.setattr(imports, "check", fails)
    few = WorkerContext(
        worker.settings.model_copy(update={"max_attempts": 1}), worker.database, worker.storage
    )
    outcomes = [execute(job_of(answer), few) for _ in range(3)]
    assert outcomes == [Outcome.RELEASED, Outcome.RELEASED, Outcome.ENDED]
    body = client.get(answer.headers["location"]).json()
    assert body["status"] == "invalid"
    assert "no disk today" in body["report"]["errors"][0]["detail"]


@pytest.mark.slow
def test_truth_and_single_files(
    ask: Callable[..., Any], client: TestClient, worker: WorkerContext, kit: Any
) -> None:
    square = [[1, 1, 9, 1, 9, 9]]
    document = kit.points()
    for annotation in document["annotations"]:
        annotation["segmentation"] = square
    truth = {
        "images": document["images"],
        "categories": document["categories"],
        "annotations": [{**a, "id": a["id"]} for a in document["annotations"]],
    }
    for sent, where in ((None, "annotations"), (truth, "truth")):
        answer = ask(document, kit.images(), truth=sent)
        assert execute(job_of(answer), worker) is Outcome.ENDED
        body = client.get(answer.headers["location"]).json()
        assert (body["status"], body["report"]["truth"]) == ("ready", where)
        with worker.database.read() as session:
            dataset = session.get_one(Dataset, body["id"])
            assert (dataset.truth_sha == dataset.document_sha) == (sent is None)
            assert worker.storage.exists(str(dataset.truth_sha))


@pytest.mark.slow
@pytest.mark.parametrize(
    "mask",
    [
        {"size": [2**31 - 1, 2**31 - 1], "counts": [0, (2**31 - 1) ** 2]},
        {"size": [2**20, 2**20], "counts": [2**40]},
        {"size": [30, 40], "counts": [2**32 + 1200]},
        {"size": [30, 40], "counts": [-(2**32), 2**32 + 1200]},
    ],
)
def test_runs_beyond_32_bits_are_the_document_s_fault(
    client: TestClient, ask: Callable[..., Any], worker: WorkerContext, kit: Any, mask: Any
) -> None:
    """Not the worker's: it would try again and again."""
    document = kit.points()
    document["annotations"][0]["mask"] = mask
    answer = ask(document, kit.zipped(kit.images()))
    assert execute(job_of(answer), worker) is Outcome.ENDED
    body = client.get(answer.headers["location"]).json()
    assert body["status"] == "invalid"
    assert [e["pointer"] for e in body["report"]["errors"]] == ["/annotations/0/mask"]


@pytest.mark.slow
def test_truth_is_held_against_the_images(
    client: TestClient, ask: Callable[..., Any], worker: WorkerContext, kit: Any
) -> None:
    document = kit.points()
    truth = {
        "images": [{"id": document["images"][0]["id"], "width": 10**7, "height": 10**7}],
        "categories": document["categories"],
        "annotations": [],
    }
    for size in (10**7, 2**31 - 1, 2**14):
        truth["images"][0] |= {"width": size, "height": size}
        answer = ask(document, kit.zipped(kit.images()), truth=truth)
        assert execute(job_of(answer), worker) is Outcome.ENDED
        body = client.get(answer.headers["location"]).json()
        assert body["status"] == "invalid"
        errors = body["report"]["errors"]
        assert [(e["part"], e["pointer"]) for e in errors] == [("truth", "/images/0")]
