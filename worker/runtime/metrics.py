"""What a worker counts, served for Prometheus where SAPNET_WORKER_METRICS_PORT says so.

The counts lie in memory that is shared with processes forked later: Celery's child does the work
and lives for one task, while its parent answers Prometheus. Queues, leases and durations of all
workers together are the API's to tell (`app.jobs.fleet_metrics`).
"""

import functools
import threading
from collections.abc import Callable, Iterator
from multiprocessing import RawArray

import structlog
from prometheus_client import CollectorRegistry, start_http_server
from prometheus_client.core import CounterMetricFamily, Metric
from prometheus_client.process_collector import ProcessCollector

from app.observability.gpu import Gpus
from app.settings import Settings
from worker.runtime.types import Outcome, WorkerContext

log = structlog.get_logger()

_REGISTRY = CollectorRegistry()


class Tally:
    """A counter with one label, for this process and those that it forks.

    One process at a time may add: the lock is this process's own, so that a child killed while it
    holds it stops nobody else.
    """

    def __init__(self, name: str, about: str, label: str, *values: str) -> None:
        self._name, self._about, self._label, self._values = name, about, label, values
        self._counts = RawArray("d", len(values))
        self._lock = threading.Lock()
        _REGISTRY.register(self)

    def add(self, value: str) -> None:
        """Raises ValueError for a value that was not announced."""
        index = self._values.index(value)
        with self._lock:
            self._counts[index] += 1

    def collect(self) -> Iterator[Metric]:
        """Yield the counter, with a sample for each value of its label."""
        family = CounterMetricFamily(self._name, self._about, labels=[self._label])
        for value, count in zip(self._values, self._counts, strict=True):
            family.add_metric([value], count)
        yield family


CLAIMS = Tally("sapnet_worker_claims", "Jobs reached for.", "result", "taken", "refused")
HEARTBEATS = Tally(
    "sapnet_worker_heartbeats", "Leases renewed, or not.", "result", "renewed", "failed", "lost"
)
LEFT = Tally(
    "sapnet_worker_jobs_left",
    "How jobs were left.",
    "outcome",
    *("refused", "ended", "released", "delayed", "lost"),
)

Execute = Callable[[str, WorkerContext], Outcome]


def observed(execute: Execute) -> Execute:
    """Counts how jobs are left, and has each log line on the way say which job it is about."""

    @functools.wraps(execute)
    def counted(job_id: str, worker: WorkerContext) -> Outcome:
        with structlog.contextvars.bound_contextvars(job=job_id):
            outcome = execute(job_id, worker)
        LEFT.add(outcome.name.lower())
        return outcome

    return counted


def serve(settings: Settings) -> None:
    """Answer Prometheus from a thread, if a port is set.

    One that is taken is only warned of: the second worker of a machine works as well as the first.
    """
    if settings.worker_metrics_port is None:
        return
    registry = CollectorRegistry()
    registry.register(_REGISTRY)
    registry.register(Gpus())
    ProcessCollector(registry=registry)
    try:
        start_http_server(settings.worker_metrics_port, settings.host, registry)
    except OSError as error:
        port = settings.worker_metrics_port
        log.warning("no metrics of this worker: its port is taken", port=port, error=str(error))
