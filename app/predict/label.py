"""Images to be labelled by a model: its masks go into a review, as those of a training do."""

from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from app.datasets.service import get as get_dataset
from app.db.models import Category, Dataset, DatasetStatus, Image, Job, JobKind
from app.db.session import Database
from app.errors import Conflict, Invalid, ValidationIssue
from app.http import idempotency
from app.jobs.schemas import JobCreated
from app.jobs.submit import new_job, submit, take_out_request
from app.predict.schemas import LabelRequest
from app.predict.service import ModelInfo, find_model, least_score
from app.settings import Settings
from app.storage.garbage_collection import pinned
from app.storage.store import Storage
from app.webhooks import service as webhooks

_BATCH = 500  # below SQLite's limit on bound values
_EXAMPLES = 10


def create(database: Database, storage: Storage, settings: Settings, request: LabelRequest) -> Job:
    """Put a labelling into the queue; its id is sent once it is committed.

    Which images have no annotations is looked up by the worker: a data set never changes.

    Raises:
        NotFound: there is no such model, or no such data set.
        Conflict: the data set is not ready.
        Invalid: with every issue of the request.
    """
    with database.read() as session:
        model = find_model(session, request.model)
        issues = webhooks.issues(settings, request.webhook)
        dataset = _dataset(session, request.dataset_id or model.dataset_id)
        classes, missing = _classes(session, dataset, model, issues)
        issues += _image_issues(session, dataset, request.images)
    if issues:
        raise Invalid(issues)
    asked = {
        "score": least_score(settings, model, request.score),
        "images": request.images,
        "classes": {str(model_class): own for model_class, own in classes.items()},
    }
    job = new_job(JobKind.LABEL, dataset.id, asked, model.id)
    if missing:
        names = ", ".join(missing[:_EXAMPLES])
        more = f" and {len(missing) - _EXAMPLES} more" if len(missing) > _EXAMPLES else ""
        job.warnings = [f"classes of the model that the data set lacks are left out: {names}{more}"]
    blobs = take_out_request(job)
    with pinned(database, storage, blobs):
        for blob in blobs.values():
            storage.put_bytes(blob)
        with database.begin() as session:
            submit(session, settings, job, request.webhook)
            made = JobCreated.model_validate(job)
            idempotency.save_response(session, 202, f"/jobs/{job.id}", made)
    return job


def _dataset(session: Session, dataset_id: str | None) -> Dataset:
    if dataset_id is None:
        detail = "the model was imported and has no data set of its own"
        raise Invalid([ValidationIssue("body", "/dataset_id", detail, "name a data set")])
    dataset = get_dataset(session, dataset_id)
    if dataset.status is not DatasetStatus.READY:
        raise Conflict(f"The data set is {dataset.status}.", dataset_status=dataset.status)
    return dataset


def _classes(
    session: Session, dataset: Dataset, model: ModelInfo, issues: list[ValidationIssue]
) -> tuple[dict[int, int], list[str]]:
    """Find the data set's class of each class of the model: by name, else, of a version, by id.

    Returns:
        Ids of the data set by ids of the model, and the names of classes that have none.
    """
    query = select(Category.category_id, Category.name).where(Category.dataset_id == dataset.id)
    own = {row.name: row.category_id for row in session.execute(query)}
    matched = {c.id: own[c.name] for c in model.categories if c.name in own}
    if len(matched) < len(model.categories) and _is_version(session, dataset, model.dataset_id):
        free = set(own.values()) - set(matched.values())
        matched |= {c.id: c.id for c in model.categories if c.id not in matched and c.id in free}
    missing = [c.name for c in model.categories if c.id not in matched]
    if not matched:
        detail = f"none of the model's classes is one of the data set's: {', '.join(missing[:20])}"
        hint = "add them to a new version of the data set, or name a model of its classes"
        issues.append(ValidationIssue("body", "/model", detail, hint))
    return matched, missing


def _is_version(session: Session, dataset: Dataset, of: str | None) -> bool:
    """Whether a data set is another one, or comes from it: a class may have a new name then."""
    version: Dataset | None = dataset
    visited: set[str] = set()
    while version is not None and version.id not in visited:
        if version.id == of:
            return True
        visited.add(version.id)
        version = session.get(Dataset, version.parent_id) if version.parent_id else None
    return False


def _image_issues(
    session: Session, dataset: Dataset, ids: list[int] | None
) -> list[ValidationIssue]:
    of_dataset = Image.dataset_id == dataset.id
    if ids is None:
        empty = select(Image.pk).where(of_dataset, Image.annotations == 0).limit(1)
        if session.scalar(empty) is not None:
            return []
        detail = "every image of the data set has annotations"
        hint = "name the ids of images, or add images to a new version of the data set"
        return [ValidationIssue("body", "/images", detail, hint)]
    there: set[int] = set()
    for start in range(0, len(ids), _BATCH):
        some = select(Image.image_id).where(
            of_dataset, Image.image_id.in_(ids[start : start + _BATCH])
        )
        there.update(session.scalars(some))
    return [
        ValidationIssue(
            "body", f"/images/{n}", f"the data set has no image {id_}", "see /datasets/{id}/images"
        )
        for n, id_ in enumerate(ids)
        if id_ not in there
    ]


def images_of(session: Session, job: Job, request: dict[str, Any]) -> list[tuple[int, str]]:
    """Return id and digest of each image that a job is to label, by id."""
    query = select(Image.image_id, Image.sha256).where(Image.dataset_id == job.dataset_id)
    if request["images"] is None:
        query = query.where(Image.annotations == 0)
        return [(row[0], row[1]) for row in session.execute(query.order_by(Image.image_id))]
    wanted = sorted(set(request["images"]))
    matched: list[tuple[int, str]] = []
    for start in range(0, len(wanted), _BATCH):
        some = query.where(Image.image_id.in_(wanted[start : start + _BATCH]))
        matched += [(row[0], row[1]) for row in session.execute(some.order_by(Image.image_id))]
    return matched
