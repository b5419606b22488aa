"""An import, from the files that were sent to a data set that is ready or invalid.

Rows are written in batches, each under the fence, to a data set that nobody sees before it is
ready; that is the last transaction. An attempt that begins removes what one before it has written,
so a killed import that is taken up again gives the rows once.
"""

import os
import shutil
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

from sqlalchemy import delete, insert, select, update
from sqlalchemy.orm import Session

from app import blobs
from app.columns import now
from app.datasets import later, rows
from app.datasets.checking import Checked, Sent, check, summed_up
from app.datasets.fetching import fetcher
from app.datasets.intake import Tell
from app.datasets.multipart import FilePart
from app.db import Database
from app.errors import Fault
from app.jobs.events import append, append_state
from app.models import (
    Annotation,
    Category,
    Dataset,
    DatasetStatus,
    Image,
    ImportFile,
    Job,
    JobState,
    Reason,
)
from app.settings import Settings
from app.storage import Storage
from app.uploads import service as uploads
from worker.events import stage_ended
from worker.fence import Claim, write
from worker.prepare import workdir_of

MAX_ERRORS = 1_000  # kept in the report


@dataclass(frozen=True)
class Import:
    """What one attempt works with. tell: raises where it should end. patiently: does a piece of
    work, again and again while the database is away."""

    database: Database
    storage: Storage
    settings: Settings
    held: Claim
    tell: Tell
    patiently: Callable[[Callable[[], None]], None]


def run_import(at: Import) -> None:
    """Make the job's data set ready, or invalid, and end the job. Raises what `at.tell` raises,
    LeaseLost, BlobMissing, OSError."""
    with at.database.read() as session:
        job = session.get_one(Job, at.held.job_id)
        dataset = session.get_one(Dataset, job.dataset_id)
        query = select(ImportFile).where(ImportFile.dataset_id == dataset.id)
        files = list(session.scalars(query.order_by(ImportFile.pk)))
    folder = _emptied(workdir_of(at.settings, job.id))
    sent = _sent(at, files, folder, job.request["images_url"])
    checked = check(sent, folder, at.settings, at.tell)
    if checked.faults:
        at.patiently(lambda: _end_invalid(at, dataset, checked.faults))
    else:
        size = _size(checked, sent)
        _begin_again(at, dataset.id)
        _write_rows(at, dataset.id, checked)
        at.patiently(lambda: _end_ready(at, dataset, checked, files, size))
        uploads.remove(at.database, at.storage, job.request["uploads"])
    later.clear(at.database, at.storage)


def _emptied(folder: Path) -> Path:
    """Of what an attempt before left there, but for images that were fetched."""
    for path in folder.iterdir():
        if path.name != "fetched":
            path.unlink()
    return folder


def _sent(at: Import, files: list[ImportFile], folder: Path, images_url: str | None) -> Sent:
    """The files as files of this machine, in `folder`, where they may be removed."""
    pieces: dict[int, list[ImportFile]] = {}
    for file in files:
        pieces.setdefault(file.number, []).append(file)
    parts: dict[str, list[FilePart]] = {"annotations": [], "images": [], "truth": []}
    for number, of_file in pieces.items():
        at.tell("files", number, len(pieces))
        path = folder / f"part-{number}"
        if len(of_file) == 1:
            _link(at.storage.local_path(of_file[0].sha256), path)
        else:
            uploads.assemble(at.storage, _told(at, of_file), path)
        first = of_file[0]
        parts[first.part].append(FilePart(first.part, first.filename, path))
    fetch = fetcher(at.settings, images_url) if images_url else None
    truth = parts["truth"][0] if parts["truth"] else None
    return Sent(parts["annotations"][0], parts["images"], truth, fetch)


def _told(at: Import, pieces: list[ImportFile]) -> Iterator[str]:
    for number, piece in enumerate(pieces):
        at.tell("files", number, len(pieces))
        yield piece.sha256


def _link(source: Path, path: Path) -> None:
    """A second name for a blob, which costs nothing; a copy where that cannot be."""
    try:
        os.link(source, path)
    except OSError:
        shutil.copyfile(source, path)


def _size(checked: Checked, sent: Sent) -> int:
    """Bytes that the data set takes."""
    paths = {p.path for p in checked.pictures.by_name.values()} | {sent.annotations.path}
    return sum(
        path.stat().st_size for path in paths | ({checked.truth} if checked.truth else set())
    )


def _begin_again(at: Import, dataset_id: str) -> None:
    """Remove the rows of an attempt before this one."""

    def remove() -> None:
        with at.database.begin() as session:
            _fenced(at, session)
            shas = blobs.named_by(session, {Image: Image.dataset_id == dataset_id})
            for table in (Annotation, Image, Category):
                session.execute(delete(table).where(table.dataset_id == dataset_id))
        blobs.forget(at.database, at.storage, shas)

    at.patiently(remove)


def _write_rows(at: Import, dataset_id: str, checked: Checked) -> None:
    path_of = {p.sha: p.path for p in checked.pictures.by_name.values()}
    done, of = 0, rows.count(checked)
    for table, batch in rows.batches(dataset_id, checked):
        at.tell("rows", done, of)
        shas = {row["sha256"] for row in batch} if table is Image else set()

        def insert_batch(table: Any = table, batch: Any = batch, shas: Any = shas) -> None:
            with blobs.pinned(at.database, at.storage, shas):
                for sha in shas:
                    at.storage.put_file(path_of[sha], sha=sha, move=True)
                with at.database.begin() as session:
                    _fenced(at, session)
                    session.execute(insert(table), batch)

        at.patiently(insert_batch)
        done += len(batch)


def _fenced(at: Import, session: Session) -> None:
    """Raises LeaseLost where this attempt may write no more; else it lives on."""
    until = now() + timedelta(seconds=at.settings.lease_seconds)
    write(session, at.held, unless_cancelled=True, lease_until=until)


def _end_ready(
    at: Import, dataset: Dataset, checked: Checked, files: list[ImportFile], size: int
) -> None:
    truth = {"annotations": dataset.document_sha}
    truth |= {file.part: file.sha256 for file in files if file.part == "truth"}
    with at.database.begin() as session:
        _over(at, session, JobState.SUCCEEDED, progress=1.0, eta_seconds=0.0, step=None, of=None)
        _change(
            session,
            dataset.id,
            status=DatasetStatus.READY,
            images=len(checked.document.images),
            annotations=len(checked.document.kept),
            bytes=size,
            report=checked.report,
            truth_sha=truth[checked.report["truth"]] if checked.truth else None,
        )
        append(session, at.held.job_id, [stage_ended("rows")])
        append_state(session, at.held.job_id)


def _end_invalid(at: Import, dataset: Dataset, faults: list[Fault]) -> None:
    listed = [asdict(fault) for fault in faults[:MAX_ERRORS]]
    if len(faults) > MAX_ERRORS:
        more = Fault("", "", f"{len(faults) - MAX_ERRORS:,} more are not listed")
        listed.append(asdict(more))
    report = {"errors": listed}
    with at.database.begin() as session:
        reason, error = Reason.INVALID_DATASET, summed_up(faults)
        _over(at, session, JobState.FAILED, reason=reason, error=error)
        _change(session, dataset.id, status=DatasetStatus.INVALID, report=report)
        append_state(session, at.held.job_id)


def _over(at: Import, session: Session, state: JobState, **values: Any) -> None:
    over = {"reason": None, "error": None, "finished_at": now(), "lease_until": None, **values}
    write(session, at.held, unless_cancelled=True, state=state, **over)


def _change(session: Session, dataset_id: str, **values: Any) -> None:
    session.execute(update(Dataset).where(Dataset.id == dataset_id).values(values))
