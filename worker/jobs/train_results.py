"""How a run ends in the database: its results, or why there are none. All under the fence."""

import json
import math
from collections.abc import Iterator
from datetime import timedelta
from itertools import islice
from pathlib import Path
from typing import Any

import structlog
from sqlalchemy import case, insert, select

from app.db.columns import new_id, now
from app.db.models import Category, Dataset, Job, JobState, Model, PseudoMask, Reason
from app.db.session import Database
from app.jobs.events import append_state
from app.masks import stream
from app.storage.garbage_collection import pinned
from app.storage.store import Storage, sha256_of
from worker.runtime.job_events import stage_ended
from worker.runtime.lease import Claim, write

BATCH = 2_000
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
DISK_FULL_DELAY = 5.0  # seconds: somebody may make room


class BadResult(Exception):
    """The trainer said that it was done, and its result folder is not as agreed."""


def succeed(
    database: Database, storage: Storage, held: Claim, workdir: Path, warnings: list[str]
) -> None:
    """Store what `workdir/result` holds: blobs, pseudo-masks, model, metrics, and the state.

    Raises BadResult where something is missing there, LeaseLost where the job is no longer ours
    or its cancellation came first; nothing is left behind then.
    """
    result = workdir / "result"
    metrics, report, meta = (_json(result / f"{n}.json") for n in ("metrics", "report", "model"))
    delivered = result / "pseudo_masks.ndjson"
    masks = workdir / f"masks-{held.attempt}.ndjson"  # a stale attempt writes into its own
    stream.write(masks, _pseudo_masks(delivered, held.job_id))
    files = {name: result / file for name, file in FILES.items()}
    blobs = digested({**files, "masks": masks}, workdir)
    if "model" not in blobs:
        raise BadResult("the trainer left no model.pt")
    state, reason = JobState.SUCCEEDED, None
    if warnings:
        state = JobState.SUCCEEDED_WITH_WARNINGS
        reason = Reason.IMAGES_SET_ASIDE if report.get("set_aside") else Reason.WARNINGS
    with pinned(database, storage, [sha for _, sha in blobs.values()]):
        for path, sha in blobs.values():
            storage.put_file(path, sha=sha)
        with database.begin() as session:
            model_id, moment = new_id(), now()
            write(
                session,
                held,
                unless_cancelled=True,
                **ended(state, progress=1.0, eta_seconds=0.0, reason=reason, error=None),
                metrics=metrics,
                report=report,
                warnings=warnings,
                model_id=model_id,
                gallery_sha=_sha(blobs, "gallery"),
                report_html_sha=_sha(blobs, "report"),
                masks_sha=_sha(blobs, "masks"),
                log_sha=_sha(blobs, "log"),
            )
            job = session.get_one(Job, held.job_id)
            dataset = session.get_one(Dataset, job.dataset_id)
            categories = select(Category).where(Category.dataset_id == dataset.id)
            path, sha = blobs["model"]
            session.add(
                Model(
                    id=model_id,
                    job_id=job.id,
                    created_at=moment,
                    name=f"{dataset.name}, {job.method}"[:200],
                    categories=[
                        {"id": c.category_id, "name": c.name}
                        for c in session.scalars(categories.order_by(Category.category_id))
                    ],
                    sha256=sha,
                    size=path.stat().st_size,
                    weights_sha=_sha(blobs, "weights"),
                    curves_sha=_sha(blobs, "curves"),
                    meta=meta,
                    metrics=metrics.get("model"),
                )
            )
            for rows in _batches(_pseudo_masks(delivered, job.id)):
                session.execute(insert(PseudoMask), rows)
            append_state(session, job.id, *([stage_ended(job.stage)] if job.stage else []))


def end(
    database: Database,
    storage: Storage,
    held: Claim,
    workdir: Path,
    state: JobState,
    *,
    reason: str | None = None,
    error: str | None = None,
) -> None:
    """The job is over without results: `state` is failed or cancelled. Its log is kept where
    storage takes it: on a full disk the end matters more."""
    blobs = digested({}, workdir)
    with pinned(database, storage, [sha for _, sha in blobs.values()]):
        try:
            for path, sha in blobs.values():
                storage.put_file(path, sha=sha)
        except OSError as refused:
            structlog.get_logger().warning("log not kept", job=held.job_id, error=repr(refused))
            blobs = {}
        with database.begin() as session:
            values = ended(state, reason=reason, error=error)
            write(session, held, **values, log_sha=_sha(blobs, "log"))
            append_state(session, held.job_id)


def release(database: Database, held: Claim, reason: Reason, error: str | None = None) -> float:
    """Give the job back to whoever comes next; the seconds before it may be taken.

    With an error it is a setback (the trainer died, say), and waits longer each time; a worker
    that was told to stop is none, and does not count.
    """
    setback = error is not None
    delay = min(2.0 ** (held.setbacks - 1) - 1, 60.0) if setback else 0.0
    if reason is Reason.DISK_FULL:
        delay = max(delay, DISK_FULL_DELAY)
    with database.begin() as session:
        fewer = case((Job.setbacks > 0, Job.setbacks - 1), else_=0)
        values: dict[str, Any] = {"error": error} if setback else {"setbacks": fewer}
        write(
            session,
            held,
            state=JobState.QUEUED,
            reason=reason,
            owner=None,
            lease_until=now() + timedelta(seconds=delay) if delay else None,
            **values,
        )
        append_state(session, held.job_id)
    return delay


def ended(state: JobState, **values: Any) -> dict[str, Any]:
    return {"state": state, "finished_at": now(), "lease_until": None, **values}


def digested(files: dict[str, Path], workdir: Path) -> dict[str, tuple[Path, str]]:
    """Those of the files, and of the log, that are there, with their digests."""
    named = {**files, "log": workdir / "log.txt"}
    return {name: (path, sha256_of(path)) for name, path in named.items() if path.is_file()}


def _sha(blobs: dict[str, tuple[Path, str]], name: str) -> str | None:
    return blobs[name][1] if name in blobs else None


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
    x, y, w, h = map(_finite, mask["bbox"])
    return {
        "job_id": job_id,
        "annotation_id": int(mask["id"]),
        "image_id": mask["image_id"],
        "category_id": mask["category_id"],
        "segmentation": mask["segmentation"],
        "x": x,
        "y": y,
        "w": w,
        "h": h,
        "area": _finite(mask["area"]),
        "quality": _finite(mask["quality"]),
        "source": mask["source"],
        "extra": {name: mask.get(name) for name in EXTRA},
    }


def _finite(value: Any) -> float:
    number = float(value)
    if not math.isfinite(number):
        raise ValueError(f"{value} is no number for JSON")
    return number


def _batches(rows: Iterator[dict[str, Any]]) -> Iterator[list[dict[str, Any]]]:
    while batch := list(islice(rows, BATCH)):
        yield batch
