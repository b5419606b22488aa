"""Predictions that a worker makes: asked for by Prefer, read back image by image."""

import base64
import hashlib
import json
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
from fastapi.testclient import TestClient
from sqlalchemy import select, update

from app.auth import keys
from app.auth.keys import Scope
from app.db.models import Dataset, Job, JobState, Model, Prediction
from app.db.session import Database
from app.predict import deferred
from app.settings import Settings
from app.storage.store import Storage
from worker.jobs.execute import execute
from worker.runtime.types import Outcome, WorkerContext

pytestmark = pytest.mark.both_stacks

ASYNC = {"Prefer": "respond-async"}
NewWorker = Callable[..., WorkerContext]


def ask(client: TestClient, model_id: str, **body: Any) -> str:
    answer = client.post("/predict", json={"model": model_id, **body}, headers=ASYNC)
    assert answer.status_code == 202, answer.text
    assert answer.headers["preference-applied"] == "respond-async"
    job_id: str = answer.json()["id"]
    assert answer.headers["location"] == f"/jobs/{job_id}"
    return job_id


def refused(answer: Any, status: int) -> dict[str, Any]:
    kind = answer.headers["content-type"]
    assert (answer.status_code, kind) == (status, "application/problem+json"), answer.text
    body: dict[str, Any] = answer.json()
    return body


@pytest.mark.slow
def test_a_list(
    client: TestClient, model_id: str, new_worker: NewWorker, png: Callable[..., bytes]
) -> None:
    sent = base64.b64encode(png(5, 6)).decode()
    images = [99, {"image": sent}, 12, "http://nowhere.invalid/a.png"]
    job_id = ask(client, model_id, images=images)
    job = client.get(f"/jobs/{job_id}").json()
    assert (job["kind"], job["state"], job["model_id"]) == ("predict", "queued", model_id)
    assert refused(client.get(f"/jobs/{job_id}/predictions"), 409)["state"] == "queued"
    assert execute(job_id, new_worker()) is Outcome.ENDED
    job = client.get(f"/jobs/{job_id}").json()
    assert (job["state"], job["progress"]) == ("succeeded", 1.0), job
    body = client.get(f"/jobs/{job_id}/predictions").json()
    assert [p["number"] for p in body["predictions"]] == [0, 1, 2, 3]
    assert [p["image_id"] for p in body["predictions"]] == [99, None, 12, None]
    first, second, _, last = body["predictions"]
    assert first["results"][0]["image_id"] == 99
    assert (second["size"], len(second["results"]), second["error"]) == ([30, 40], 1, None)
    assert last["url"] == "http://nowhere.invalid/a.png"
    assert "does not resolve" in last["error"]
    assert (last["results"], last["size"], body["next"]) == ([], None, None)
    events = client.get(f"/jobs/{job_id}/events", headers={"accept": "application/json"}).json()
    types = [e["type"] for e in events["events"]]
    assert (types[0], types[-1]) == ("created", "end")
    assert "predict" in {e["data"].get("stage") for e in events["events"]}


@pytest.mark.slow
def test_a_whole_data_set_in_pages_and_as_a_stream(
    client: TestClient, model_id: str, dataset_id: str, new_worker: NewWorker
) -> None:
    job_id = ask(client, model_id, dataset=dataset_id)
    execute(job_id, new_worker())
    url = f"/jobs/{job_id}/predictions"
    first = client.get(url, params={"limit": 1})
    assert [p["image_id"] for p in first.json()["predictions"]] == [12]
    second = client.get(first.links["next"]["url"])
    assert [p["image_id"] for p in second.json()["predictions"]] == [99]
    assert second.json()["next"] is None
    stream = client.get(url, headers={"accept": "application/x-ndjson"})
    lines = [json.loads(line) for line in stream.text.splitlines()]
    assert lines == [*first.json()["predictions"], *second.json()["predictions"]]
    listed = client.get("/jobs", params={"dataset_id": dataset_id}).json()["jobs"]
    assert job_id in [job["id"] for job in listed]


@pytest.mark.slow
def test_a_file_that_is_sent_in_a_form(
    client: TestClient,
    model_id: str,
    new_worker: NewWorker,
    png: Callable[..., bytes],
    storage: Storage,
    database: Database,
) -> None:
    """It is kept until the job is over."""
    form = {"data": {"model": model_id}, "files": {"file": png(7, 7)}}
    answer = client.post("/predict", headers=ASYNC, **form)  # type: ignore[arg-type]
    job_id = answer.json()["id"]
    with database.read() as session:
        sha = session.scalars(select(Prediction.sha256)).one()
    assert sha is not None
    assert storage.local_path(sha).read_bytes() == png(7, 7)
    execute(job_id, new_worker())
    assert client.get(f"/jobs/{job_id}/predictions").json()["predictions"][0]["error"] is None
    assert not storage.exists(sha)


@pytest.mark.slow
def test_the_images_of_a_cancelled_job_are_let_go(
    client: TestClient,
    model_id: str,
    new_worker: NewWorker,
    png: Callable[..., bytes],
    storage: Storage,
    database: Database,
    settings: Settings,
    remove_deleted: Callable[[Settings], None],
) -> None:
    job_id = ask(client, model_id, images=[{"image": base64.b64encode(png(7, 7)).decode()}, 12])
    with database.read() as session:
        sent, kept = session.scalars(select(Prediction.sha256).order_by(Prediction.number))
    assert client.post(f"/jobs/{job_id}/cancel").status_code == 202
    remove_deleted(settings)
    assert (storage.exists(str(sent)), storage.exists(str(kept))) == (False, True)
    refused(client.get(f"/jobs/{job_id}/predictions"), 409)


@pytest.mark.slow
def test_killed_in_the_middle_it_goes_on(
    client: TestClient, model_id: str, new_worker: NewWorker, starts: Callable[[str], list[int]]
) -> None:
    job_id = ask(client, model_id, images=[12, 99, 12, 99])
    worker = new_worker("--crash-at", "2")
    assert execute(job_id, worker) is Outcome.RELEASED
    assert client.get(f"/jobs/{job_id}").json()["reason"] == "trainer_died"
    assert execute(job_id, worker) is Outcome.ENDED
    found = client.get(f"/jobs/{job_id}/predictions").json()["predictions"]
    assert [p["number"] for p in found] == [0, 1, 2, 3]
    assert all(len(p["results"]) == 1 for p in found)


@pytest.mark.slow
def test_nothing_of_a_refused_request_stays(
    client: TestClient, model_id: str, database: Database, settings: Settings, stored: Any
) -> None:
    before = stored(settings.storage)
    image = {"image": base64.b64encode(b"kept nowhere").decode()}
    bad: list[dict[str, Any]] = [
        {"images": [image, 13]},
        {"images": [image], "dataset": "none"},
        {"images": [image, {"image": "!"}]},
    ]
    for body in bad:
        answer = client.post("/predict", json={"model": model_id, **body}, headers=ASYNC)
        refused(answer, 404 if "dataset" in body else 422)
    with database.read() as session:
        assert session.scalars(select(Job.id).where(Job.kind == "predict")).all() == []
    assert stored(settings.storage) == before
    assert list(settings.folder("uploads").iterdir()) == []


@pytest.mark.slow
def test_sent_again_with_a_key_it_is_one_job(client: TestClient, model_id: str) -> None:
    body, headers = {"model": model_id, "images": [12]}, {**ASYNC, "Idempotency-Key": "k1"}
    first, again = (client.post("/predict", json=body, headers=headers) for _ in range(2))
    assert first.json()["id"] == again.json()["id"]
    assert again.headers["idempotent-replayed"] == "true"
    refused(client.post("/predict", json={**body, "score": 0.5}, headers=headers), 422)


@pytest.mark.slow
def test_who_may(
    client: TestClient, model_id: str, database: Database, new_worker: NewWorker
) -> None:
    """A key that reads may predict at once, and start no job; another owner sees neither."""
    with database.begin() as session:
        session.execute(update(Dataset).values(owner="ann"))
        made = {
            name: keys.create(session, owner, scope)[0]
            for name, owner, scope in [
                ("reader", "ann", Scope.READ),
                ("ann", "ann", Scope.WRITE),
                ("bob", "bob", Scope.WRITE),
            ]
        }
    by = {name: {"Authorization": f"Bearer {key}"} for name, key in made.items()}
    body = {"model": model_id, "images": [12]}
    assert client.post("/predict", json=body, headers=by["reader"]).status_code == 200
    refused(client.post("/predict", json=body, headers={**ASYNC, **by["reader"]}), 403)
    for more in ({}, ASYNC):
        refused(client.post("/predict", json=body, headers={**more, **by["bob"]}), 404)
    job_id = client.post("/predict", json=body, headers={**ASYNC, **by["ann"]}).json()["id"]
    execute(job_id, new_worker())
    url = f"/jobs/{job_id}/predictions"
    assert client.get(url, headers=by["ann"]).status_code == 200
    refused(client.get(url, headers=by["bob"]), 404)


@pytest.mark.slow
def test_jobs_of_other_kinds_have_other_results(
    client: TestClient, model_id: str, new_job: Callable[..., str]
) -> None:
    train = new_job(state=JobState.SUCCEEDED)
    assert "train" in refused(client.get(f"/jobs/{train}/predictions"), 409)["detail"]
    job_id = ask(client, model_id, images=[12])
    assert "predictions" in refused(client.get(f"/jobs/{job_id}/metrics"), 409)["detail"]


@pytest.mark.slow
def test_it_goes_with_its_data_set(
    client: TestClient,
    model_id: str,
    dataset_id: str,
    database: Database,
    new_worker: NewWorker,
    settings: Settings,
    remove_deleted: Callable[[Settings], None],
) -> None:
    job_id = ask(client, model_id, images=[12])
    url = f"/datasets/{dataset_id}?force=true"
    refused(client.delete(url), 409)
    execute(job_id, new_worker())
    assert client.delete(url).status_code == 204
    remove_deleted(settings)
    with database.read() as session:
        assert session.scalars(select(Prediction)).all() == []


def another_dataset(database: Database, storage: Storage) -> str:
    with database.begin() as session:
        (first,) = session.scalars(select(Dataset)).all()
        other = Dataset(
            name="other",
            status=first.status,
            images=0,
            annotations=0,
            report={},
            document_sha=first.document_sha,
        )
        session.add(other)
    return other.id


@pytest.mark.slow
def test_a_data_set_whose_model_is_in_use_is_not_deleted(
    client: TestClient, model_id: str, dataset_id: str, database: Database, storage: Storage
) -> None:
    other = another_dataset(database, storage)
    job_id = ask(client, model_id, images=[{"image": base64.b64encode(b"x").decode()}])
    with database.begin() as session:
        session.execute(update(Job).where(Job.id == job_id).values(dataset_id=other))
    problem = refused(client.delete(f"/datasets/{dataset_id}?force=true"), 409)
    assert problem["jobs"] == [job_id]
    assert job_id in problem["detail"]
    assert client.post(f"/jobs/{job_id}/cancel").status_code in (200, 202)
    assert client.delete(f"/datasets/{dataset_id}?force=true").status_code == 204


@pytest.fixture
def between_batches(monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[[], None]], None]:
    """Writes three images in two transactions, and has something happen between them."""

    def arrange(happens: Callable[[], None]) -> None:
        monkeypatch.setattr(deferred, "_BATCH", 2)
        monkeypatch.setattr(deferred, "time", SimpleNamespace(sleep=lambda _seconds: happens()))

    return arrange


def predictions(database: Database) -> tuple[str, int]:
    """The one prediction job, and how many images are written."""
    with database.read() as session:
        job_id = session.scalars(select(Job.id).where(Job.kind == "predict")).one()
        return job_id, len(session.scalars(select(Prediction.pk)).all())


@pytest.mark.slow
def test_many_images_are_written_in_batches_and_taken_together(
    client: TestClient,
    model_id: str,
    database: Database,
    new_worker: NewWorker,
    between_batches: Callable[[Callable[[], None]], None],
) -> None:
    seen = []

    def look() -> None:
        job_id, written = predictions(database)
        seen.append((written, execute(job_id, new_worker())))

    between_batches(look)
    job_id = ask(client, model_id, images=[12, 99, 12, 99, 12])
    assert seen == [(2, Outcome.REFUSED), (4, Outcome.REFUSED)]
    assert execute(job_id, new_worker()) is Outcome.ENDED
    found = client.get(f"/jobs/{job_id}/predictions").json()["predictions"]
    assert [(p["number"], p["image_id"]) for p in found] == list(enumerate([12, 99, 12, 99, 12]))


@pytest.mark.slow
def test_a_request_that_is_broken_off_between_two_batches_is_no_job(
    client: TestClient,
    model_id: str,
    database: Database,
    storage: Storage,
    settings: Settings,
    new_worker: NewWorker,
    expire: Callable[[str], None],
    remove_deleted: Callable[[Settings], None],
    between_batches: Callable[[Callable[[], None]], None],
) -> None:
    def breaks() -> None:
        raise RuntimeError("the plug is pulled")

    between_batches(breaks)
    images = [{"image": base64.b64encode(b"kept nowhere").decode()}, 12, 99]
    answer = client.post("/predict", json={"model": model_id, "images": images}, headers=ASYNC)
    assert answer.status_code == 500
    job_id, written = predictions(database)
    assert written == 2
    expire(job_id)
    assert execute(job_id, new_worker()) is Outcome.ENDED
    job = client.get(f"/jobs/{job_id}").json()
    assert (job["state"], job["reason"]) == ("failed", "request_broken_off")
    between_batches(lambda: None)
    remove_deleted(settings)
    assert not storage.exists(hashlib.sha256(b"kept nowhere").hexdigest())


@pytest.mark.slow
def test_a_job_whose_model_is_gone_fails_and_says_so(
    client: TestClient, model_id: str, database: Database, new_worker: NewWorker
) -> None:
    job_id = ask(client, model_id, images=[{"image": base64.b64encode(b"x").decode()}])
    with database.begin() as session:
        session.delete(session.get_one(Model, model_id))
    assert execute(job_id, new_worker()) is Outcome.ENDED
    job = client.get(f"/jobs/{job_id}").json()
    assert (job["state"], job["reason"]) == ("failed", "input_deleted")
    assert "deleted" in job["error"]


@pytest.mark.slow
def test_a_validated_models_own_score_threshold(
    client: TestClient, model_id: str, database: Database
) -> None:
    def scores(**params: Any) -> list[float]:
        answer = client.get("/predict", params={"model": model_id, "image": 12, **params})
        return [result["score"] for result in answer.json()]

    assert scores() == [0.9, 0.3]
    with database.begin() as session:
        session.get_one(Model, model_id).meta = {"validation": {"score_threshold": 0.6}}
    assert scores() == [0.9]
    assert scores(score=0.2) == [0.9, 0.3]
    jobs = ask(client, model_id, images=[12]), ask(client, model_id, images=[12], score=0.2)
    with database.read() as session:
        assert [session.get_one(Job, id_).request["score"] for id_ in jobs] == [0.6, 0.2]
