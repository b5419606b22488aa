"""Models from outside over HTTP: taken, refused with nothing kept, used, removed."""

import io
import pickle
from collections.abc import Callable
from typing import Any

import pytest
import torch
from fastapi.testclient import TestClient

from app.auth.keys import Caller
from app.auth.scope import Scope
from app.db.models import BlobPin, Job, JobKind, Model
from app.db.session import Database
from app.settings import Settings
from app.storage.garbage_collection import clean_up
from app.storage.store import Storage
from worker.jobs.execute import execute
from worker.runtime.types import Outcome, WorkerContext

NewWorker = Callable[..., WorkerContext]


def written(content: Any) -> bytes:
    file = io.BytesIO()
    torch.save(content, file)
    return file.getvalue()


GOOD = written({"state_dict": {"w": torch.ones(3)}, "meta": {"CLASSES": ["cell"]}})
WRONG = written({"state_dict": {"wrong": torch.ones(3)}})


def blobs_of(settings: Settings) -> set[str]:
    return {p.name for p in (settings.data_dir / "blobs").rglob("*") if p.is_file()}


def send(client: TestClient, content: bytes, **form: str) -> Any:
    return client.post("/models", files={"file": ("dir/solov2-ab.pth", content)}, data=form)


@pytest.fixture
def imported(client: TestClient, new_worker: NewWorker, job_row: Callable[[str], Job]) -> str:
    answer = send(client, GOOD, name="From elsewhere")
    assert answer.status_code == 202, answer.text
    assert answer.headers["location"] == f"/jobs/{answer.json()['id']}"
    assert execute(answer.json()["id"], new_worker()) is Outcome.ENDED
    row = job_row(answer.json()["id"])
    assert row.error is None
    return str(row.model_id)


@pytest.mark.slow
@pytest.mark.both_stacks
def test_a_model_is_read_by_a_worker_and_can_be_used(
    client: TestClient, imported: str, dataset_id: str, new_worker: NewWorker, settings: Settings
) -> None:
    model = client.get(f"/models/{imported}").json()
    assert (model["name"], model["categories"]) == (
        "From elsewhere",
        [{"id": 7, "name": "cell"}],
    )
    job = client.get(f"/jobs/{model['job_id']}").json()
    assert (job["kind"], job["dataset_id"], job["state"]) == ("import_model", None, "succeeded")
    (listed,) = client.get("/models").json()["models"]
    assert (listed["id"], listed["dataset_id"]) == (imported, None)
    assert client.get(f"/models/{imported}/checkpoint").content == b"read: " + GOOD
    body = {"dataset_id": dataset_id, "preset": "demo", "from_model": imported}
    trained = client.post("/jobs/train", json=body)
    assert trained.status_code == 202, trained.text
    other = client.post("/jobs/train", json=body | {"preset": "light_r18"})
    assert "backbone.name is 'resnet18'" in other.json()["errors"][0]["detail"]
    onnx = client.post(f"/models/{imported}/onnx").json()["id"]
    assert execute(onnx, new_worker()) is Outcome.ENDED
    assert client.get(f"/models/{imported}/onnx").status_code == 200
    assert client.get(f"/jobs/{onnx}").json()["dataset_id"] is None
    issue = client.get("/predict", params={"model": imported, "image": "1"}).json()["errors"][0]
    assert (issue["pointer"], "no data set" in issue["detail"]) == ("/dataset", True)
    sent = {"model": imported, "images": [{"image": "iVBORw0KGgo="}]}
    many = client.post("/predict", json=sent, headers={"Prefer": "respond-async"})
    assert many.status_code == 202, many.text
    refused = client.delete(f"/models/{imported}")
    assert refused.status_code == 409
    assert many.json()["id"] in refused.json()["jobs"]
    assert execute(many.json()["id"], new_worker()) is Outcome.ENDED
    assert client.post(f"/jobs/{trained.json()['id']}/cancel").status_code == 202
    assert client.delete(f"/models/{imported}").status_code == 204
    assert client.get(f"/models/{imported}").status_code == 404
    assert client.get(f"/jobs/{onnx}").status_code == 404


@pytest.mark.slow
def test_what_does_not_fit_is_refused_with_a_reason_and_not_kept(
    client: TestClient,
    database: Database,
    storage: Storage,
    settings: Settings,
    new_worker: NewWorker,
) -> None:
    job_id = send(client, WRONG).json()["id"]
    before = blobs_of(settings)
    assert before
    assert execute(job_id, new_worker()) is Outcome.ENDED
    job = client.get(f"/jobs/{job_id}").json()
    assert (job["state"], job["reason"]) == ("failed", "weights_unavailable")
    assert job["error"] == "solov2-ab.pth was not taken: keys 1 of another shape"
    clean_up(database, storage)
    assert not before & blobs_of(settings)
    assert client.get("/models").json()["models"] == []
    cancelled = send(client, GOOD).json()["id"]
    client.post(f"/jobs/{cancelled}/cancel")
    clean_up(database, storage)
    with database.read() as session:
        assert session.get_one(Job, cancelled).initial_sha is None
    assert not before & blobs_of(settings)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("content", "says"),
    [
        (pickle.dumps({"a": 1}), "torch did not write"),
        (GOOD[:-300], "cut off"),
        (written({"meta": torch.nn.Linear(1, 1)}), r"torch.nn.modules.linear.Linear"),
        (b"", "neither of torch nor of safetensors"),
    ],
)
def test_a_hostile_file_is_refused_at_once(
    client: TestClient, database: Database, settings: Settings, content: bytes, says: str
) -> None:
    answer = send(client, content)
    assert answer.status_code == 422, answer.text
    (issue,) = answer.json()["errors"]
    assert (issue["part"], says in issue["detail"]) == ("file", True)
    assert blobs_of(settings) == set()
    with database.read() as session:
        assert session.query(Job).filter(Job.kind == JobKind.IMPORT_MODEL).count() == 0
        assert session.query(BlobPin).count() == 0
        assert session.query(Model).count() == 0


@pytest.mark.slow
def test_a_form_that_is_not_whole(client: TestClient) -> None:
    none = client.post("/models", data={"name": "x"}, files={"other": ("a", b"a")})
    assert [e["part"] for e in none.json()["errors"]] == ["other", "file"]
    assert send(client, GOOD, name="x" * 201).json()["errors"][0]["part"] == "name"
    upload = client.post("/models", files={"file_upload": (None, "none")})
    assert upload.json()["errors"][0]["part"] == "file_upload"
    assert client.post("/models", json={}).status_code == 415


def test_a_file_that_is_too_large(client: TestClient) -> None:
    headers = {"Content-Length": str(10 << 30), "Content-Type": "multipart/form-data; boundary=a"}
    assert client.post("/models", headers=headers, content=b"").status_code == 413


@pytest.mark.slow
def test_it_is_its_owners_alone(
    client: TestClient, imported: str, database: Database, settings: Settings
) -> None:
    def sees(owner: str) -> bool:
        caller = Caller(owner, Scope.WRITE)
        with database.for_request(caller=caller, settings=settings).read() as session:
            return session.get(Model, imported) is not None

    assert not sees("somebody")
    with database.begin() as session:
        job = session.get_one(Job, session.get_one(Model, imported).job_id)
        job.made_by = "somebody"
    assert sees("somebody")
    assert not sees("another")
