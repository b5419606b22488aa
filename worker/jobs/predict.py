"""Work with a trained model, done by a process of its own, and how it is recorded: the predictions
of a job of the kind `predict`, the file of one of the kind `onnx`."""

import json
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any

from sqlalchemy import select, update

from app.datasets.fetching import fetch_all
from app.db.models import Job, JobState, Model, Prediction, Reason
from app.db.session import Database
from app.errors import BlobMissing
from app.jobs.events import append_state
from app.predict import deferred as later
from app.settings import Settings
from app.storage.garbage_collection import forget, pinned
from app.storage.store import Storage, sha256_of
from worker.jobs.context import Tell
from worker.jobs.train_inputs import workdir_of, write_json
from worker.jobs.train_results import BadResult, digested, ended
from worker.runtime.job_events import stage_ended
from worker.runtime.lease import Claim, write

BATCH = 500
ShouldStop = Callable[[], bool]


class _Stopped(Exception):
    pass


def prepare_predictions(
    database: Database,
    storage: Storage,
    settings: Settings,
    job_id: str,
    should_stop: ShouldStop,
    tell: Tell,
) -> Path | None:
    """Fetch what must be fetched, and write JOB.json; its path, or None where `should_stop` became
    true. A picture that cannot be had is no failure of the job: its line will say why."""

    def step(stage: str, done: int, of: int) -> None:
        tell(stage, done, of)
        if should_stop():
            raise _Stopped

    workdir = workdir_of(settings, job_id)
    folder = workdir / "fetched"
    folder.mkdir(exist_ok=True)
    with database.read() as session:
        job = session.get_one(Job, job_id)
        sha = session.get_one(Model, job.model_id).sha256
        query = select(Prediction.number, Prediction.sha256, Prediction.url)
        rows = session.execute(
            query.where(Prediction.job_id == job_id).order_by(Prediction.number)
        ).all()
    wanted = {folder / str(row.number): row.url for row in rows if row.url is not None}
    try:
        refused = fetch_all(settings, wanted, step)
        images = []
        for row in rows:
            path = folder / str(row.number)
            if row.url is None:
                images.append({"number": row.number, **_stored(storage, row.sha256)})
            elif path in refused:
                why = f"it could not be fetched: {refused[path]}"
                images.append({"number": row.number, "error": why})
            else:
                images.append({"number": row.number, "path": str(path)})
            if should_stop():
                raise _Stopped
    except _Stopped:
        return None
    document = {
        "kind": "predict",
        "model": str(storage.local_path(sha)),
        "workdir": str(workdir),
        "images": images,
        "score": job.request["score"],
        "max_pixels": settings.max_image_pixels,
    }
    write_json(workdir / "JOB.json", document)
    return workdir / "JOB.json"


def _stored(storage: Storage, sha: str) -> dict[str, str]:
    try:
        return {"path": str(storage.local_path(sha))}
    except BlobMissing as error:
        return {"error": error.detail}


def record_predictions(
    database: Database, storage: Storage, held: Claim, workdir: Path, warnings: list[str]
) -> None:
    """What `result/predictions.ndjson` says, a batch at a time under the fence, and the end.

    Raises BadResult, and LeaseLost where the job is no longer ours or its cancellation came first.
    """
    with database.read() as session:
        query = select(Prediction.number, Prediction.pk).where(Prediction.job_id == held.job_id)
        pk_of = {row.number: row.pk for row in session.execute(query)}
    lines = _lines(workdir / "result" / "predictions.ndjson", pk_of)
    failed = 0
    while batch := list(islice(lines, BATCH)):
        failed += sum(row["error"] is not None for row in batch)
        with database.begin() as session:
            write(session, held, unless_cancelled=True, progress=1.0)
            session.execute(update(Prediction), batch)
    state, reason = JobState.SUCCEEDED, None
    if warnings:
        state = JobState.SUCCEEDED_WITH_WARNINGS
        reason = Reason.IMAGES_SET_ASIDE if failed else Reason.WARNINGS
    _finish(database, storage, held, workdir, state=state, reason=reason, warnings=warnings)
    later.clear(database, storage)


def _lines(path: Path, pk_of: dict[int, int]) -> Iterator[dict[str, Any]]:
    """Rows to be updated. Every picture must be there."""
    missing = set(pk_of)
    try:
        with path.open(encoding="utf-8") as lines:
            for text in lines:
                line = json.loads(text, parse_constant=lambda _: None)
                missing.remove(line["number"])
                row: dict[str, Any] = {"pk": pk_of[line["number"]], "error": line.get("error")}
                seen = (
                    {"size": line["size"], "results": line["results"]} if not row["error"] else {}
                )
                yield {"size": None, "results": None, **row, **seen}
    except (OSError, ValueError, TypeError, LookupError) as error:
        raise BadResult(f"{path.name}: {error!r}") from error
    if missing:
        raise BadResult(f"{path.name}: {len(missing)} pictures are missing")


def prepare_onnx(
    database: Database,
    storage: Storage,
    settings: Settings,
    job_id: str,
    should_stop: ShouldStop,
    tell: Tell,
) -> Path | None:
    """Write JOB.json; its path."""
    workdir = workdir_of(settings, job_id)
    with database.read() as session:
        sha = session.get_one(Model, session.get_one(Job, job_id).model_id).sha256
    model = str(storage.local_path(sha))
    write_json(workdir / "JOB.json", {"kind": "onnx", "model": model, "workdir": str(workdir)})
    return workdir / "JOB.json"


def record_onnx(
    database: Database, storage: Storage, held: Claim, workdir: Path, warnings: list[str]
) -> None:
    """Store `result/model.onnx` as the model's. Raises BadResult, LeaseLost."""
    path = workdir / "result" / "model.onnx"
    if not path.is_file():
        raise BadResult("there is no model.onnx")
    sha = sha256_of(path)
    with database.read() as session:
        model_id = session.get_one(Job, held.job_id).model_id
        before = session.get_one(Model, model_id).onnx_sha
    with pinned(database, storage, [sha]):
        storage.put_file(path, sha=sha)
        with database.begin() as session:
            write(session, held, unless_cancelled=True, progress=1.0)
            session.execute(update(Model).where(Model.id == model_id).values(onnx_sha=sha))
        values = {"state": JobState.SUCCEEDED, "reason": None, "warnings": warnings}
        _finish(database, storage, held, workdir, **values)
    forget(database, storage, [before] if before else [])


def _finish(
    database: Database, storage: Storage, held: Claim, workdir: Path, **values: Any
) -> None:
    """The job is over, and has results; its log is kept."""
    blobs = digested({}, workdir)
    with pinned(database, storage, [sha for _, sha in blobs.values()]):
        for path, sha in blobs.values():
            storage.put_file(path, sha=sha)
        with database.begin() as session:
            over = ended(**values, progress=1.0, eta_seconds=0.0, error=None)
            log_sha = blobs["log"][1] if "log" in blobs else None
            write(session, held, unless_cancelled=True, **over, log_sha=log_sha)
            stage = session.get_one(Job, held.job_id).stage
            append_state(session, held.job_id, *([stage_ended(stage)] if stage else []))
