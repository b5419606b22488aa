"""A training, done by a process of its own.

From rows to what the process needs, and from its results to rows.
"""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from app.db.columns import new_id
from app.db.models import Category, Dataset, Image, Job, JobKind, Model
from app.errors import BlobMissing
from app.jobs.submit import request_of
from app.masks import stream
from worker.jobs.context import JobContext, SubprocessHandler
from worker.jobs.mask_rows import box_columns, finite, record_masks
from worker.jobs.points import points_document
from worker.jobs.shard_leader import make_proposals
from worker.jobs.transitions import (
    LOG,
    BadResult,
    finish_job,
    stored_files,
    success,
)
from worker.runtime.lease import renew_lease
from worker.runtime.workdir import write_job_file, write_json

SETBACKS_TOGETHER = 2
"""Attempts in a row without progress before a training goes on in one process: there a batch that
does not fit into the GPU's memory is halved, and no process waits for another."""
FILES = {
    "model": "model.pt",
    "weights": "model.safetensors",
    "gallery": "gallery.png",
    "curves": "curves.png",
    "report": "report.html",
}
"""That a training leaves, beside its documents."""
EXTRA = ("selected", "refined", "proposal_source", "doubts", "candidates")
"""Of a mask, beside its columns."""


def prepare(ctx: JobContext) -> Path:
    """Write the job file and what it names; its path. Images that storage has lost are left out.

    Where there are many images, their proposals are made first, by all workers that are free.

    Raises:
        BlobMissing: storage has none of the images, or not the ground truth.
        StopRequested: with S3, every image is fetched here, which takes its time.
        LeaseLost: the job is no longer ours.
    """
    settings, storage, workdir = ctx.settings, ctx.storage, ctx.workdir
    with ctx.database.read() as session:
        job = session.get_one(Job, ctx.job_id)
        request = request_of(storage, job)
        dataset = session.get_one(Dataset, job.dataset_id)
        points, of_dataset = points_document(session, dataset.id), dataset.truth_sha
        images = select(Image.image_id, Image.sha256).where(Image.dataset_id == job.dataset_id)
        blobs = {str(image_id): sha for image_id, sha in session.execute(images)}
    truth = job.truth_sha or of_dataset
    weights = settings.backbone_weights
    write_json(workdir / "points.json", points)
    fields: dict[str, Any] = {
        "points": str(workdir / "points.json"),
        "truth": str(storage.local_path(truth)) if truth else None,
        "image_paths": _image_paths(ctx, blobs),
        "method": job.method,
        "preset": job.preset,
        "overrides": request["overrides"],
        "seed": job.seed,
        "proposals": request["proposals"],
        "proposal_store": str(settings.folder("proposals")),
        "initial_model": str(storage.local_path(job.initial_sha)) if job.initial_sha else None,
        "backbone_weights": str(weights.resolve()) if weights else None,
        "max_bad_images": settings.max_bad_images,
        "reserve_bytes": settings.reserve_bytes,
        "own_folder": True,
        "max_processes": 1 if ctx.lease.setbacks > SETBACKS_TOGETHER else None,
    }
    job_file = write_job_file(workdir, **fields)
    made = make_proposals(ctx, job_file, request["proposals"])
    return job_file if made is None else write_job_file(workdir, **fields, **made)


def _image_paths(ctx: JobContext, blobs: Mapping[str, str]) -> dict[str, str]:
    """The files of images; those that storage has lost are left out, unless it has lost all.

    Args:
        blobs: digests by image id.
    """
    files = ctx.image_files(set(blobs.values()))
    lost = [file for file in files.values() if isinstance(file, BlobMissing)]
    if lost and len(lost) == len(files):
        raise lost[0]
    named = ((image_id, files[sha]) for image_id, sha in blobs.items())
    return {image_id: str(file) for image_id, file in named if isinstance(file, Path)}


def record(ctx: JobContext, warnings: list[str]) -> None:
    """Store what `result/` holds: files, pseudo-masks, model, metrics; and end the job.

    Masks come first, a batch at a time: nobody sees them before the last transaction, which makes
    the job one that has results. Where that never comes, `clean_up` removes them.

    Raises:
        BadResult: something is missing there, or not as agreed.
        LeaseLost: the job is no longer ours, or its cancellation came first.
    """
    workdir, result = ctx.workdir, ctx.workdir / "result"
    metrics, report, meta = (_json(result / f"{n}.json") for n in ("metrics", "report", "model"))
    delivered = result / "pseudo_masks.ndjson"
    masks = workdir / f"masks-{ctx.lease.attempt}.ndjson"  # a stale attempt writes into its own
    stream.write(masks, _pseudo_masks(delivered, ctx.job_id))
    files = {name: result / file for name, file in FILES.items()}
    if not files["model"].is_file():
        raise BadResult("the trainer left no model.pt")
    record_masks(ctx, _pseudo_masks(delivered, ctx.job_id))
    state, reason = success(warnings, failed_images=bool(report.get("set_aside")))
    with (
        stored_files(ctx, {**files, "masks": masks, "log": workdir / LOG}) as stored,
        ctx.database.begin() as session,
    ):
        renew_lease(session, ctx.lease, ctx.settings, unless_cancelled=True)
        model = _model(session, ctx.job_id, stored, files["model"].stat().st_size)
        model.meta, model.metrics = meta, metrics.get("model")
        session.add(model)
        finish_job(
            session,
            ctx.lease,
            state,
            reason=reason,
            metrics=metrics,
            report=report,
            warnings=warnings,
            model_id=model.id,
            gallery_sha=stored.get("gallery"),
            report_html_sha=stored.get("report"),
            masks_sha=stored.get("masks"),
            log_sha=stored.get("log"),
        )


def _model(session: Session, job_id: str, stored: Mapping[str, str], size: int) -> Model:
    """Return the row of the trained model, but for what the training says about it."""
    job = session.get_one(Job, job_id)
    dataset = session.get_one(Dataset, job.dataset_id)
    categories = select(Category).where(Category.dataset_id == dataset.id)
    return Model(
        id=new_id(),
        job_id=job.id,
        name=f"{dataset.name}, {job.method}"[:200],
        categories=[
            {"id": c.category_id, "name": c.name}
            for c in session.scalars(categories.order_by(Category.category_id))
        ],
        sha256=stored["model"],
        size=size,
        weights_sha=stored.get("weights"),
        curves_sha=stored.get("curves"),
    )


def _json(path: Path) -> dict[str, Any]:
    """An object of a result file. NaN and infinities become null: JSON has no word for them."""
    try:
        document = json.loads(path.read_bytes(), parse_constant=lambda _: None)
    except (OSError, ValueError) as error:
        raise BadResult(f"{path.name}: {error}") from error
    if not isinstance(document, dict):
        raise BadResult(f"{path.name} is not an object")
    return document


def _pseudo_masks(path: Path, job_id: str) -> Iterator[dict[str, Any]]:
    try:
        with path.open(encoding="utf-8") as lines:
            for line in lines:
                yield _row(json.loads(line), job_id)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise BadResult(f"{path.name}: {error!r}") from error


def _row(mask: dict[str, Any], job_id: str) -> dict[str, Any]:
    return {
        "job_id": job_id,
        "annotation_id": int(mask["id"]),
        "image_id": mask["image_id"],
        "category_id": mask["category_id"],
        "segmentation": mask["segmentation"],
        **box_columns(mask),
        "area": finite(mask["area"]),
        "quality": finite(mask["quality"]),
        "source": mask["source"],
        "extra": {name: mask.get(name) for name in EXTRA},
    }


HANDLER = SubprocessHandler(JobKind.TRAIN, prepare, record)
