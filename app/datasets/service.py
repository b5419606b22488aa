"""Data sets: look up, delete.

Functions that take the session, or the database where something must follow the commit.
"""

import shutil

from sqlalchemy import ColumnElement, false, select
from sqlalchemy import delete as delete_rows
from sqlalchemy.orm import Session

from app.datasets.schemas import CategoryOut, DatasetOut, DatasetSummary, ImportProgress, Report
from app.db.columns import is_id
from app.db.models import (
    ACTIVE,
    Annotation,
    Category,
    Dataset,
    DatasetStatus,
    Export,
    Image,
    ImportFile,
    Job,
    JobKind,
    Model,
    Prediction,
)
from app.db.session import Database
from app.errors import Conflict, NotFound
from app.http.pagination import Page, Paging, paginate
from app.registry import aliases
from app.settings import Settings
from app.storage import garbage_collection as blobs
from app.storage.store import Storage


def page(session: Session, paging: Paging) -> Page[Dataset]:
    """Return data sets, the newest first."""
    return paginate(session, select(Dataset), Dataset.id, paging, descending=True)


def get(session: Session, dataset_id: str) -> Dataset:
    """Look a data set up.

    Raises:
        NotFound: there is none of this id.
    """
    dataset = session.get(Dataset, dataset_id) if is_id(dataset_id) else None
    if dataset is None:
        raise NotFound("data set", dataset_id)
    return dataset


def summary(dataset: Dataset) -> DatasetSummary:
    """Return what lists of data sets have of one."""
    return DatasetSummary.model_validate(dataset, from_attributes=True)


def described(session: Session, dataset: Dataset) -> DatasetOut:
    """Return a data set as the API shows it: with its classes, and the report of its import."""
    return DatasetOut(
        **summary(dataset).model_dump(),
        categories=[
            CategoryOut(id=c.category_id, name=c.name, annotations=c.annotations)
            for c in categories(session, dataset)
        ],
        report=_report(session, dataset),
    )


def _report(session: Session, dataset: Dataset) -> Report:
    if dataset.status is not DatasetStatus.IMPORTING:
        return Report(**dataset.report)
    query = select(Job).where(Job.dataset_id == dataset.id, Job.kind == JobKind.IMPORT)
    job = session.scalars(query).one()
    names = ("state", "stage", "step", "of", "progress", "error")
    how_far = {name: getattr(job, name) for name in names}
    return Report(progress=ImportProgress(job_id=job.id, **how_far))


def categories(session: Session, dataset: Dataset) -> list[Category]:
    """Return the classes of a data set by id; none before it is ready."""
    if dataset.status is not DatasetStatus.READY:
        return []
    query = select(Category).where(Category.dataset_id == dataset.id)
    return list(session.scalars(query.order_by(Category.category_id)))


def image_page(session: Session, dataset_id: str, paging: Paging) -> Page[Image]:
    """Return images by their id; none while they are being imported.

    Raises:
        NotFound: there is no such data set.
    """
    query = select(Image).where(_of_ready(session, Image, dataset_id))
    return paginate(session, query, Image.image_id, paging)


def image(session: Session, dataset_id: str, image_id: int) -> Image:
    """Look an image up by the user's own id.

    Raises:
        NotFound: there is no such data set, no such image in it, or it is not ready.
    """
    status = get(session, dataset_id).status
    query = select(Image).where(Image.dataset_id == dataset_id, Image.image_id == image_id)
    row = session.scalars(query).one_or_none()
    if row is None or status is not DatasetStatus.READY:
        raise NotFound("image", image_id)
    return row


def annotation_page(
    session: Session, dataset_id: str, image_id: int | None, paging: Paging
) -> Page[Annotation]:
    """Return annotations by their id; none while they are being imported.

    Args:
        image_id: of an image, for the annotations of that one alone.

    Raises:
        NotFound: there is no such data set.
    """
    query = select(Annotation).where(_of_ready(session, Annotation, dataset_id))
    if image_id is not None:
        query = query.where(Annotation.image_id == image_id)
    return paginate(session, query, Annotation.annotation_id, paging)


def _of_ready(
    session: Session, table: type[Image] | type[Annotation], dataset_id: str
) -> ColumnElement[bool]:
    """The rows of a dataset that is ready, and none of another."""
    ready = get(session, dataset_id).status is DatasetStatus.READY
    return table.dataset_id == dataset_id if ready else false()


def delete(
    database: Database, storage: Storage, settings: Settings, dataset_id: str, *, force: bool
) -> None:
    """Remove a data set, and the blobs that nothing else names.

    Raises:
        NotFound: there is no such data set.
        Conflict: a job of it, or one that uses a model of it, is queued or running; a model of it
            has an alias; or, unless `force`, it has jobs at all, since these go with it, with their
            masks and models.
    """
    with database.begin() as session:
        dataset = get(session, dataset_id)
        query = select(Job.id, Job.state, Job.kind).where(Job.dataset_id == dataset_id)
        rows = session.execute(query).all()
        jobs = {row.id: row.state for row in rows}
        active = [id for id, state in jobs.items() if state in ACTIVE]
        if active:
            raise Conflict("Jobs of this data set are not over; cancel them first.", jobs=active)
        own_models = select(Model.id).where(Model.job_id.in_(jobs))
        users = session.scalars(
            select(Job.id).where(Job.model_id.in_(own_models), Job.state.in_(ACTIVE))
        ).all()
        if users:
            raise Conflict(
                "Jobs of other data sets use a model of this one, and are not over: "
                f"{', '.join(users[:10])}. Wait for them, or cancel them, first.",
                jobs=[*users],
            )
        made = [row.id for row in rows if row.kind is not JobKind.IMPORT]
        if made and not force:
            raise Conflict(
                "Jobs of this data set, their masks and models would go with it; "
                "add ?force=true to remove them too.",
                jobs=made,
            )
        if named := aliases.of_jobs(session, list(jobs)):
            raise Conflict(
                f"Models of this data set have an alias: {', '.join(named)}. "
                "Move it to another model, or remove it, first.",
                aliases=named,
            )
        shas = blobs.named_by(
            session,
            {Dataset: Dataset.id == dataset_id, Image: Image.dataset_id == dataset_id}
            | {ImportFile: ImportFile.dataset_id == dataset_id}
            | {Job: Job.dataset_id == dataset_id, Model: Model.job_id.in_(jobs)}
            | {Export: Export.id.in_(jobs), Prediction: Prediction.job_id.in_(jobs)},
        )
        session.execute(delete_rows(Dataset).where(Dataset.id == dataset.id))
    for job_id in jobs:
        shutil.rmtree(settings.data_dir.resolve() / "jobs" / job_id, ignore_errors=True)
    blobs.forget(database, storage, shas)
