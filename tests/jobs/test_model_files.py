"""The files of a model: what a training leaves, and ONNX, which a job makes when it is asked to."""

from collections.abc import Callable
from typing import Any

import pytest
from fastapi.testclient import TestClient

from app.db.models import Job
from worker.jobs.execute import execute
from worker.runtime.types import Outcome, WorkerContext

pytestmark = pytest.mark.both_stacks

NewWorker = Callable[..., WorkerContext]


@pytest.fixture
def model(new_job: Callable[..., str], new_worker: NewWorker, job_row: Callable[[str], Job]) -> str:
    job_id = new_job()
    assert execute(job_id, new_worker("--curves")) is Outcome.ENDED
    return str(job_row(job_id).model_id)


def refused(answer: Any, status: int) -> dict[str, Any]:
    kind = answer.headers["content-type"]
    assert (answer.status_code, kind) == (status, "application/problem+json"), answer.text
    body: dict[str, Any] = answer.json()
    return body


@pytest.mark.slow
def test_files_that_a_training_leaves(client: TestClient, model: str) -> None:
    weights = client.get(f"/models/{model}/weights")
    assert weights.content.startswith(b"safe weights of seed 3")
    assert f"model-{model}.safetensors" in weights.headers["content-disposition"]
    part = client.get(f"/models/{model}/weights", headers={"Range": "bytes=0-3"})
    assert (part.status_code, part.content) == (206, b"safe")
    curves = client.get(f"/models/{model}/curves.png")
    assert (curves.headers["content-type"], curves.content[:4]) == ("image/png", b"\x89PNG")
    same = client.get(
        f"/models/{model}/curves.png", headers={"If-None-Match": curves.headers["etag"]}
    )
    assert same.status_code == 304


@pytest.mark.slow
def test_files_that_it_does_not(
    client: TestClient, new_job: Any, new_worker: NewWorker, job_row: Any
) -> None:
    job_id = new_job()
    execute(job_id, new_worker())
    model = job_row(job_id).model_id
    assert "truth" in refused(client.get(f"/models/{model}/curves.png"), 404)["detail"]
    assert "POST" in refused(client.get(f"/models/{model}/onnx"), 404)["detail"]
    for name in ("weights", "curves.png", "onnx"):
        refused(client.get(f"/models/none/{name}"), 404)


@pytest.mark.slow
def test_onnx_is_made_once(client: TestClient, model: str, new_worker: NewWorker) -> None:
    url = f"/models/{model}/onnx"
    first = client.post(url)
    assert first.status_code == 202, first.text
    job_id = first.json()["id"]
    assert first.headers["location"] == f"/jobs/{job_id}"
    assert client.post(url).json()["id"] == job_id  # it is on its way
    job = client.get(f"/jobs/{job_id}").json()
    assert (job["kind"], job["model_id"]) == ("onnx", model)
    assert execute(job_id, new_worker()) is Outcome.ENDED
    answer = client.get(url)
    assert answer.content.startswith(b"onnx of weights of seed")
    assert f"model-{model}.onnx" in answer.headers["content-disposition"]
    assert client.post(url).json() == {"id": job_id, "state": "succeeded"}
    assert "/onnx" in refused(client.get(f"/jobs/{job_id}/metrics"), 409)["detail"]


@pytest.mark.slow
def test_onnx_by_an_alias_and_after_a_failure(
    client: TestClient, model: str, new_worker: NewWorker
) -> None:
    client.put(
        "/models/aliases/best", json={"model": model}, headers={"If-None-Match": "*"}
    ).raise_for_status()
    first = client.post("/models/best/onnx").json()["id"]
    assert client.post(f"/jobs/{first}/cancel").status_code == 202
    second = client.post("/models/best/onnx").json()["id"]
    assert first != second
    execute(second, new_worker())
    answer = client.get("/models/best/onnx")
    assert (answer.status_code, answer.headers["cache-control"]) == (200, "no-cache")
    refused(client.post("/models/none/onnx"), 404)
