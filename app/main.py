"""The API: routers, error table, what lives as long as the process. Loads no torch."""

import shutil
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from importlib.metadata import version

from app import loading

with loading():
    from fastapi import FastAPI, Request, Response
    from fastapi.concurrency import run_in_threadpool

    from app import errors
    from app.auth.access import open_to_all
    from app.auth.middleware import AuthMiddleware
    from app.auth.oidc.provider import Provider
    from app.datasets.endpoints import router as datasets
    from app.datasets.ranking_endpoints import router as dataset_ranking
    from app.datasets.statistics_endpoints import router as dataset_statistics
    from app.db.session import Database
    from app.exports.endpoints import router as exports
    from app.http import health
    from app.http import web_page as page
    from app.http.capacity import Capacity
    from app.http.content_negotiation import preferred
    from app.http.idempotency import IdempotencyMiddleware
    from app.http.openapi import Api
    from app.integrations.label_studio.endpoints import router as label_studio
    from app.integrations.label_studio.images import TaskImages
    from app.jobs.endpoints import router as jobs
    from app.jobs.event_endpoints import router as job_events
    from app.jobs.event_stream import Feed
    from app.jobs.fleet_metrics import Fleet
    from app.jobs.model_endpoints import router as imported_models
    from app.jobs.onnx_endpoints import router as onnx
    from app.jobs.reaper import Reaper
    from app.jobs.webhook_endpoints import router as webhooks
    from app.masks.click_model import ClickModel
    from app.masks.endpoints import router as masks
    from app.masks.review_endpoints import router as review
    from app.masks.version_endpoints import router as versions
    from app.observability import logging as logs
    from app.observability import tracing
    from app.predict.endpoints import router as predict
    from app.predict.label_endpoints import router as labelling
    from app.predict.model_cache import Runtime
    from app.registry.endpoints import router as models
    from app.settings import Settings
    from app.storage import garbage_collection as blobs
    from app.storage.store import make_storage
    from app.uploads.endpoints import router as upload_routes

ABOUT = "One point per object in, instance masks and a trained segmenter out."


def create_app(settings: Settings | None = None) -> FastAPI:
    """The application. Its database must have been migrated (`app.db.migrate.upgrade`)."""
    settings = settings or Settings()
    logs.configure(settings.log_level, settings.log_json, *tracing.start(settings, "api"))
    app = Api(
        title="SAPNet++",
        description=ABOUT,
        version=_version(),
        lifespan=_lifespan,
        docs_url=None,  # FastAPI's own load scripts of another host: see app.http.web_page
        redoc_url=None,
    )
    app.state.settings = settings
    app.state.database = Database(settings.database)
    app.state.storage = make_storage(settings)
    app.state.runtime = Runtime(settings.predict_cache_models, slots=settings.predict_slots)
    app.state.clicks = Capacity("clicks", settings.predict_slots)
    app.state.click_model = ClickModel(settings.click_cache_images)
    app.state.label_studio_trainings = Capacity(
        "trainings that Label Studio asks for", settings.predict_slots
    )
    app.state.label_studio_images = TaskImages(settings, app.state.runtime.fetches)
    app.state.fleet = Fleet(app.state.database, settings)
    app.state.feed = Feed(app.state.database, stream_seconds=settings.event_stream_seconds)
    errors.install(app)
    app.add_middleware(IdempotencyMiddleware, database=app.state.database, settings=settings)
    app.state.oidc = Provider(settings) if settings.oidc_issuer is not None else None
    app.add_middleware(
        AuthMiddleware,
        database=app.state.database,
        settings=settings,
        provider=app.state.oidc,
    )
    for router in (
        health.router,
        datasets,
        dataset_statistics,
        dataset_ranking,
        upload_routes,
        jobs,
        job_events,
        webhooks,
        masks,
        exports,
        review,
        versions,
        models,
        onnx,
        imported_models,
        predict,
        labelling,
        label_studio,
    ):
        app.include_router(router)
    if app.state.oidc is not None:
        from app.auth.oidc import login

        app.state.logins = Capacity("logins", login.AT_ONCE)
        app.include_router(login.router)
    app.add_api_route(
        "/",
        _index,
        tags=["about"],
        summary="What there is",
        response_model=dict[str, str],
        responses={200: {"content": {"text/html": {}}}},
    )
    app.add_api_route(
        "/problems/{slug}",
        _problem_kind,
        tags=["about"],
        summary="What the type of a problem means",
    )
    page.install(app)
    return app


@asynccontextmanager
async def _lifespan(app: FastAPI) -> AsyncIterator[None]:
    await run_in_threadpool(_clean_up, app.state.settings)
    reaper = Reaper(app.state.database, app.state.settings)
    reaper.start()
    async with app.state.feed.running():
        yield
    await run_in_threadpool(reaper.stop)
    app.state.database.dispose()


def _clean_up(settings: Settings) -> None:
    """Remove what a process that was killed in an upload left behind, once it is surely dead."""
    limit = time.time() - blobs.STALE_AFTER.total_seconds()
    for folder in settings.folder("uploads").iterdir():
        if folder.stat().st_mtime < limit:
            shutil.rmtree(folder, ignore_errors=True)


@open_to_all
def _index(request: Request, response: Response) -> Response | dict[str, str]:
    """The addresses of what there is; for those who prefer HTML, as browsers do, the page."""
    if preferred(request, "application/json", "text/html") == "text/html":
        return page.page()
    response.headers["Vary"] = "Accept"
    return {
        "name": "SAPNet++",
        "about": ABOUT,
        "version": _version(),
        "documentation": "/docs",
        "openapi": "/openapi.json",
        "datasets": "/datasets",
        "jobs": "/jobs",
        "models": "/models",
        "health": "/readyz",
    }


@open_to_all
def _problem_kind(slug: str) -> dict[str, str | int]:
    """What the `type` of a problem means."""
    for kind in errors.PROBLEMS.values():
        if kind.slug == slug:
            return {"type": f"/problems/{slug}", "title": kind.title, "status": kind.status}
    raise errors.NotFound("kind of problem", slug)


def _version() -> str:
    return version("sapnet-service")
