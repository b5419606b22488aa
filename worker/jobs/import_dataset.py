"""An import, from the files that were sent to a data set that is ready or invalid.

Rows are written in batches, each under the lease, to a data set that is not visible before it is
ready; that is the last transaction. An attempt that begins removes what one before it has written,
so a killed import that is taken up again gives the rows once.
"""

import time
from collections.abc import Iterator
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, cast

from sqlalchemy import Table, insert, select, update
from sqlalchemy.orm import Session

from app.datasets import deferred, rows
from app.datasets.fetching import fetcher
from app.datasets.parent_images import from_parent
from app.datasets.validation import DatasetFiles, Fetch, ValidationResult, check, summarize
from app.db.models import (
    Annotation,
    Category,
    Dataset,
    DatasetStatus,
    Image,
    ImportFile,
    Job,
    JobKind,
    JobState,
    Reason,
)
from app.errors import ValidationIssue
from app.http.multipart import FilePart
from app.integrations.label_studio import training as label_studio
from app.jobs.submit import request_of
from app.storage import garbage_collection as blobs
from app.storage.store import link
from app.uploads import service as uploads
from sapnet.utils.files import file_sha256
from worker.jobs.context import InlineHandler, JobContext
from worker.jobs.transitions import finish_job, remove_under_lease
from worker.runtime.lease import renew_lease

MAX_ERRORS = 1_000  # kept in the report


def run_import(ctx: JobContext) -> None:
    """Make the job's dataset ready, or invalid, and end the job.

    Raises:
        StopRequested, LeaseLost, BlobMissing, OSError.
    """
    with ctx.database.read() as session:
        job = session.get_one(Job, ctx.job_id)
        request = request_of(ctx.storage, job)
        dataset = session.get_one(Dataset, job.dataset_id)
        query = select(ImportFile).where(ImportFile.dataset_id == dataset.id)
        files = list(session.scalars(query.order_by(ImportFile.pk)))
    folder = _emptied(ctx.workdir)
    project = request.get("label_studio")
    fetch = _fetch(ctx, files, request["images_url"], dataset.parent_id, project)
    sent = replace(_sent(ctx, files, folder, fetch), boxes=request.get("boxes", "use"))
    checked = check(sent, folder, ctx.settings, ctx.report_progress)
    if checked.issues:
        ctx.retry(lambda: _end_invalid(ctx, dataset, checked.issues))
    else:
        size = _size(checked, sent)
        ctx.retry(lambda: _remove_earlier_rows(ctx, dataset.id))
        _write_rows(ctx, dataset.id, checked)
        ctx.retry(lambda: _end_ready(ctx, dataset, checked, size, project))
        if project is not None:
            label_studio.train_what_is_ready(ctx.database, ctx.storage, ctx.settings, project)
        uploads.remove(ctx.database, request["uploads"])
    deferred.clean_up(ctx.database)
    blobs.clean_up(ctx.database, ctx.storage)


def _emptied(folder: Path) -> Path:
    """Of what an attempt before left there, but for images that were fetched."""
    for path in folder.iterdir():
        if path.name != "fetched":
            path.unlink()
    return folder


def _fetch(
    ctx: JobContext,
    files: list[ImportFile],
    images_url: str | None,
    parent_id: str | None,
    project: int | None,
) -> Fetch | None:
    """How to get the images where none were sent: from their address, or from the parent.

    Args:
        project: of Label Studio, whose images they are.
    """
    if images_url:
        host = label_studio.image_host(ctx.database, ctx.settings, project) if project else None
        return fetcher(ctx.settings, images_url, host)
    if any(file.part == "images" for file in files):
        return None
    return from_parent(ctx.database, ctx.storage, parent_id or "")


def _sent(
    ctx: JobContext, files: list[ImportFile], folder: Path, fetch: Fetch | None
) -> DatasetFiles:
    """The files as files of this machine, in `folder`, where they may be removed."""
    pieces: dict[int, list[ImportFile]] = {}
    for file in files:
        pieces.setdefault(file.number, []).append(file)
    parts: dict[str, list[FilePart]] = {"annotations": [], "images": [], "truth": []}
    for number, of_file in pieces.items():
        ctx.report_progress("files", number, len(pieces))
        path = folder / f"part-{number}"
        if len(of_file) == 1:
            link(ctx.storage.local_path(of_file[0].sha256), path)
        else:
            uploads.assemble(ctx.storage, _reported(ctx, of_file), path)
        first = of_file[0]
        parts[first.part].append(FilePart(first.part, first.filename, path))
    truth = parts["truth"][0] if parts["truth"] else None
    return DatasetFiles(parts["annotations"][0], parts["images"], truth, fetch)


def _reported(ctx: JobContext, pieces: list[ImportFile]) -> Iterator[str]:
    for number, piece in enumerate(pieces):
        ctx.report_progress("files", number, len(pieces))
        yield piece.sha256


def _size(checked: ValidationResult, sent: DatasetFiles) -> int:
    """Bytes that the data set takes."""
    paths = {p.path for p in checked.image_files.by_name.values()} | {sent.annotations.path}
    return sum(
        path.stat().st_size for path in paths | ({checked.truth} if checked.truth else set())
    )


def _remove_earlier_rows(ctx: JobContext, dataset_id: str) -> None:
    """Remove the rows of an attempt before this one, a batch at a time."""
    for table in (Annotation, Image, Category):
        rows = cast(Table, table.__table__)
        remove_under_lease(ctx, rows, rows.c.dataset_id == dataset_id)


def _write_rows(ctx: JobContext, dataset_id: str, checked: ValidationResult) -> None:
    path_of = {p.sha: p.path for p in checked.image_files.by_name.values()}
    done, of = 0, rows.count(checked)
    for table, batch in rows.batches(dataset_id, checked):
        ctx.report_progress("rows", done, of)
        shas = {row["sha256"] for row in batch} if table is Image else set()

        def insert_batch(table: Any = table, batch: Any = batch, shas: Any = shas) -> None:
            with blobs.pinned(ctx.database, ctx.storage, shas):
                ctx.storage.put_files({sha: path_of[sha] for sha in shas}, move=True)
                with ctx.database.begin() as session:
                    renew_lease(session, ctx.lease, ctx.settings, unless_cancelled=True)
                    session.execute(insert(table), batch)

        ctx.retry(insert_batch)
        time.sleep(blobs.PAUSE_SECONDS)
        done += len(batch)


def _end_ready(
    ctx: JobContext, dataset: Dataset, checked: ValidationResult, size: int, project: int | None
) -> None:
    truth = {} if checked.truth is None else {file_sha256(checked.truth): checked.truth}
    with blobs.pinned(ctx.database, ctx.storage, truth):
        ctx.storage.put_files(truth)
        with ctx.database.begin() as session:
            renew_lease(session, ctx.lease, ctx.settings, unless_cancelled=True)
            _change(
                session,
                dataset.id,
                status=DatasetStatus.READY,
                images=len(checked.document.images),
                annotations=len(checked.document.kept),
                bytes=size,
                report=checked.report,
                truth_sha=next(iter(truth), None),
            )
            if project is not None:
                label_studio.want_training(session, project, dataset.id)
            finish_job(session, ctx.lease, JobState.SUCCEEDED, step=None, of=None)


def _end_invalid(ctx: JobContext, dataset: Dataset, issues: list[ValidationIssue]) -> None:
    listed = [asdict(issue) for issue in issues[:MAX_ERRORS]]
    if len(issues) > MAX_ERRORS:
        more = ValidationIssue("", "", f"{len(issues) - MAX_ERRORS:,} more are not listed")
        listed.append(asdict(more))
    report = {"errors": listed}
    with ctx.database.begin() as session:
        renew_lease(session, ctx.lease, ctx.settings, unless_cancelled=True)
        _change(session, dataset.id, status=DatasetStatus.INVALID, report=report)
        reason, error = Reason.INVALID_DATASET, summarize(issues)
        finish_job(session, ctx.lease, JobState.FAILED, reason=reason, error=error)


def _change(session: Session, dataset_id: str, **values: Any) -> None:
    session.execute(update(Dataset).where(Dataset.id == dataset_id).values(values))


HANDLER = InlineHandler(JobKind.IMPORT, run_import)
