"""Training jobs: POST /jobs/train, then GET /jobs/{id} until it is over."""

from typing import Annotated

from fastapi import APIRouter, Query, Request, Response
from fastapi.responses import FileResponse, PlainTextResponse

from app.db.models import Job, JobState, Model
from app.db.session import DatabaseDep, SessionDep
from app.errors import NotFound
from app.http.dependencies import SettingsDep, StorageDep, require_content_type
from app.http.file_response import blob_response
from app.http.idempotency import IDEMPOTENT
from app.http.pagination import Paging, paging
from app.jobs import service
from app.jobs.documents import LargeDocuments
from app.jobs.kinds import KINDS
from app.jobs.schemas import (
    JobCreated,
    JobOut,
    JobPage,
    KindOut,
    KindsOut,
    MetricsOut,
    ShardCounts,
    ShardPage,
    StageOut,
    TrainPlan,
    TrainRequest,
)

router = APIRouter(prefix="/jobs", tags=["jobs"], route_class=LargeDocuments)

REPORT_POLICY = "; ".join(
    [
        "default-src 'none'",
        "img-src data:",
        "style-src 'unsafe-inline'",
        "base-uri 'none'",
        "form-action 'none'",
        "frame-ancestors 'self'",
        "sandbox",
    ]
)
"""Of report.html: names in it are the user's, and nothing in it may run."""


@router.post(
    "/train",
    status_code=202,
    response_model=JobCreated,
    responses={200: {"model": TrainPlan, "description": "Of a dry run"}},
    dependencies=[require_content_type("application/json"), IDEMPOTENT],
)
def train(
    body: TrainRequest,
    response: Response,
    database: DatabaseDep,
    storage: StorageDep,
    settings: SettingsDep,
    dry_run: Annotated[
        bool, Query(description="check it, and say what it would do: nothing is stored")
    ] = False,
) -> Job | Response:
    """Start training. Sent again with the same `Idempotency-Key`, it names the same job."""
    from app.jobs import training  # loads the checks of documents, and numpy

    if dry_run:
        plan = training.dry_run(database, storage, settings, body)
        return Response(plan.model_dump_json(), media_type="application/json")
    job = training.create(database, storage, settings, body)
    response.headers["Location"] = f"/jobs/{job.id}"
    return job


@router.get("", response_model=JobPage)
def list_jobs(
    session: SessionDep,
    paging: Annotated[Paging, paging(50)],
    state: JobState | None = None,
    dataset_id: str | None = None,
) -> dict[str, object]:
    """Jobs, the newest first."""
    page = service.page(session, paging, state, dataset_id)
    return {"jobs": page.items, "next": page.next}


@router.get("/kinds")
def list_kinds() -> KindsOut:
    """What kinds of jobs there are, with the stages of each, in order."""
    kinds = [
        KindOut(
            kind=kind,
            label=info.label,
            queue=info.queue,
            stages=[StageOut.model_validate(stage) for stage in info.stages],
            result=info.result,
        )
        for kind, info in KINDS.items()
    ]
    return KindsOut(kinds=kinds)


@router.get("/{job_id}")
def get_job(job_id: str, session: SessionDep) -> JobOut:
    """How far it is, and what came of it."""
    job = JobOut.model_validate(service.get(session, job_id))
    counts = service.shard_counts(session, job_id)
    return job if counts is None else job.model_copy(update={"shards": ShardCounts(**counts)})


@router.get("/{job_id}/shards", response_model=ShardPage)
def list_shards(
    job_id: str, session: SessionDep, paging: Annotated[Paging, paging(50)]
) -> dict[str, object]:
    """The parts of a stage that many workers share: who works on them, and how far they are.

    There are none of a job with few images.
    """
    page = service.shards(session, paging, service.get(session, job_id).id)
    return {"shards": page.items, "next": page.next}


@router.post("/{job_id}/cancel", status_code=202, response_model=JobCreated)
def cancel(job_id: str, session: SessionDep) -> Job:
    """Stop it. A queued job is cancelled at once, a running one within seconds."""
    return service.cancel(session, job_id)


@router.get("/{job_id}/metrics", response_model=MetricsOut)
def metrics(job_id: str, session: SessionDep) -> dict[str, object]:
    """Figures of the pseudo-masks, of the model and of the proposals."""
    job = service.get_successful(session, job_id)
    figures, report = job.metrics or {}, job.report or {}
    return {
        **{
            name: figures.get(name)
            for name in ("pseudo_masks", "model", "proposals", "validation", "test")
        },
        "seconds": report.get("seconds") or {},
        "peak_memory_mb": report.get("peak_memory_mb"),
        "proposal_generator": job.proposal_generator,
        "weights_origin": job.weights_origin,
    }


@router.get("/{job_id}/report")
def report(job_id: str, session: SessionDep) -> dict[str, object]:
    """All that the job says about itself; a training: settings, versions, seconds a stage."""
    return service.get_delivered(session, job_id).report or {}


@router.get("/{job_id}/checkpoint", response_class=Response)
def checkpoint(job_id: str, request: Request, session: SessionDep, storage: StorageDep) -> Response:
    """The trained model as `model.pt`; whole, or by Range."""
    job = service.get_successful(session, job_id)
    sha = session.get_one(Model, job.model_id).sha256
    kind, name = "application/octet-stream", f"model-{job.id}.pt"
    return blob_response(request, storage, sha, media_type=kind, filename=name)


@router.get("/{job_id}/gallery", response_class=Response)
def gallery(job_id: str, request: Request, session: SessionDep, storage: StorageDep) -> Response:
    """A PNG with a row for each of a few images: point, proposals, masks selected and predicted."""
    sha = service.get_successful(session, job_id).gallery_sha
    if sha is None:
        raise NotFound("gallery of job", job_id)
    return blob_response(request, storage, sha, media_type="image/png")


@router.get(
    "/{job_id}/report.html",
    response_class=Response,
    responses={200: {"content": {"text/html": {"schema": {"type": "string"}}}}},
)
def report_html(
    job_id: str, request: Request, session: SessionDep, storage: StorageDep
) -> Response:
    """The report for people: one page with figures, curves and drawn masks inside."""
    sha = service.get_successful(session, job_id).report_html_sha
    if sha is None:
        raise NotFound("report.html of job", job_id)
    answer = blob_response(request, storage, sha, media_type="text/html; charset=utf-8")
    answer.headers["Content-Security-Policy"] = REPORT_POLICY
    return answer


@router.get("/{job_id}/logs", response_class=PlainTextResponse)
def logs(
    job_id: str,
    request: Request,
    session: SessionDep,
    storage: StorageDep,
    settings: SettingsDep,
    tail: Annotated[int | None, Query(ge=1, le=10_000, description="lines")] = None,
) -> Response:
    """What the trainer wrote, so far; empty before it has begun."""
    job = service.get(session, job_id)
    kind = "text/plain; charset=utf-8"
    if job.log_sha is not None and tail is None:
        return blob_response(request, storage, job.log_sha, media_type=kind)
    path = service.log_file(storage, settings, job)
    if path is None:
        return PlainTextResponse("")
    if tail is not None:
        return PlainTextResponse(service.last_lines(path, tail))
    return FileResponse(path, media_type=kind, headers={"Cache-Control": "no-cache"})
