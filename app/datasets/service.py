"""Data sets: look up, delete."""

from sqlalchemy import ColumnElement, and_, false, or_, select
from sqlalchemy.orm import Session

from app.datasets import removal
from app.datasets.schemas import CategoryOut, DatasetOut, DatasetSummary, ImportProgress, Report
from app.db.columns import is_id
from app.db.models import (
    ACTIVE,
    Annotation,
    Category,
    Dataset,
    DatasetStatus,
    Image,
    Job,
    JobKind,
    Model,
)
from app.errors import Conflict, NotFound
from app.http.pagination import Page, Paging, paginate
from app.registry import aliases


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


def delete(session: Session, dataset_id: str, *, force: bool) -> None:
    """Hide a data set, and all that hangs on it, at once.

    A worker removes the rows and the blobs: see `app.datasets.removal`.

    Raises:
        NotFound: there is no such data set.
        Conflict: a job of it, or one that uses a model or the images of it, is queued or running; a
            model of it has an alias; or, unless `force`, it has jobs at all, since these go with
            it, with their masks and models.
    """
    get(session, dataset_id)
    # Held by whoever adds to it (see `app.jobs.submit.hold_dataset`), so that none is overlooked.
    session.execute(select(Dataset.id).where(Dataset.id == dataset_id).with_for_update())
    query = select(Job.id, Job.state, Job.kind).where(Job.dataset_id == dataset_id)
    jobs = session.execute(query).all()
    if active := [job.id for job in jobs if job.state in ACTIVE]:
        raise Conflict("Jobs of this data set are not over; cancel them first.", jobs=active)
    if users := _jobs_that_need(session, dataset_id):
        raise Conflict(
            "Jobs of other data sets use a model or the images of this one, and are not over: "
            f"{', '.join(users[:10])}. Wait for them, or cancel them, first.",
            jobs=users,
        )
    made = [job.id for job in jobs if job.kind is not JobKind.IMPORT]
    if made and not force:
        raise Conflict(
            "Jobs of this data set, their masks and models would go with it; "
            "add ?force=true to remove them too.",
            jobs=made,
        )
    if named := aliases.of_dataset(session, dataset_id):
        raise Conflict(
            f"Models of this data set have an alias: {', '.join(named)}. "
            "Move it to another model, or remove it, first.",
            aliases=named,
        )
    if not removal.hide(session, dataset_id):
        raise NotFound("data set", dataset_id)


def _jobs_that_need(session: Session, dataset_id: str) -> list[str]:
    """Return the jobs of other data sets that are not over and need this one.

    They use a model of it, or import a later version of it. Core tables: whose jobs they are makes
    no difference.
    """
    datasets, jobs, models = Dataset.__table__.c, Job.__table__.c, Model.__table__.c
    own_jobs = select(jobs.id).where(jobs.dataset_id == dataset_id)
    own_models = select(models.id).where(models.job_id.in_(own_jobs))
    heirs = select(datasets.id).where(datasets.parent_id == dataset_id)
    importing = and_(jobs.kind == JobKind.IMPORT, jobs.dataset_id.in_(heirs))
    needed = or_(jobs.model_id.in_(own_models), importing)
    return list(session.scalars(select(jobs.id).where(jobs.state.in_(ACTIVE), needed)))
