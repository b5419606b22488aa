"""A model from outside, read by a process of its own: nothing of it is kept that does not fit."""

import json
from pathlib import Path
from typing import Any

from app.db.columns import new_id
from app.db.models import Job, JobKind, JobState, Model
from app.errors import BlobMissing
from app.jobs.submit import request_of
from worker.jobs.context import JobContext, SubprocessHandler
from worker.jobs.transitions import LOG, BadResult, finish_job, stored_files
from worker.runtime.workdir import write_job_file

FILES = {"model": "model.pt", "weights": "model.safetensors"}


def prepare(ctx: JobContext) -> Path:
    """Write the job file; its path.

    Raises:
        BlobMissing: storage has lost the file that was sent.
    """
    with ctx.database.read() as session:
        job = session.get_one(Job, ctx.job_id)
        request, sha = request_of(ctx.storage, job), job.initial_sha
    if sha is None:
        raise BlobMissing(ctx.job_id)
    path = str(ctx.storage.local_path(sha))
    return write_job_file(ctx.workdir, kind="import", file=path, name=request["filename"])


def record(ctx: JobContext, warnings: list[str]) -> None:
    """Store the model that was read, and end the job.

    Raises:
        BadResult: its files are missing, or its description is not as agreed.
        LeaseLost: the job is no longer ours, or its cancellation came first.
    """
    result = ctx.workdir / "result"
    files = {name: result / file for name, file in FILES.items()}
    meta = _description(result / "model.json")
    if not files["model"].is_file():
        raise BadResult("there is no model.pt")
    with ctx.database.read() as session:
        name = request_of(ctx.storage, session.get_one(Job, ctx.job_id))["name"]
    with (
        stored_files(ctx, {**files, "log": ctx.workdir / LOG}) as stored,
        ctx.database.begin() as session,
    ):
        model = Model(
            id=new_id(),
            job_id=ctx.job_id,
            name=name,
            categories=meta["categories"],
            sha256=stored["model"],
            size=files["model"].stat().st_size,
            weights_sha=stored.get("weights"),
            meta=meta,
        )
        session.add(model)
        session.flush()
        finish_job(
            session,
            ctx.lease,
            JobState.SUCCEEDED,
            warnings=warnings,
            model_id=model.id,
            log_sha=stored.get("log"),
        )


def _description(path: Path) -> dict[str, Any]:
    try:
        meta: dict[str, Any] = json.loads(path.read_bytes())
        meta["categories"] = [{"id": c["id"], "name": c["name"]} for c in meta["categories"]]
    except (OSError, ValueError, LookupError, TypeError) as error:
        raise BadResult(f"{path.name}: {error!r}") from error
    return meta


HANDLER = SubprocessHandler(JobKind.IMPORT_MODEL, prepare, record)
