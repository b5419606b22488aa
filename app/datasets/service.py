"""Data sets: look up, delete. Functions that take the session, or the database where something
must follow the commit."""

import shutil

from sqlalchemy import delete as delete_rows
from sqlalchemy import select
from sqlalchemy.orm import Session

from app import blobs
from app.datasets.schemas import CategoryOut, DatasetOut, DatasetSummary, Report
from app.db import Database
from app.errors import Conflict, NotFound
from app.models import ACTIVE, Category, Dataset, Image, Job, Model, is_id
from app.settings import Settings
from app.storage import Storage


def page(session: Session, limit: int, before: str | None) -> list[Dataset]:
    """The newest first; those older than the id `before`."""
    query = select(Dataset).order_by(Dataset.id.desc()).limit(limit)
    if before is not None:
        query = query.where(Dataset.id < before)
    return list(session.scalars(query))


def get(session: Session, dataset_id: str) -> Dataset:
    dataset = session.get(Dataset, dataset_id) if is_id(dataset_id) else None
    if dataset is None:
        raise NotFound("data set", dataset_id)
    return dataset


def summary(dataset: Dataset) -> DatasetSummary:
    return DatasetSummary.model_validate(dataset, from_attributes=True)


def described(session: Session, dataset: Dataset) -> DatasetOut:
    return DatasetOut(
        **summary(dataset).model_dump(),
        categories=[
            CategoryOut(id=c.category_id, name=c.name, annotations=c.annotations)
            for c in categories(session, dataset.id)
        ],
        report=Report(**dataset.report),
    )


def categories(session: Session, dataset_id: str) -> list[Category]:
    query = select(Category).where(Category.dataset_id == dataset_id)
    return list(session.scalars(query.order_by(Category.category_id)))


def image_page(session: Session, dataset_id: str, limit: int, after: int | None) -> list[Image]:
    """By ascending image id; those above `after`."""
    get(session, dataset_id)
    query = select(Image).where(Image.dataset_id == dataset_id)
    if after is not None:
        query = query.where(Image.image_id > after)
    return list(session.scalars(query.order_by(Image.image_id).limit(limit)))


def image(session: Session, dataset_id: str, image_id: int) -> Image:
    """By the user's own id."""
    get(session, dataset_id)
    query = select(Image).where(Image.dataset_id == dataset_id, Image.image_id == image_id)
    found = session.scalars(query).one_or_none()
    if found is None:
        raise NotFound("image", image_id)
    return found


def delete(
    database: Database, storage: Storage, settings: Settings, dataset_id: str, *, force: bool
) -> None:
    """Remove a data set, and the blobs that nothing else names.

    Raises Conflict while a job of it is queued or running; and, unless `force`, where it has jobs
    at all, since these go with it, with their masks and models.
    """
    with database.begin() as session:
        dataset = get(session, dataset_id)
        query = select(Job.id, Job.state).where(Job.dataset_id == dataset_id)
        jobs = {row.id: row.state for row in session.execute(query)}
        active = [id for id, state in jobs.items() if state in ACTIVE]
        if active:
            raise Conflict("Jobs of this data set are not over; cancel them first.", jobs=active)
        if jobs and not force:
            raise Conflict(
                "Jobs of this data set, their masks and models would go with it; "
                "add ?force=true to remove them too.",
                jobs=list(jobs),
            )
        shas = blobs.named_by(
            session,
            {Dataset: Dataset.id == dataset_id, Image: Image.dataset_id == dataset_id}
            | {Job: Job.dataset_id == dataset_id, Model: Model.job_id.in_(jobs)},
        )
        session.execute(delete_rows(Dataset).where(Dataset.id == dataset.id))
    for job_id in jobs:
        shutil.rmtree(settings.data_dir.resolve() / "jobs" / job_id, ignore_errors=True)
    blobs.forget(database, storage, shas)
