"""What was decided about the masks of jobs becomes a new version of their data set."""

from sqlalchemy import select
from sqlalchemy.orm import Session

from app.datasets.schemas import DatasetOut
from app.db.models import AcceptanceRule, Annotation, Category, Dataset, Job, JobKind, PseudoMask
from app.db.session import Database
from app.errors import Conflict, Invalid, ValidationIssue
from app.jobs.service import get_delivered
from app.masks.review import counts
from app.masks.schemas import CorrectionsIn
from app.masks.version_change import Change, Classes, Reviewed, ids_of
from app.masks.versions import write_version


def create(database: Database, job_id: str, wanted: CorrectionsIn) -> DatasetOut:
    """Make a data set of the review of a job's masks; its parent is the job's data set.

    Of a training's masks, rejected objects are gone, accepted and corrected ones have their masks
    as confirmed; of those that are open all is as it was. Of predicted masks, accepted and
    corrected ones become annotations.

    Takes the database, not a session: it reads while it writes.

    Raises:
        NotFound: there is no such job, or the data set was deleted meanwhile.
        Conflict: a job has no masks, nothing was decided, or nothing would be left.
        Invalid: the jobs do not fit together.
    """
    with database.read() as session:
        jobs = together(session, [job_id, *wanted.also])
        parent = session.get_one(Dataset, jobs[0].dataset_id)
        check_decided(session, jobs)
        change = Change(
            classes=Classes(names_of(session, parent.id)),
            name=wanted.name,
            reviews=tuple(reviewed(session, job) for job in jobs),
            accepted_as=wanted.accepted_as,
        )
        ids = ids_of(session, Annotation.annotation_id, Annotation.dataset_id == parent.id)
    return write_version(database, parent, ids, change)


def reviewed(session: Session, job: Job) -> Reviewed:
    """Return what a version needs to know about a job's review."""
    ids = ids_of(session, PseudoMask.annotation_id, PseudoMask.job_id == job.id)
    rules = select(AcceptanceRule).where(AcceptanceRule.job_id == job.id)
    return Reviewed(job.id, job.kind, ids, tuple(session.scalars(rules.order_by("id"))))


def names_of(session: Session, dataset_id: str) -> dict[int, str]:
    """Return the names of a data set's classes by id, in their order."""
    query = select(Category).where(Category.dataset_id == dataset_id).order_by(Category.pk)
    return {category.category_id: category.name for category in session.scalars(query)}


def together(session: Session, job_ids: list[str], pointer: str = "/also") -> list[Job]:
    """Look up the jobs whose reviews one version is made from.

    Args:
        pointer: to their ids in the request's body.

    Raises:
        NotFound: there is no such job.
        Conflict: one has no masks.
        Invalid: they do not fit together.
    """
    jobs = [get_delivered(session, id_) for id_ in dict.fromkeys(job_ids)]
    issues: list[ValidationIssue] = []
    if len({job.dataset_id for job in jobs}) > 1:
        hint = "name jobs of one data set"
        issues.append(ValidationIssue("body", pointer, "a job is on another data set", hint))
    if sum(job.kind is JobKind.TRAIN for job in jobs) > 1:
        hint = "make a version of one after the other"
        detail = "two trainings have each a mask for every annotation"
        issues.append(ValidationIssue("body", pointer, detail, hint))
    if issues:
        raise Invalid(issues)
    return jobs


def check_decided(session: Session, jobs: list[Job]) -> None:
    """Raise Conflict where nothing was decided about the masks of any of the jobs."""
    for job in jobs:
        status = counts(session, job)
        if status.accepted or status.corrected or status.rejected:
            return
    raise Conflict(
        "Nothing has been decided about the masks of this job: accept, correct or reject some "
        "first, by PATCH /masks/{mask_id}."
    )
