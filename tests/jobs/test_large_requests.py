"""A large request is a blob of its job: lists of jobs do not read it, its worker does."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient
from sqlalchemy import event, text

from app.db import migrate as schema
from app.db.columns import new_id
from app.db.models import Job
from app.db.session import Database
from app.settings import Settings
from app.storage.store import Storage
from worker.jobs.train import prepare
from worker.runtime.types import WorkerContext

from .conftest import context_of

pytestmark = pytest.mark.slow

Row = Callable[[str], Job]
NewWorker = Callable[..., WorkerContext]


def given(masks: int) -> dict[str, Any]:
    """Proposals of the user's own: so many masks of one of the points."""
    mask = {"segmentation": {"size": [30, 40], "counts": [0, 20, 1180]}, "score": 0.5}
    return {"kind": "given", "document": {"501": [mask] * masks}}


@pytest.mark.both_stacks
def test_lists_do_not_read_it_and_the_worker_does(
    client: TestClient,
    dataset_id: str,
    database: Database,
    storage: Storage,
    settings: Settings,
    job_row: Row,
    new_worker: NewWorker,
    stored: Callable[[str], set[str]],
    remove_deleted: Callable[[Settings], None],
) -> None:
    proposals = given(2_000)
    body = {"dataset_id": dataset_id, "proposals": proposals, "overrides": {"train.epochs": 3}}
    job_id = client.post("/jobs/train", json=body).json()["id"]
    row = job_row(job_id)
    assert len(json.dumps(row.request)) < 100
    assert row.request_sha is not None
    assert storage.exists(row.request_sha)
    (listed,) = client.get("/jobs").json()["jobs"]
    assert (listed["id"], listed["method"], listed["from_model"]) == (job_id, "sapnet++", None)
    assert client.get(f"/jobs/{job_id}").status_code == 200

    job_file = json.loads(prepare(context_of(new_worker(), job_id)).read_text())
    assert job_file["proposals"] == proposals
    assert job_file["overrides"] == {"train.epochs": 3}
    assert client.post(f"/jobs/{job_id}/cancel").status_code == 202
    assert client.delete(f"/datasets/{dataset_id}", params={"force": True}).status_code == 204
    remove_deleted(settings)
    assert stored(settings.storage) == set()


def test_lists_read_none_of_an_older_release(
    client: TestClient, new_job: Callable[..., str], new_worker: NewWorker, settings: Settings
) -> None:
    """Their rows hold requests of any size; the API's own statements leave that column out."""
    request = {"overrides": {}, "proposals": given(100)}
    job_id = new_job(request=request)
    read: list[str] = []
    engine = client.app.state.database.engine  # type: ignore[attr-defined]
    event.listen(engine, "before_cursor_execute", lambda _c, _k, sql, *_: read.append(sql))
    for path in ("/jobs", f"/jobs/{job_id}", "/metrics"):
        assert client.get(path).status_code == 200
    assert any("FROM job" in sql for sql in read)
    assert not any("job.request," in sql or "job.request " in sql for sql in read)
    job_file = json.loads(prepare(context_of(new_worker(), job_id)).read_text())
    assert job_file["proposals"] == request["proposals"]


def test_a_small_one_stays_in_its_row(client: TestClient, dataset_id: str, job_row: Row) -> None:
    body = {"dataset_id": dataset_id, "overrides": {"train.epochs": 3}, "proposals": "hierarchy"}
    row = job_row(client.post("/jobs/train", json=body).json()["id"])
    assert row.request == {"overrides": {"train.epochs": 3}, "proposals": {"kind": "hierarchy"}}
    assert row.request_sha is None


def test_the_model_of_older_trainings_is_known(tmp_path: Path) -> None:
    """Where a training went on from a model, releases before kept that in the request."""
    database = Database(f"sqlite:///{tmp_path / 'sapnet.db'}")
    schema.migrate(database, "0009")
    dataset, model = new_id(), new_id()
    with database.engine.begin() as connection:
        connection.execute(
            text(
                "INSERT INTO dataset (id, name, status, created_at, images, annotations, bytes,"
                " report, document_sha) VALUES (:id, 'n', 'ready', '2026-01-01', 0, 0, 0, '{}', '')"
            ),
            {"id": dataset},
        )
        for number, request in enumerate(({"from_model": model}, {"overrides": {}}, {})):
            connection.execute(
                text(
                    "INSERT INTO job (id, kind, dataset_id, state, method, preset, seed, request,"
                    " progress, warnings, attempt, setbacks, cancel_requested, last_event,"
                    " created_at) VALUES (:id, 'train', :dataset, 'failed', 'm', 'p', 0, :request,"
                    " 0, '[]', 0, 0, 0, 0, '2026-01-01')"
                ),
                {"id": f"job{number}", "dataset": dataset, "request": json.dumps(request)},
            )
    schema.upgrade(database)
    with database.read() as session:
        models = [session.get_one(Job, f"job{number}").from_model for number in range(3)]
    assert models == [model, None, None]
    database.dispose()
