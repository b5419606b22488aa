"""Data sets that a worker imports: requested, and cleaned up after.

The import is a job of the kind `import`, so it is leased, cancelled and reported like any other;
see `worker/jobs/import_dataset.py`.
"""

from typing import cast

from sqlalchemy import Table, exists, select

from app.datasets import service
from app.datasets.form import CreateDatasetForm
from app.datasets.schemas import DatasetOut
from app.db.models import Annotation, Category, Dataset, DatasetStatus, Image, ImportFile, JobKind
from app.db.session import Database
from app.http import idempotency
from app.jobs.submit import new_job, submit, take_out_request
from app.settings import Settings
from app.storage import garbage_collection as blobs
from app.storage.store import Storage
from sapnet.utils.files import file_sha256


def create(
    database: Database, storage: Storage, settings: Settings, wanted: CreateDatasetForm
) -> DatasetOut:
    """Make a data set that is `importing`, and the job that will make it ready or invalid.

    Its files are stored first; where anything fails, no row and no blob is left.
    """
    files = [wanted.annotations, *([wanted.truth] if wanted.truth else []), *wanted.images]
    digests = [file_sha256(file.path) for file in files]
    pieces = {sha for stored in wanted.stored for sha in stored.shas}
    asked = {name: getattr(wanted, name) for name in ("images_url", "uploads", "boxes")}
    if wanted.label_studio is not None:
        asked["label_studio"] = wanted.label_studio
    job = new_job(JobKind.IMPORT, "", asked)
    request = take_out_request(job)
    with blobs.pinned(database, storage, {*digests, *pieces, *request}):
        by_sha = dict(zip(digests, (file.path for file in files), strict=True))
        storage.put_files(by_sha, move=True)
        for blob in request.values():
            storage.put_bytes(blob)
        with database.begin() as session:
            dataset = Dataset(
                name=wanted.name,
                status=DatasetStatus.IMPORTING,
                parent_id=wanted.parent,
                images=0,
                annotations=0,
                bytes=wanted.size,
                report={},
                document_sha=digests[0],
            )
            session.add(dataset)
            session.flush()
            named: list[tuple[str, str, tuple[str, ...]]] = [
                *((f.name, f.filename, (sha,)) for f, sha in zip(files, digests, strict=True)),
                *(("images", stored.filename, stored.shas) for stored in wanted.stored),
            ]
            session.add_all(
                ImportFile(
                    dataset_id=dataset.id, part=part, number=number, filename=name, sha256=sha
                )
                for number, (part, name, shas) in enumerate(named)
                for sha in shas
            )
            job.dataset_id = dataset.id
            submit(session, settings, job)
            described = service.described(session, dataset)
            idempotency.save_response(session, 202, f"/datasets/{dataset.id}", described)
    return described


def clean_up(database: Database) -> None:
    """Remove what imports that are over have left, a batch of rows at a time.

    These are the files they were made from, and the rows of those that came to nothing. Calling it
    again does nothing.
    """
    over = Dataset.status != DatasetStatus.IMPORTING
    invalid = Dataset.status == DatasetStatus.INVALID
    for condition, tables in ((over, (ImportFile,)), (invalid, (Annotation, Image, Category))):
        for table in tables:
            rows = cast(Table, table.__table__)
            left = exists().where(rows.c.dataset_id == Dataset.id)
            with database.read() as session:
                ids = session.scalars(select(Dataset.id).where(condition, left)).all()
            for dataset_id in ids:
                blobs.remove_in_batches(database, rows, rows.c.dataset_id == dataset_id)
