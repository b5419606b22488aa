"""Is it alive, can it work, and what has it been doing."""

from collections.abc import Callable

import structlog
from fastapi import APIRouter, Response
from fastapi.responses import JSONResponse
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, Gauge, generate_latest
from prometheus_client.registry import REGISTRY
from sqlalchemy import func, select

from app import schema
from app.db import Database, DatabaseDep, SessionDep
from app.deps import StorageDep
from app.models import Dataset, Job, JobState

router = APIRouter(tags=["health"])
log = structlog.get_logger()


@router.get("/healthz")
def healthz() -> dict[str, str]:
    """The process answers. Asks nothing of anybody else."""
    return {"status": "ok"}


@router.get("/readyz", responses={503: {"description": "something it needs is not there"}})
def readyz(database: DatabaseDep, storage: StorageDep) -> Response:
    """Database, its schema and storage can be used; 503, and which cannot, where not."""
    checks = {
        "database": _answer(lambda: _schema(database)),
        "storage": _answer(storage.ping),
    }
    ready = all(outcome == "ok" for outcome in checks.values())
    body = {"status": "ready" if ready else "not ready", "checks": checks}
    return JSONResponse(body, 200 if ready else 503)


@router.get("/metrics", response_class=Response)
def metrics(session: SessionDep) -> Response:
    """For Prometheus: requests of this process, and what the database holds."""
    counts = CollectorRegistry()
    jobs = Gauge("sapnet_jobs", "Jobs by state.", ["state"], registry=counts)
    rows = session.execute(select(Job.state, func.count()).group_by(Job.state))
    by_state = {state: count for state, count in rows}  # noqa: C416
    for state in JobState:
        jobs.labels(state.value).set(by_state.get(state, 0))
    datasets = Gauge("sapnet_datasets", "Data sets.", registry=counts)
    datasets.set(session.scalar(select(func.count()).select_from(Dataset)) or 0)
    body = generate_latest(REGISTRY) + generate_latest(counts)
    return Response(body, media_type=CONTENT_TYPE_LATEST)


def _schema(database: Database) -> str:
    found, wanted = schema.current(database), schema.head()
    if found == wanted:
        return "ok"
    return f"its schema is {found or 'empty'}, not {wanted}: run `sapnet-service migrate`"


def _answer(check: Callable[[], str | None]) -> str:
    """'ok', or what is wrong, without the addresses and secrets that a driver's error may hold."""
    try:
        return check() or "ok"
    except Exception as error:  # whatever a driver raises, it means: cannot be used
        log.warning("not ready", error=repr(error))
        return f"does not answer ({type(error).__name__})"
