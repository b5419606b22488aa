"""Is it alive, can it work, and what has it been doing."""

from collections.abc import Callable

from fastapi import APIRouter, Request, Response
from fastapi.responses import JSONResponse, PlainTextResponse
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest
from prometheus_client.registry import REGISTRY

from app.auth.access import access, open_to_all
from app.auth.scope import Scope
from app.db.session import Database, DatabaseDep
from app.http.dependencies import StorageDep
from app.observability.log import log

router = APIRouter(tags=["health"])


@router.get("/healthz")
@open_to_all
async def healthz() -> dict[str, str]:
    """The process answers. Asks nothing of anybody else, and needs no thread."""
    return {"status": "ok"}


@router.get("/readyz", responses={503: {"description": "something it needs is not there"}})
@open_to_all
def readyz(database: DatabaseDep, storage: StorageDep) -> Response:
    """Database, its schema and storage can be used; 503, and which cannot, where not."""
    checks = {
        "database": _answer(lambda: _schema(database)),
        "storage": _answer(storage.ping),
    }
    ready = all(outcome == "ok" for outcome in checks.values())
    body = {"status": "ready" if ready else "not ready", "checks": checks}
    return JSONResponse(body, 200 if ready else 503)


@router.get("/metrics", response_class=PlainTextResponse)
@access(scope=Scope.METRICS)
def metrics(request: Request) -> Response:
    """Figures for Prometheus.

    Requests and predictions of this process, this machine's GPUs, and from the database the queues,
    jobs, leases and stages of all workers.
    """
    from app.observability.gpu import Gpus  # NVML's bindings, which nothing else of the API needs

    registry = CollectorRegistry()
    registry.register(request.app.state.fleet)
    registry.register(Gpus())
    body = generate_latest(REGISTRY) + generate_latest(registry)
    return Response(body, media_type=CONTENT_TYPE_LATEST)


def _schema(database: Database) -> str:
    from app.db import migrate as schema

    revision, wanted = schema.current(database), schema.head()
    if revision == wanted:
        return "ok"
    return f"its schema is {revision or 'empty'}, not {wanted}: run `sapnet-service migrate`"


def _answer(check: Callable[[], str | None]) -> str:
    """'ok', or what is wrong, without the addresses and secrets that a driver's error may hold."""
    try:
        return check() or "ok"
    except Exception as error:  # whatever a driver raises, it means: cannot be used
        log.warning("not ready", error=repr(error))
        return f"does not answer ({type(error).__name__})"
