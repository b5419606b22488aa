"""The protocol of Label Studio's machine learning backends, at /ls.

`/ls/NAME` is the same with the model of this id or alias. Label Studio has no bearer tokens for
backends: the key is the password of its basic authentication.
"""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from fastapi import APIRouter, Request
from fastapi.concurrency import run_in_threadpool

from app.auth.access import access
from app.auth.scope import Scope
from app.db.models import LabelStudioProject
from app.db.session import Database, DatabaseDep, SessionDep
from app.errors import Invalid, ValidationIssue
from app.http.dependencies import SettingsDep, StorageDep
from app.http.scratch import scratch_folder
from app.integrations.label_studio import projects, training
from app.integrations.label_studio.host import download_annotations, host_of
from app.integrations.label_studio.images import TaskImages
from app.integrations.label_studio.interface import read_interface
from app.integrations.label_studio.schemas import (
    HealthOut,
    JobStatusIn,
    JobStatusOut,
    PredictIn,
    PredictionOut,
    PredictOut,
    SetupIn,
    SetupOut,
    TrainIn,
    TrainingOut,
    VersionsOut,
    WebhookIn,
)
from app.observability.log import log
from app.settings import Settings

router = APIRouter(prefix="/ls", tags=["label studio"])
T = TypeVar("T", bound=Callable[..., Any])

START_TRAINING = "START_TRAINING"


def _route(method: str, path: str, status: int = 200) -> Callable[[T], T]:
    """At /ls and at /ls/{model}, with the key as a password."""

    def add(endpoint: T) -> T:
        scope = Scope.READ if method == "GET" else Scope.WRITE
        access(scope=scope, basic=True)(endpoint)
        for prefix, shown in (("", True), ("/{model}", False)):
            router.add_api_route(
                prefix + path,
                endpoint,
                methods=[method],
                status_code=status,
                include_in_schema=shown,
            )
        return endpoint

    return add


@_route("GET", "/health")
def health() -> HealthOut:
    """Whether the service answers."""
    return HealthOut()


@_route("POST", "/setup")
def setup(
    body: SetupIn,
    request: Request,
    database: DatabaseDep,
    storage: StorageDep,
    settings: SettingsDep,
) -> SetupOut:
    """Connect a project; Label Studio does so again before it asks for predictions."""
    from app.integrations.label_studio.predictions import labels_of  # loads numpy

    named = request.path_params.get("model")
    with database.begin() as session:
        project = projects.remember(session, body)
        model = projects.model_of(session, settings, project, named)
        chosen = projects.chosen_name(settings, project, named)
    if model is not None and chosen is not None:
        control = read_interface(body.label_config).for_predictions()
        if not labels_of(model, control):
            classes = ", ".join(category.name for category in model.categories[:10])
            detail = f"none of the model's classes ({classes}) is a label of {control.name!r}"
            hint = "name the labels as the classes"
            raise Invalid([ValidationIssue("body", "/schema", detail, hint)])
    training.train_what_is_ready(database, storage, settings, project.pk)
    return SetupOut(model_version=model.id if model else projects.NO_MODEL)


@_route("POST", "/predict")
def predict(
    body: PredictIn,
    request: Request,
    database: DatabaseDep,
    storage: StorageDep,
    settings: SettingsDep,
) -> PredictOut:
    """Predictions for tasks; with a context, the mask of what was drawn in the one task."""
    from app.integrations.label_studio.interactive import annotate  # both load numpy
    from app.integrations.label_studio.predictions import predict_tasks

    named = request.path_params.get("model")
    with database.read() as session:
        project = projects.find(session, body.project)
        owner = project.owner if project else ""
        context = body.params.context.result if body.params and body.params.context else []
        model = None if context else projects.model_of(session, settings, project, named)
    state = request.app.state
    images: TaskImages = state.label_studio_images
    host = host_of(settings, project) if project else None
    interface = read_interface(body.label_config or (project.label_config if project else ""))
    if context:
        control = interface.for_masks(context[0].get("to_name"))
        address = interface.address(body.tasks[0].data, control) if body.tasks else None
        try:
            image = images.get(owner, host, address or "")
            with state.clicks.slot():
                regions = annotate(state.click_model, settings, image, interface, context)
        except Invalid as error:  # of which Label Studio shows the status alone
            log.warning("label_studio.no_mask", project=body.project, error=error.detail)
            raise
        prediction = PredictionOut(result=regions, model_version=projects.NO_MODEL)
        return PredictOut(results=[prediction], model_version=projects.NO_MODEL)
    if model is None:
        return PredictOut(results=[[] for _ in body.tasks], model_version=projects.NO_MODEL)
    results = predict_tasks(
        state.runtime,
        storage,
        settings,
        model,
        interface,
        body.tasks,
        lambda address: images.get(owner, host, address),
        projects.parameters_of(project).score,
    )
    return PredictOut(results=results, model_version=model.id)


@_route("POST", "/webhook", 201)
async def webhook(
    body: WebhookIn,
    request: Request,
    database: DatabaseDep,
    storage: StorageDep,
    settings: SettingsDep,
) -> TrainingOut:
    """Events of a project. START_TRAINING trains on its annotated tasks; others do nothing."""
    if body.action != START_TRAINING:
        return TrainingOut(job=None)

    def start(folder: Path) -> str:
        project = _of_event(database, body)
        annotations = folder / "annotations.json"
        download_annotations(settings, project, annotations)
        title = body.project.title if body.project else None
        return training.make_dataset(
            database, storage, settings, project, annotations, folder, title
        )

    return await _in_scratch(request, settings, start)


@_route("POST", "/train", 201)
async def train(
    body: TrainIn,
    request: Request,
    database: DatabaseDep,
    storage: StorageDep,
    settings: SettingsDep,
) -> TrainingOut:
    """Train on the tasks that are sent, as releases of Label Studio before 1.5 do."""

    def start(folder: Path) -> str:
        with database.read() as session:
            project = training.check_connected(projects.find(session, body.project))
        annotations = folder / "annotations.json"
        annotations.write_text(json.dumps(body.annotations))
        return training.make_dataset(
            database, storage, settings, project, annotations, folder, None
        )

    return await _in_scratch(request, settings, start)


@_route("POST", "/job_status")
def job_status(body: JobStatusIn, session: SessionDep) -> JobStatusOut:
    """How far a training is that /webhook or /train has named."""
    return JobStatusOut(job_status=training.status_of(session, body.job))


@_route("GET", "/versions")
def versions(session: SessionDep) -> VersionsOut:
    """The models of the caller's projects; Label Studio does not say which project it asks for."""
    trained = [id_ for row in projects.every(session) for id_ in projects.versions(session, row)]
    return VersionsOut(versions=sorted(set(trained), reverse=True))


def _of_event(database: Database, body: WebhookIn) -> LabelStudioProject:
    with database.read() as session:
        return projects.get_of_event(session, body.project)


async def _in_scratch(
    request: Request, settings: Settings, start: Callable[[Path], str]
) -> TrainingOut:
    with request.app.state.label_studio_trainings.slot():  # each waits for Label Studio in a thread
        async with scratch_folder(settings.folder("uploads")) as folder:
            return TrainingOut(job=await run_in_threadpool(start, folder))
