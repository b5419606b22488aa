"""An export, from the masks of a job to a file in storage.

Begun again, it is made anew: nothing of it is visible before the last transaction.
"""

from sqlalchemy import update

from app.db.models import Export, Job, JobKind, JobState, Reason
from app.exports import write as writing
from app.exports.schemas import ExportRequest
from app.jobs.submit import request_of
from worker.jobs.context import InlineHandler, JobContext
from worker.jobs.transitions import finish_job, stored_files

STAGE = "masks"


def run_export(ctx: JobContext) -> None:
    """Make the export's file, and end the job.

    Raises:
        StopRequested, LeaseLost, OSError.
    """
    with ctx.database.read() as session:
        job = session.get_one(Job, ctx.job_id)
        request = ExportRequest.model_validate(request_of(ctx.storage, job))
        job_id = session.get_one(Export, ctx.job_id).job_id
    target = ctx.workdir / "export"

    def report_progress(done: int, of: int) -> None:
        ctx.report_progress(STAGE, done, of)

    try:
        report = writing.write(ctx.database, ctx.storage, job_id, request, target, report_progress)
    except writing.UnsupportedFormat as error:
        message = str(error)
        ctx.retry(lambda: _fail(ctx, message))
        return
    filename = writing.filename(ctx.database, job_id, request)

    def succeed() -> None:
        with stored_files(ctx, {"export": target}) as stored, ctx.database.begin() as session:
            finish_job(session, ctx.lease, JobState.SUCCEEDED, step=None, of=None)
            values = {"filename": filename, "sha256": stored["export"], "report": report}
            query = update(Export).where(Export.id == ctx.job_id)
            session.execute(query.values(**values, size=target.stat().st_size))

    ctx.retry(succeed)


def _fail(ctx: JobContext, error: str) -> None:
    with ctx.database.begin() as session:
        finish_job(session, ctx.lease, JobState.FAILED, reason=Reason.UNFIT, error=error)


HANDLER = InlineHandler(JobKind.EXPORT, run_export)
