"""An export, from the masks of a job to a file in storage. Begun again, it is made anew: nothing of
it is seen before the last transaction."""

from sqlalchemy import update

from app.db.models import Export, Job, JobState, Reason
from app.exports import write as writing
from app.exports.schemas import ExportRequest
from app.jobs.events import append, append_state
from app.storage import garbage_collection as blobs
from app.storage.store import sha256_of
from worker.jobs.context import Work, over
from worker.jobs.train_inputs import workdir_of
from worker.runtime.job_events import stage_ended

STAGE = "masks"


def run_export(at: Work) -> None:
    """Make the export's file, and end the job. Raises what `at.tell` raises, LeaseLost, OSError."""
    with at.database.read() as session:
        request = ExportRequest.model_validate(session.get_one(Job, at.held.job_id).request)
        job_id = session.get_one(Export, at.held.job_id).job_id
    target = workdir_of(at.settings, at.held.job_id) / "export"

    def tell(done: int, of: int) -> None:
        at.tell(STAGE, done, of)

    try:
        report = writing.write(at.database, at.storage, job_id, request, target, tell)
    except writing.UnsupportedFormat as error:
        words = str(error)
        at.patiently(lambda: _fail(at, words))
        return
    name, sha = writing.filename(at.database, job_id, request), sha256_of(target)
    values = {"filename": name, "sha256": sha, "size": target.stat().st_size, "report": report}

    def succeed() -> None:
        with blobs.pinned(at.database, at.storage, [sha]):
            at.storage.put_file(target, sha=sha)
            with at.database.begin() as session:
                done = {"progress": 1.0, "eta_seconds": 0.0, "step": None, "of": None}
                over(at, session, JobState.SUCCEEDED, **done)
                query = update(Export).where(Export.id == at.held.job_id)
                session.execute(query.values(values))
                append(session, at.held.job_id, [stage_ended(STAGE)])
                append_state(session, at.held.job_id)

    at.patiently(succeed)


def _fail(at: Work, error: str) -> None:
    with at.database.begin() as session:
        over(at, session, JobState.FAILED, reason=Reason.UNFIT, error=error)
        append_state(session, at.held.job_id)
