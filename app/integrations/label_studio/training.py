"""Trainings that Label Studio asks for: a project's points become a data set, then a job.

The annotations are taken at once; a worker fetches the images, and the training is put into the
queue in turn. That it is wanted stands in the project's row from the transaction on in which the
data set becomes ready, so whoever finds it there starts it: the worker, or the next request of
Label Studio's.
"""

from pathlib import Path

from sqlalchemy import select, update
from sqlalchemy.orm import Session

from app.auth.keys import Caller, Scope
from app.auth.ownership import seen_by
from app.datasets.image_sources import FROM_DOCUMENT, ImageHost
from app.db.columns import is_id
from app.db.models import Job, JobKind, JobState, LabelStudioProject
from app.db.session import Database, rows_changed
from app.errors import AppError, Conflict, NotFound
from app.http.multipart import FilePart, Form
from app.integrations.label_studio import projects
from app.integrations.label_studio.host import host_of
from app.jobs import service as jobs
from app.observability.log import log
from app.settings import Settings
from app.storage.store import Storage

_STATUS = {JobState.QUEUED: "queued", JobState.RUNNING: "started", JobState.CANCELLING: "started"}


def make_dataset(
    database: Database,
    storage: Storage,
    settings: Settings,
    project: LabelStudioProject,
    annotations: Path,
    folder: Path,
    title: str | None,
) -> str:
    """Put the import of a project's annotations into the queue, and with it its training.

    Args:
        annotations: Label Studio's JSON export; it is removed.
        folder: for what is put together.
        title: the project's.

    Returns:
        The id of the import's job.

    Raises:
        Invalid, QuotaExceeded: as for any data set.
    """
    from app.datasets.create import create_dataset  # loads the readers of formats, and numpy

    number = project.project.partition(".")[0]
    name = f"Label Studio {number}: {title}"[:200] if title else f"Label Studio {number}"
    part = FilePart("annotations", f"label-studio-{number}.json", annotations)
    printable = "".join(c for c in name if c.isprintable())
    texts = {"name": printable, "images_url": FROM_DOCUMENT}
    form = Form(texts=texts, lists={k: [v] for k, v in texts.items()}, files=[part])
    _, made = create_dataset(
        database, storage, settings, form, folder, respond_async=True, label_studio=project.pk
    )
    assert made.report.progress is not None
    return made.report.progress.job_id


def image_host(database: Database, settings: Settings, project: int) -> ImageHost | None:
    """Where the images of a project are, with the credentials for it; None: it is gone."""
    with database.read() as session:
        row = session.get(LabelStudioProject, project)
        return None if row is None else host_of(settings, row)


def want_training(session: Session, project: int, dataset_id: str) -> None:
    """Remember, in a transaction that makes a data set ready, that it is to be trained on."""
    row = session.get(LabelStudioProject, project, with_for_update=True)
    if row is not None:
        projects.add_dataset(row, dataset_id)


def train_what_is_ready(
    database: Database, storage: Storage, settings: Settings, project: int
) -> Job | None:
    """Put the training that a project waits for into the queue, once, whoever is asked first."""
    from app.jobs import training  # loads the checks of documents, and numpy

    with database.begin() as session:
        row = session.get(LabelStudioProject, project)
        if row is None or row.to_train is None:
            return None
        dataset_id, parameters = row.to_train, projects.parameters_of(row)
        owner = row.owner
        taken = update(LabelStudioProject).where(
            LabelStudioProject.pk == project, LabelStudioProject.to_train == dataset_id
        )
        if not rows_changed(session, taken.values(to_train=None)):
            return None
    # the database may know no caller here: the training is the project's owner's, and what it
    # names and how many there may be are his
    caller = Caller(owner or None, Scope.WRITE if owner else Scope.ADMIN)
    try:
        request = parameters.train_request(dataset_id)
        return training.create(seen_by(database, caller, settings), storage, settings, request)
    except AppError as error:  # there is nobody to tell but the log
        log.error("label_studio.no_training", project=project, error=error.detail)
        return None


def status_of(session: Session, job_id: str) -> str:
    """How far a training is, in Label Studio's words.

    Args:
        job_id: of the import that it follows.

    Raises:
        NotFound: there is no such job.
    """
    if not is_id(job_id):
        raise NotFound("job", job_id)
    job = jobs.get(session, job_id)
    if job.kind is not JobKind.IMPORT or job.dataset_id is None:
        raise NotFound("training", job_id)
    if job.state is JobState.SUCCEEDED:
        query = select(Job).where(Job.dataset_id == job.dataset_id, Job.kind == JobKind.TRAIN)
        trained = session.scalars(query.order_by(Job.id)).first()
        if trained is None:
            return "queued"
        job = trained
        if job.state in (JobState.SUCCEEDED, JobState.SUCCEEDED_WITH_WARNINGS):
            return "finished"
    return _STATUS.get(job.state, "failed")


def check_connected(project: LabelStudioProject | None) -> LabelStudioProject:
    """Raises Conflict where a project has not connected the service."""
    if project is None:
        raise Conflict("The project has not connected this service: connect the model again.")
    return project
