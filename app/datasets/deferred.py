"""Data sets that a worker imports: requested, and cleaned up after.

The import is a job of the kind `import`, so it is leased, cancelled and reported like any other;
see `worker/jobs/import_dataset.py`.
"""

from sqlalchemy import ColumnElement, delete, select

from app.datasets import service
from app.datasets.form import CreateDatasetForm
from app.datasets.schemas import DatasetOut
from app.db.columns import Base
from app.db.models import Annotation, Category, Dataset, DatasetStatus, Image, ImportFile, JobKind
from app.db.session import Database
from app.http import idempotency
from app.jobs.submit import new_job, submit
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
    with blobs.pinned(database, storage, {*digests, *pieces}):
        by_sha = dict(zip(digests, (file.path for file in files), strict=True))
        storage.put_files(by_sha, move=True)
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
            request = {"images_url": wanted.images_url, "uploads": wanted.uploads}
            submit(session, settings, new_job(JobKind.IMPORT, dataset.id, request))
            described = service.described(session, dataset)
            idempotency.save_response(session, 202, f"/datasets/{dataset.id}", described)
    return described


def clean_up(database: Database, storage: Storage) -> None:
    """Remove what imports that are over have left.

    These are the files they were made from, and the rows of those that came to nothing. Calling it
    again does nothing.
    """
    over = select(Dataset.id).where(Dataset.status != DatasetStatus.IMPORTING)
    invalid = select(Dataset.id).where(Dataset.status == DatasetStatus.INVALID)
    with database.read() as session:
        sent = session.scalars(select(ImportFile.dataset_id).where(ImportFile.dataset_id.in_(over)))
        ids = set(sent)
        ids |= set(session.scalars(select(Image.dataset_id).where(Image.dataset_id.in_(invalid))))
    for dataset_id in ids:
        with database.begin() as session:
            leftover: dict[type[Base], ColumnElement[bool]]
            leftover = {ImportFile: ImportFile.dataset_id == dataset_id}
            dataset = session.get(Dataset, dataset_id)
            if dataset is not None and dataset.status is DatasetStatus.INVALID:
                leftover |= {t: t.dataset_id == dataset_id for t in (Annotation, Image, Category)}
            shas = blobs.named_by(session, leftover)
            for table, condition in leftover.items():
                session.execute(delete(table).where(condition))
        blobs.forget(database, storage, shas)
