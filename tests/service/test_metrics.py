"""GET /metrics: what operators read of queues, jobs, leases, stages, requests and predictions."""

from collections.abc import Callable
from datetime import timedelta
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pynvml
import pytest
from fastapi import FastAPI
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.parser import text_string_to_metric_families
from sqlalchemy import update
from starlette.testclient import TestClient

from app.db.columns import now
from app.db.models import Job, JobState
from app.db.session import Database
from app.jobs.fleet_metrics import Fleet
from app.main import create_app
from app.observability.gpu import Gpus
from app.predict.model_cache import PredictOptions
from app.settings import Settings

Read = Callable[..., float | None]
NewJob = Callable[..., str]


def figures(text: str) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    families = text_string_to_metric_families(text)
    samples = [s for family in families for s in family.samples]
    found = {(s.name, tuple(sorted(s.labels.items()))): s.value for s in samples}
    assert len(found) == len(samples), "a figure stands there twice"
    return found


@pytest.fixture
def read(client: TestClient) -> Read:
    """One figure of /metrics, by name and labels; None where there is none."""

    def value(name: str, **labels: str) -> float | None:
        answer = client.get("/metrics")
        assert answer.headers["content-type"].startswith("text/plain; version=")
        return figures(answer.text).get((name, tuple(sorted(labels.items()))))

    return value


@pytest.fixture
def database(app: FastAPI) -> Database:
    database: Database = app.state.database
    return database


@pytest.fixture
def new_job(add_job: NewJob, database: Database) -> NewJob:
    return partial(add_job, database)


@pytest.mark.slow
def test_an_empty_service_says_so(read: Read) -> None:
    assert read("sapnet_database_up") == 1
    assert read("sapnet_datasets") == 0
    for state in JobState:
        assert read("sapnet_jobs", state=state.value) == 0
    for queue in ("train", "io", "predict"):
        assert read("sapnet_queue_depth", queue=queue) == 0
        assert read("sapnet_queue_age_seconds", queue=queue) == 0
    assert read("sapnet_heartbeat_age_seconds") == read("sapnet_leases_expired") == 0
    assert read("sapnet_broker_up") is None  # there is none to ask


@pytest.mark.slow
def test_queues_have_a_depth_and_an_age(read: Read, new_job: NewJob) -> None:
    new_job(created_at=now() - timedelta(seconds=1000))
    new_job(created_at=now() - timedelta(seconds=500))
    new_job(kind="import", created_at=now() - timedelta(seconds=200))
    new_job(state=JobState.FAILED, created_at=now() - timedelta(hours=9))
    assert read("sapnet_queue_depth", queue="train") == 2
    assert read("sapnet_queue_depth", queue="io") == 1
    assert read("sapnet_queue_age_seconds", queue="train") == pytest.approx(1000, abs=60)
    assert read("sapnet_queue_age_seconds", queue="io") == pytest.approx(200, abs=60)
    assert read("sapnet_jobs", state="queued") == 3
    assert read("sapnet_jobs", state="failed") == 1
    assert read("sapnet_datasets") == 4


@pytest.mark.slow
def test_a_silent_worker_shows(read: Read, new_job: NewJob, settings: Settings) -> None:
    lease = timedelta(seconds=settings.lease_seconds)
    beats = [now() - timedelta(seconds=s) for s in (3, 20)]
    for beat in beats:
        new_job(state=JobState.RUNNING, attempt=2, lease_until=beat + lease)
    assert read("sapnet_heartbeat_age_seconds") == pytest.approx(20, abs=12)
    assert read("sapnet_leases_expired") == 0
    new_job(state=JobState.CANCELLING, attempt=1, lease_until=now() - timedelta(seconds=1))
    assert read("sapnet_leases_expired") == 1
    assert read("sapnet_active_job_claims") == 5


@pytest.mark.slow
def test_stages_of_ended_jobs_are_counted_once(
    read: Read, new_job: NewJob, database: Database
) -> None:
    def ended(seconds: dict[str, float] | None, ago: float, state: JobState) -> str:
        finished = now() - timedelta(seconds=ago)
        return new_job(
            state=state,
            started_at=finished - timedelta(seconds=400),
            finished_at=finished,
            report=None if seconds is None else {"seconds": seconds, "more": "x"},
        )

    ended({"proposals": 10.0, "train": 350.0}, 100, JobState.SUCCEEDED)
    ended(None, 90, JobState.FAILED)
    for _ in range(2):
        assert read("sapnet_job_stage_seconds_count", stage="train") == 1
        assert read("sapnet_job_stage_seconds_sum", stage="train") == 350
        assert read("sapnet_job_stage_seconds_bucket", stage="proposals", le="15.0") == 1
        assert read("sapnet_job_stage_seconds_bucket", stage="proposals", le="5.0") == 0
        assert read("sapnet_job_seconds_count", state="failed") == 1
    ended({"train": 1.0}, 95, JobState.SUCCEEDED_WITH_WARNINGS)  # committed late
    assert read("sapnet_job_stage_seconds_count", stage="train") == 2
    assert read("sapnet_job_seconds_sum", state="succeeded_with_warnings") == 400
    with database.begin() as session:  # a deleted job was there all the same
        session.execute(update(Job).values(finished_at=now() - timedelta(days=2)))
    assert read("sapnet_job_stage_seconds_count", stage="train") == 2


def test_without_a_database_the_rest_is_told(settings: Settings) -> None:
    registry = CollectorRegistry()
    registry.register(Fleet(Database("postgresql+psycopg://nobody@127.0.0.1:1/none"), settings))
    assert figures(generate_latest(registry).decode()) == {("sapnet_database_up", ()): 0}


@pytest.mark.slow
def test_without_a_broker_the_rest_is_told(make_settings: Callable[..., Settings]) -> None:
    app = create_app(make_settings(broker_url="redis://127.0.0.1:1/0"))
    with TestClient(app) as client:
        found = figures(client.get("/metrics").text)
    assert found[("sapnet_broker_up", ())] == 0
    assert found[("sapnet_database_up", ())] == 1


@pytest.mark.slow
def test_requests_by_route_and_status(app: FastAPI, client: TestClient, read: Read) -> None:
    @app.get("/bug/{name}")
    def bug(name: str) -> None:
        raise KeyError(name)

    def count(route: str, status: str, method: str = "GET") -> float:
        labels = {"method": method, "route": route, "status": status}
        counted = read("sapnet_http_requests_total", **labels)
        assert counted == read("sapnet_http_request_seconds_count", **labels)
        return counted or 0

    before = [count("/datasets/{dataset_id}", "404"), count("/bug/{name}", "500")]
    made_up = count("(none)", "405", "other")
    client.get("/datasets/a")
    client.head("/datasets/b")  # counted as the GET it becomes
    client.get("/bug/a")
    client.request("BREW", "/healthz")
    assert count("/datasets/{dataset_id}", "404") == before[0] + 2
    assert count("/bug/{name}", "500") == before[1] + 1
    assert count("/healthz", "405", "other") + count("(none)", "405", "other") == made_up + 1


@pytest.mark.slow
def test_predictions_cold_and_warm(app: FastAPI, read: Read) -> None:
    def count(model: str) -> float:
        return read("sapnet_predict_seconds_count", model=model) or 0

    stand_in = SimpleNamespace(predict=lambda image, score_threshold: [])
    app.state.runtime._loader = lambda path: stand_in
    before, waits = (count("cold"), count("warm")), read("sapnet_predict_wait_seconds_count")
    for _ in range(3):
        app.state.runtime.predict("0" * 64, lambda: Path("x"), None, PredictOptions(0.1))
    assert (count("cold"), count("warm")) == (before[0] + 1, before[1] + 2)
    assert read("sapnet_predict_wait_seconds_count") == (waits or 0) + 3


class TwoGpus:
    """NVML as it answers where the second GPU has fallen off the bus."""

    NVMLError = pynvml.NVMLError

    def nvmlDeviceGetCount(self) -> int:
        return 2

    def nvmlDeviceGetHandleByIndex(self, index: int) -> int:
        if index == 1:
            raise pynvml.NVMLError(pynvml.NVML_ERROR_GPU_IS_LOST)
        return index

    def nvmlDeviceGetName(self, handle: int) -> str:
        return "H100"

    def nvmlDeviceGetMemoryInfo(self, handle: int) -> Any:
        return SimpleNamespace(used=3 << 30, total=80 << 30)

    def nvmlDeviceGetUtilizationRates(self, handle: int) -> Any:
        return SimpleNamespace(gpu=40)


def test_gpu_memory() -> None:
    registry = CollectorRegistry()
    registry.register(Gpus(TwoGpus()))
    found = figures(generate_latest(registry).decode())
    gpu = (("gpu", "0"), ("name", "H100"))
    assert found == {
        ("sapnet_gpu_memory_used_bytes", gpu): 3 * 2**30,
        ("sapnet_gpu_memory_bytes", gpu): 80 * 2**30,
        ("sapnet_gpu_busy_ratio", gpu): 0.4,
    }
