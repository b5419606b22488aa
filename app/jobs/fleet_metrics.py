"""What the rows say about all workers together: whoever is asked, the answer is the same.

Celery's children live for one task and embedded workers come and go, so what they counted would go
with them. The rows stay: queues, jobs, leases and the seconds of every stage are read from them.
"""

import threading
from collections.abc import Iterator
from datetime import datetime, timedelta

from prometheus_client import CollectorRegistry, Histogram
from prometheus_client.core import GaugeMetricFamily, Metric
from sqlalchemy import func, select
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import Session

from app.auth.keys import ANYONE
from app.db.columns import now
from app.db.models import ACTIVE, Dataset, Job, JobState
from app.db.session import Database
from app.jobs.kinds import KINDS, QUEUES, SHARD
from app.jobs.queue import depths
from app.jobs.shards import count_due
from app.observability.log import log
from app.settings import Settings

BUCKETS = (1, 5, 15, 60, 300, 900, 3_600, 4 * 3_600, 12 * 3_600, 24 * 3_600)
_OVERLAP = timedelta(minutes=10)  # rows may be committed later than the moment they bear
_LEASED = (JobState.RUNNING, JobState.CANCELLING)


class Fleet:
    """A collector of prometheus-client: reads the database each time that it is asked.

    A database that does not answer leaves its families out, and `sapnet_database_up` at 0.
    """

    def __init__(self, database: Database, settings: Settings) -> None:
        # As one who may see everything: what was deleted does not count.
        self._database, self._settings = database.for_request(caller=ANYONE), settings
        self._finished = _Finished()

    def collect(self) -> Iterator[Metric]:
        """Yield the metric families of jobs, queues, leases and the broker."""
        up = GaugeMetricFamily("sapnet_database_up", "Whether the database answers.", 1)
        try:
            with self._database.read() as session:
                yield from [*_jobs(session), *_queues(session), *self._leases(session)]
                self._finished.take(session)
        except SQLAlchemyError as error:
            log.warning("no figures from the database", error=type(error).__name__)
            up = GaugeMetricFamily("sapnet_database_up", "Whether the database answers.", 0)
        yield up
        yield from self._finished.registry.collect()
        if self._settings.broker_url is not None:
            yield from _broker(self._settings.broker_url)

    def _leases(self, session: Session) -> Iterator[Metric]:
        """A worker renews its job's lease with each heartbeat, so the lease tells of the last."""
        moment = now()
        leased = select(func.min(Job.lease_until), func.count()).where(Job.state.in_(_LEASED))
        earliest, _ = session.execute(leased).one()
        lease = timedelta(seconds=self._settings.lease_seconds)
        age = (moment - (earliest - lease)).total_seconds() if earliest else 0.0
        silent = GaugeMetricFamily(
            "sapnet_heartbeat_age_seconds",
            "Since the last heartbeat of the running job that has been silent for longest.",
        )
        silent.add_metric([], max(age, 0.0))
        yield silent
        late = select(func.count()).where(Job.state.in_(_LEASED), Job.lease_until < moment)
        expired = GaugeMetricFamily(
            "sapnet_leases_expired", "Running jobs whose worker fell silent for too long."
        )
        expired.add_metric([], session.scalar(late) or 0)
        yield expired
        claims = GaugeMetricFamily(
            "sapnet_active_job_claims", "Claims of the jobs that are not over, all together."
        )
        attempts = select(func.sum(Job.attempt)).where(Job.state.in_(ACTIVE))
        claims.add_metric([], session.scalar(attempts) or 0)
        yield claims


def _jobs(session: Session) -> Iterator[Metric]:
    jobs = GaugeMetricFamily("sapnet_jobs", "Jobs by state.", labels=["state"])
    rows = session.execute(select(Job.state, func.count()).group_by(Job.state))
    counted = {row[0]: row[1] for row in rows}
    for state in JobState:
        jobs.add_metric([state.value], counted.get(state, 0))
    yield jobs
    datasets = GaugeMetricFamily("sapnet_datasets", "Data sets.")
    datasets.add_metric([], session.scalar(select(func.count()).select_from(Dataset)) or 0)
    yield datasets
    table = Dataset.__table__
    deleted = select(func.count()).select_from(table).where(table.c.deleted_at <= now())
    removing = GaugeMetricFamily(
        "sapnet_datasets_removing", "Deleted data sets whose rows and files a worker removes."
    )
    removing.add_metric([], session.scalar(deleted) or 0)
    yield removing


def _queues(session: Session) -> Iterator[Metric]:
    depth = GaugeMetricFamily(
        "sapnet_queue_depth", "Jobs that wait; in the queue shard, shards.", labels=["queue"]
    )
    age = GaugeMetricFamily(
        "sapnet_queue_age_seconds",
        "Since the job that waits was asked for; the oldest of its queue.",
        labels=["queue"],
    )
    query = select(Job.kind, func.count(), func.min(Job.created_at)).group_by(Job.kind)
    waiting: dict[str, int] = dict.fromkeys(QUEUES, 0)
    oldest: dict[str, datetime] = {}
    for kind, count, first in session.execute(query.where(Job.state == JobState.QUEUED)):
        queue = KINDS[kind].queue
        waiting[queue] = waiting.get(queue, 0) + count
        oldest[queue] = min(first, oldest.get(queue, first))
    waiting[SHARD] = count_due(session)
    for queue, count in waiting.items():
        depth.add_metric([queue], count)
        seconds = (now() - oldest[queue]).total_seconds() if queue in oldest else 0.0
        age.add_metric([queue], max(seconds, 0.0))
    yield depth
    yield age


def _broker(broker_url: str) -> Iterator[Metric]:
    """Messages are hints: their number tells of the broker, not of the work there is."""
    messages = GaugeMetricFamily(
        "sapnet_broker_messages", "Messages that the broker holds.", labels=["queue"]
    )
    try:
        for queue, count in depths(broker_url).items():
            messages.add_metric([queue], count)
        up = 1
    except OSError:
        up = 0
    yield GaugeMetricFamily("sapnet_broker_up", "Whether the broker answers.", up)
    yield messages


class _Finished:
    """Histograms of the jobs that are over, each counted once in the life of this process."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self._jobs = Histogram(
            "sapnet_job_seconds",
            "From a job's first claim to its end.",
            ["state"],
            buckets=BUCKETS,
            registry=self.registry,
        )
        self._stages = Histogram(
            "sapnet_job_stage_seconds",
            "Stages of the jobs that succeeded.",
            ["stage"],
            buckets=BUCKETS,
            registry=self.registry,
        )
        self._lock = threading.Lock()
        self._since: datetime | None = None
        self._counted: dict[str, datetime] = {}

    def take(self, session: Session) -> None:
        with self._lock:
            query = select(
                Job.id, Job.state, Job.started_at, Job.finished_at, Job.report["seconds"]
            )
            query = query.where(Job.finished_at.is_not(None), Job.started_at.is_not(None))
            if self._since is not None:
                query = query.where(Job.finished_at >= self._since - _OVERLAP)
            for job_id, state, started, finished, stages in session.execute(query):
                if job_id in self._counted:
                    continue
                self._counted[job_id] = finished
                self._since = max(finished, self._since or finished)
                self._jobs.labels(state.value).observe((finished - started).total_seconds())
                for stage, seconds in (stages or {}).items():
                    self._stages.labels(stage).observe(seconds)
            if self._since is not None:
                old = self._since - _OVERLAP
                self._counted = {
                    job_id: finished
                    for job_id, finished in self._counted.items()
                    if finished >= old
                }
