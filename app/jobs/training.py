"""Trainings that are asked for: checked, and put into the queue or only told about."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from app.db.columns import is_id
from app.db.models import Dataset, DatasetStatus, Image, Job, Model
from app.db.session import Database
from app.errors import BlobMissing, Conflict, Invalid, NotFound, ValidationIssue
from app.http import idempotency
from app.jobs import given_proposals, plan, sam_checkpoints
from app.jobs.documents import text_of
from app.jobs.schemas import EstimateOut, Given, JobCreated, TrainPlan, TrainRequest
from app.jobs.submit import submit, take_out_request
from app.registry.service import get as get_model
from app.settings import Settings
from app.storage.garbage_collection import pinned
from app.storage.store import Storage
from app.webhooks import service as webhooks
from sapnet.config import AUTO
from sapnet.config.choice import Choice
from sapnet.config.methods import METHODS
from sapnet.config.presets import PRESETS
from sapnet.config.resolve import body_difference, resolve_config
from sapnet.data.annotations.coco import check_truth
from sapnet.data.exif import AS_STORED, orientation_of
from sapnet.errors import InvalidConfig, InvalidDataset


@dataclass(frozen=True)
class _Checked:
    """A request that can be done.

    Attributes:
        preset: the one that is asked for, or that was chosen where the request leaves it open.
        reasons: why it was chosen.
        proposals: settings of the generator.
        initial: the model to go on from.
    """

    preset: str
    reasons: tuple[str, ...]
    proposals: dict[str, Any]
    truth: bytes | None
    initial: Model | None


def _check(
    database: Database, storage: Storage, settings: Settings, request: TrainRequest
) -> _Checked:
    asked = request.proposals
    with database.read() as session:
        is_empty = not _ready_dataset(session, request.dataset_id).annotations
        initial = get_model(session, request.from_model) if request.from_model else None
        images = _images(session, request.dataset_id) if request.truth is not None else {}
        given = (
            given_proposals.issues(session, request.dataset_id, asked.document)
            if isinstance(asked, Given)
            else []
        )
        proposals = settings.proposals if asked is None else dict(asked)
        choice = Choice(request.preset, ())
        if request.preset == AUTO:
            choice = plan.choice_of(session, settings, request.dataset_id, proposals, initial)
    kind = str(proposals.get("kind"))
    resolved = request.model_copy(update={"preset": choice.preset})
    issues = _config_issues(resolved, kind)
    issues += _model_issues(resolved, kind, initial) if initial and not issues else []
    truth = None if request.truth is None else text_of(request.truth)
    issues += _truth_issues(storage, truth, images) if truth is not None else []
    issues += given
    if is_empty:
        hint = "annotate some images first, or let a model label them: POST /jobs/label"
        issues.append(
            ValidationIssue("body", "/dataset_id", "there is no annotation to train on", hint)
        )
    issues += sam_checkpoints.issues(settings, dict(asked or {}))
    issues += webhooks.issues(settings, request.webhook)
    if issues:
        raise Invalid(issues)
    return _Checked(choice.preset, choice.reasons, proposals, truth, initial)


def dry_run(
    database: Database, storage: Storage, settings: Settings, request: TrainRequest
) -> TrainPlan:
    """Check a training as `create` does, and say what it would do; nothing is stored.

    Raises:
        NotFound, Conflict, Invalid: as `create`.
    """
    checked = _check(database, storage, settings, request)
    kind = str(checked.proposals.get("kind"))
    body = plan.given_body(settings, checked.initial)
    config = resolve_config(request.method, checked.preset, request.overrides, kind, body)
    with database.read() as session:
        dataset = _ready_dataset(session, request.dataset_id)
        has_truth = checked.truth is not None or dataset.truth_sha is not None
        workload = plan.workload_of(session, dataset.id, checked.proposals, has_truth=has_truth)
        estimate = plan.estimate_of(session, config, workload, plan.this_machine(settings))
    return TrainPlan(
        preset=checked.preset,
        reasons=list(checked.reasons),
        estimate=EstimateOut.model_validate(estimate),
    )


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
    checked = _check(database, storage, settings, request)
    truth, initial = checked.truth, checked.initial
    job = Job(
        dataset_id=request.dataset_id,
        method=request.method,
        preset=request.preset,
        seed=request.seed,
        request={"overrides": request.overrides, "proposals": checked.proposals},
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


def _ready_dataset(session: Session, dataset_id: str) -> Dataset:
    dataset = session.get(Dataset, dataset_id) if is_id(dataset_id) else None
    if dataset is None:
        raise NotFound("data set", dataset_id)
    if dataset.status is not DatasetStatus.READY:
        raise Conflict(f"The data set is {dataset.status}.", dataset_status=dataset.status)
    return dataset


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
    stored = model.meta.get("config") or {}
    body = (stored.get("backbone") or {}).get("name")
    config = resolve_config(request.method, request.preset, request.overrides, proposals, body)
    differs = body_difference(config, stored)
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
