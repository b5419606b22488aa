"""What a worker counts: also in the child that Celery forks for a task; served on a port."""

import multiprocessing
import socket
import urllib.request
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import pytest
import structlog
from prometheus_client.parser import text_string_to_metric_families

from app.settings import Settings
from worker.runtime import metrics
from worker.runtime.types import Outcome


@pytest.fixture
def tally(monkeypatch: pytest.MonkeyPatch) -> Iterator[metrics.Tally]:
    yield (made := metrics.Tally("sapnet_test", "A test's.", "result", "good", "bad"))
    metrics._REGISTRY.unregister(made)


def counts(tally: metrics.Tally) -> list[float]:
    (family,) = tally.collect()
    return [sample.value for sample in family.samples]


@pytest.mark.slow
def test_a_child_counts_for_its_parent(tally: metrics.Tally) -> None:
    tally.add("good")
    child = multiprocessing.get_context("fork").Process(target=tally.add, args=("bad",))
    child.start()
    child.join()
    tally.add("good")
    assert child.exitcode == 0
    assert counts(tally) == [2, 1]
    with pytest.raises(ValueError, match="not in tuple"):
        tally.add("ugly")


def test_served_on_a_port(make_settings: Callable[..., Settings], tally: metrics.Tally) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    settings = make_settings(worker_metrics_port=port)
    tally.add("bad")
    metrics.serve(settings)
    metrics.serve(settings)  # another worker of this machine: it works, and warns
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics") as answer:
        families = {f.name: f for f in text_string_to_metric_families(answer.read().decode())}
    found = {s.labels["result"]: s.value for s in families["sapnet_test"].samples}
    assert found == {"good": 0, "bad": 1}
    assert {"sapnet_worker_claims", "sapnet_worker_heartbeats"} <= set(families)


def test_no_port_is_no_server(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(metrics, "start_http_server", pytest.fail)
    metrics.serve(settings)


def test_a_job_left_is_counted_and_its_lines_name_it() -> None:
    seen: list[dict[str, Any]] = []

    def execute(job_id: str, worker: Any) -> Outcome:
        seen.append(structlog.contextvars.get_contextvars())
        return Outcome.DELAYED

    before = counts(metrics.LEFT)
    assert metrics.observed(execute)("j1", SimpleNamespace()) is Outcome.DELAYED  # type: ignore[arg-type]
    assert sum(counts(metrics.LEFT)) == sum(before) + 1
    assert seen == [{"job": "j1"}]
    assert structlog.contextvars.get_contextvars() == {}


def test_every_outcome_has_a_count() -> None:
    for outcome in Outcome:
        metrics.LEFT.add(outcome.name.lower())
