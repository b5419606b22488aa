"""Jobs: requested, listed, cancelled. The work itself is the worker's."""

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sqlalchemy import false, select, update
from sqlalchemy.orm import Session

from app.db.columns import is_id, now
from app.db.models import (
    SUCCESSFUL,
    Dataset,
    DatasetStatus,
    EventType,
    Image,
    Job,
    JobKind,
    JobState,
    Model,
    Reason,
)
from app.db.session import Database, rows_changed
from app.errors import BlobMissing, Conflict, Invalid, NotFound, ValidationIssue
from app.http import idempotency
from app.http.pagination import Page, Paging, paginate
from app.jobs import events, given_proposals, sam_checkpoints
from app.jobs.documents import text_of
from app.jobs.kinds import KINDS, result_of
from app.jobs.schemas import Given, JobCreated, TrainRequest
from app.jobs.submit import submit, take_out_request
from app.registry.service import get as get_model
from app.settings import Settings
from app.storage.garbage_collection import pinned
from app.storage.store import Storage
from app.webhooks import service as webhooks
from sapnet.config.methods import METHODS
from sapnet.config.presets import PRESETS
from sapnet.config.resolve import body_difference, resolve_config
from sapnet.data.annotations.coco import check_truth
from sapnet.data.exif import orientation_of
from sapnet.data.orientation import AS_STORED
from sapnet.errors import InvalidConfig, InvalidDataset


def create(
    database: Database,
    storage: Storage,
    settings: Settings,
    request: TrainRequest,
) -> Job:
    """Put a training into the queue; its id is sent once it is committed.

    Takes the database, not a session: the truth is stored before the row is written.

    Raises:
        NotFound: there is no such data set, or no such model.
        Conflict: the data set is not ready.
        Invalid: with every issue of the request.
    """
    asked = request.proposals
    with database.read() as session:
        _ready_dataset(session, request.dataset_id)
        initial = get_model(session, request.from_model) if request.from_model else None
        images = _images(session, request.dataset_id) if request.truth is not None else {}
        given = (
            given_proposals.issues(session, request.dataset_id, asked.document)
            if isinstance(asked, Given)
            else []
        )
    proposals = settings.proposals if asked is None else dict(asked)
    kind = str(proposals.get("kind"))
    issues = _config_issues(request, kind)
    issues += _model_issues(request, kind, initial) if initial and not issues else []
    truth = None if request.truth is None else text_of(request.truth)
    issues += _truth_issues(storage, truth, images) if truth is not None else []
    issues += given
    issues += sam_checkpoints.issues(settings, dict(asked or {}))
    issues += webhooks.issues(settings, request.webhook)
    if issues:
        raise Invalid(issues)
    job = Job(
        dataset_id=request.dataset_id,
        method=request.method,
        preset=request.preset,
        seed=request.seed,
        request={"overrides": request.overrides, "proposals": proposals},
    )
    blobs = take_out_request(job)
    if truth is not None:
        job.truth_sha = hashlib.sha256(truth).hexdigest()
        blobs[job.truth_sha] = truth
    if initial is not None:
        job.from_model, job.initial_sha = initial.id, initial.sha256
    with pinned(database, storage, [*blobs, *([initial.sha256] if initial else [])]):
        for blob in blobs.values():
            storage.put_bytes(blob)
        with database.begin() as session:
            _ready_dataset(session, request.dataset_id)
            submit(session, settings, job, request.webhook)
            idempotency.save_response(
                session, 202, f"/jobs/{job.id}", JobCreated.model_validate(job)
            )
    return job


def get(session: Session, job_id: str) -> Job:
    """Look a job up.

    Raises:
        NotFound: there is none of this id.
    """
    job = session.get(Job, job_id) if is_id(job_id) else None
    if job is None:
        raise NotFound("job", job_id)
    return job


def get_successful(session: Session, job_id: str) -> Job:
    """Look up a training that has results.

    Raises:
        NotFound: there is no such job.
        Conflict: it is no training, or it has no results; with its state.
    """
    job = get(session, job_id)
    if job.kind is not JobKind.TRAIN:
        kind = KINDS[job.kind].label
        raise Conflict(f"The job is no training ({kind}); its result is {result_of(job)}.")
    if job.state not in SUCCESSFUL:
        raise Conflict(
            f"The job has no results: it is {job.state}.", state=job.state, reason=job.reason
        )
    return job


def page(
    session: Session,
    paging: Paging,
    state: JobState | None = None,
    dataset_id: str | None = None,
) -> Page[Job]:
    """Return jobs, the newest first."""
    query = select(Job)
    if state is not None:
        query = query.where(Job.state == state)
    if dataset_id is not None:
        query = query.where(Job.dataset_id == dataset_id if is_id(dataset_id) else false())
    return paginate(session, query, Job.id, paging, descending=True)


def cancel(session: Session, job_id: str) -> Job:
    """Cancel a job: at once while it is queued; a running one stops within seconds.

    Asking again changes nothing.

    Raises:
        NotFound: there is no such job.
        Conflict: it is over already.
    """
    get(session, job_id)
    queued = {
        "state": JobState.CANCELLED,
        "finished_at": now(),
        "lease_until": None,
        "error": None,
    }
    steps: list[tuple[JobState, Mapping[str, Any]]] = [
        (JobState.QUEUED, queued),
        (JobState.RUNNING, {"state": JobState.CANCELLING}),
    ]
    requested = {"cancel_requested": True, "reason": Reason.CANCEL_REQUESTED}
    for state, values in steps:
        query = update(Job).where(Job.id == job_id, Job.state == state)
        if rows_changed(session, query.values({**values, **requested})):
            events.append_state(session, job_id, (EventType.CANCEL_REQUESTED, {}))
    job = get(session, job_id)
    session.refresh(job)
    if not job.cancel_requested:
        raise Conflict(f"The job is over: it {_past(job.state)}.", state=job.state)
    return job


def log_file(storage: Storage, settings: Settings, job: Job) -> Path | None:
    """Return the log of a job that is over, or of one that runs on this machine.

    None where there is none (yet).
    """
    if job.log_sha is not None:
        return storage.local_path(job.log_sha)
    path = settings.data_dir.resolve() / "jobs" / job.id / "log.txt"
    return path if path.is_file() else None


def last_lines(path: Path, count: int) -> str:
    """Return the last `count` lines of a text, read from its end: at most a megabyte of it."""
    with path.open("rb") as file:
        size = file.seek(0, 2)
        file.seek(max(0, size - (1 << 20)))
        lines = file.read().decode("utf-8", "replace").splitlines(keepends=True)
    return "".join(lines[-count:])


def _past(state: JobState) -> str:
    return {JobState.FAILED: "failed", JobState.CANCELLED: "was cancelled"}.get(state, "succeeded")


def _ready_dataset(session: Session, dataset_id: str) -> None:
    dataset = session.get(Dataset, dataset_id) if is_id(dataset_id) else None
    if dataset is None:
        raise NotFound("data set", dataset_id)
    if dataset.status is not DatasetStatus.READY:
        raise Conflict(f"The data set is {dataset.status}.", status=dataset.status)


def _config_issues(request: TrainRequest, proposals: str) -> list[ValidationIssue]:
    """Each on its own first, so that all are named; then all together, as the run resolves them.

    proposals: the kind of generator.
    """
    method, preset, overrides = request.method, request.preset, request.overrides
    known_method = method if method in METHODS else "sapnet++"
    known_preset = preset if preset in PRESETS else "cpu"
    tries: list[tuple[str, str, str, dict[str, Any]]] = [
        ("/method", method, known_preset, {}),
        ("/preset", known_method, preset, {}),
        *(
            (
                f"/overrides/{name.replace('~', '~0').replace('/', '~1')}",
                known_method,
                known_preset,
                {name: value},
            )
            for name, value in overrides.items()
        ),
    ]
    issues = [issue for attempt in tries if (issue := _config_issue(*attempt, proposals))]
    whole = _config_issue("/overrides", known_method, known_preset, overrides, proposals)
    return issues or ([whole] if whole else [])


def _config_issue(
    pointer: str, method: str, preset: str, overrides: Mapping[str, Any], proposals: str
) -> ValidationIssue | None:
    try:
        resolve_config(method, preset, overrides, proposals)
    except InvalidConfig as error:
        return ValidationIssue("body", pointer, str(error))
    return None


def _model_issues(request: TrainRequest, proposals: str, model: Model) -> list[ValidationIssue]:
    """Whether a training with these settings can go on from the model."""
    config = resolve_config(request.method, request.preset, request.overrides, proposals)
    differs = body_difference(config, model.meta.get("config") or {})
    if differs is None:
        return []
    hint = "train with a preset of the same body"
    detail = f"the model is of another architecture: {differs}"
    return [ValidationIssue("body", "/from_model", detail, hint)]


def _images(session: Session, dataset_id: str) -> dict[int, Any]:
    """Image id -> height, width, sha256."""
    columns = select(Image.image_id, Image.height, Image.width, Image.sha256)
    rows = session.execute(columns.where(Image.dataset_id == dataset_id))
    return {row.image_id: row for row in rows}


def _truth_issues(
    storage: Storage, truth: bytes, images: Mapping[int, Any]
) -> list[ValidationIssue]:
    def orientation(image_id: int) -> int:
        try:
            return orientation_of(storage.local_path(images[image_id].sha256))
        except BlobMissing:
            return AS_STORED

    sizes = {id_: (row.height, row.width) for id_, row in images.items()}
    try:
        check_truth(truth, sizes=sizes, orientations=orientation)
    except InvalidDataset as error:
        return [
            ValidationIssue("body", f"/truth{i.pointer}", i.problem, i.hint) for i in error.issues
        ]
    return []
