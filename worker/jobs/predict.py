"""The predictions of a job, made by a process of its own."""

import json
import time
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

from sqlalchemy import select, update

from app.datasets.fetching import fetch_all
from app.db.models import Job, JobKind, Model, Prediction, Reason
from app.errors import BlobMissing
from app.jobs.submit import request_of
from app.predict import deferred
from app.storage import garbage_collection as blobs
from worker.jobs.context import JobContext, SubprocessHandler
from worker.jobs.transitions import LOG, BadResult, JobFails, finish_job, stored_files, success
from worker.runtime.lease import renew_lease
from worker.runtime.workdir import write_job_file

BATCH = 500


def prepare(ctx: JobContext) -> Path:
    """Fetch what must be fetched, and write the job file; its path.

    An image that cannot be had is no failure of the job: its line will say why.

    Raises:
        StopRequested, LeaseLost, BlobMissing, OSError.
        JobFails: images of the request were never written.
    """
    folder = ctx.workdir / "fetched"
    folder.mkdir(exist_ok=True)
    with ctx.database.read() as session:
        job = session.get_one(Job, ctx.job_id)
        request = request_of(ctx.storage, job)
        sha = session.get_one(Model, job.model_id).sha256
        query = select(Prediction.number, Prediction.sha256, Prediction.url)
        rows = session.execute(
            query.where(Prediction.job_id == ctx.job_id).order_by(Prediction.number)
        ).all()
    if len(rows) < request.get("images", 0):
        words = "the request was broken off before all of its images were written; send it again"
        raise JobFails(Reason.REQUEST_BROKEN_OFF, words)
    wanted = {folder / str(row.number): row.url for row in rows if row.url is not None}
    refused = fetch_all(ctx.settings, wanted, ctx.report_progress)
    stored = ctx.image_files({row.sha256 for row in rows if row.url is None})
    images = []
    for row in rows:
        path = folder / str(row.number)
        if row.url is None:
            images.append({"number": row.number, **_stored(stored[row.sha256])})
        elif path in refused:
            why = f"it could not be fetched: {refused[path]}"
            images.append({"number": row.number, "error": why})
        else:
            images.append({"number": row.number, "path": str(path)})
    return write_job_file(
        ctx.workdir,
        kind="predict",
        model=str(ctx.storage.local_path(sha)),
        images=images,
        score=request["score"],
        tiles=request.get("tiles", "auto"),
        mirror=request.get("mirror", False),
        max_pixels=ctx.settings.max_image_pixels,
    )


def _stored(file: Path | BlobMissing) -> dict[str, str]:
    return {"error": file.detail} if isinstance(file, BlobMissing) else {"path": str(file)}


def record(ctx: JobContext, warnings: list[str]) -> None:
    """Write what `result/predictions.ndjson` says, a batch at a time, and end the job.

    Raises:
        BadResult: a line is missing, or not as agreed.
        LeaseLost: the job is no longer ours, or its cancellation came first.
    """
    with ctx.database.read() as session:
        query = select(Prediction.number, Prediction.pk).where(Prediction.job_id == ctx.job_id)
        pk_of = {row.number: row.pk for row in session.execute(query)}
    lines = _lines(ctx.workdir / "result" / "predictions.ndjson", pk_of)
    failed = 0
    while batch := list(islice(lines, BATCH)):
        failed += sum(row["error"] is not None for row in batch)
        with ctx.database.begin() as session:
            renew_lease(session, ctx.lease, ctx.settings, unless_cancelled=True)
            session.execute(update(Prediction), batch)
        time.sleep(blobs.PAUSE_SECONDS)
    state, reason = success(warnings, failed_images=failed > 0)
    with (
        stored_files(ctx, {"log": ctx.workdir / LOG}) as stored,
        ctx.database.begin() as session,
    ):
        log_sha = stored.get("log")
        finish_job(session, ctx.lease, state, reason=reason, warnings=warnings, log_sha=log_sha)
    deferred.clean_up(ctx.database)
    blobs.clean_up(ctx.database, ctx.storage)


def _lines(path: Path, pk_of: dict[int, int]) -> Iterator[dict[str, Any]]:
    """Rows to be updated. Every image must be there."""
    missing = set(pk_of)
    try:
        with path.open(encoding="utf-8") as lines:
            for text in lines:
                line = json.loads(text, parse_constant=lambda _: None)
                missing.remove(line["number"])
                row: dict[str, Any] = {"pk": pk_of[line["number"]], "error": line.get("error")}
                results = (
                    {"size": line["size"], "results": line["results"]} if not row["error"] else {}
                )
                yield {"size": None, "results": None, **row, **results}
    except (OSError, ValueError, TypeError, LookupError) as error:
        raise BadResult(f"{path.name}: {error!r}") from error
    if missing:
        raise BadResult(f"{path.name}: {len(missing)} images are missing")


HANDLER = SubprocessHandler(JobKind.PREDICT, prepare, record)
