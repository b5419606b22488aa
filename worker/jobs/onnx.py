"""A model's ONNX file, made by a process of its own."""

from pathlib import Path

from sqlalchemy import update

from app.db.models import Job, JobKind, JobState, Model
from app.storage.garbage_collection import forget
from worker.jobs.context import JobContext, SubprocessHandler
from worker.jobs.transitions import LOG, BadResult, finish_job, stored_files
from worker.runtime.workdir import write_job_file


def prepare(ctx: JobContext) -> Path:
    """Write the job file; its path."""
    with ctx.database.read() as session:
        sha = session.get_one(Model, session.get_one(Job, ctx.job_id).model_id).sha256
    return write_job_file(ctx.workdir, kind="onnx", model=str(ctx.storage.local_path(sha)))


def record(ctx: JobContext, warnings: list[str]) -> None:
    """Store `result/model.onnx` as the model's, and end the job.

    Raises:
        BadResult: there is no such file.
        LeaseLost: the job is no longer ours, or its cancellation came first.
    """
    path = ctx.workdir / "result" / "model.onnx"
    if not path.is_file():
        raise BadResult("there is no model.onnx")
    with ctx.database.read() as session:
        model_id = session.get_one(Job, ctx.job_id).model_id
        before = session.get_one(Model, model_id).onnx_sha
    with (
        stored_files(ctx, {"onnx": path, "log": ctx.workdir / LOG}) as stored,
        ctx.database.begin() as session,
    ):
        finish_job(
            session, ctx.lease, JobState.SUCCEEDED, warnings=warnings, log_sha=stored.get("log")
        )
        query = update(Model).where(Model.id == model_id)
        session.execute(query.values(onnx_sha=stored["onnx"]))
    forget(ctx.database, ctx.storage, [before] if before else [])


HANDLER = SubprocessHandler(JobKind.ONNX, prepare, record)
