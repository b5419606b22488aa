"""Make a data set from a form: in the request where it is small, else by a worker.

In the request, everything is checked, then everything is stored, or nothing.
"""

import math
from dataclasses import replace
from pathlib import Path

from sqlalchemy import insert

from app.datasets import archives, deferred, rows, service
from app.datasets.form import CreateDatasetForm, form_issues, parse_form
from app.datasets.parent_images import from_parent
from app.datasets.schemas import DatasetOut
from app.datasets.validation import DatasetFiles, check, summarize
from app.db.models import Dataset, DatasetStatus
from app.db.session import Database
from app.errors import Invalid, ValidationIssue
from app.http import idempotency
from app.http.multipart import FilePart, Form
from app.settings import Settings
from app.storage import garbage_collection as blobs
from app.storage.store import Storage
from app.uploads import service as uploads
from sapnet.utils.files import file_sha256


def create_dataset(
    database: Database,
    storage: Storage,
    settings: Settings,
    form: Form,
    folder: Path,
    *,
    respond_async: bool,
    label_studio: int | None = None,
) -> tuple[int, DatasetOut]:
    """Return the status to answer with, 201 or 202, and the data set: ready, or importing.

    After any failure no row and no blob is left.

    Args:
        label_studio: see `CreateDatasetForm`.

    Raises:
        Invalid: with every issue there is; of a data set that a worker is to import, with those of
            the form alone.
    """
    issues = form_issues(database, settings, form)
    wanted = parse_form(database, storage, settings, form, folder, issues)
    if wanted is None:
        raise Invalid(issues)
    large = wanted.size > settings.sync_import_bytes
    if not (large or respond_async or wanted.images_url):
        images = _with_uploads(storage, wanted, folder)
        if not _is_large(settings, wanted, images):
            return 201, _at_once(database, storage, settings, wanted, images, folder, issues)
    if issues:
        raise Invalid(issues, summarize(issues))
    wanted = replace(wanted, label_studio=label_studio)
    return 202, deferred.create(database, storage, settings, wanted)


def _with_uploads(storage: Storage, wanted: CreateDatasetForm, folder: Path) -> list[FilePart]:
    """The images that came with the form, and those that were uploaded before, as files."""
    images = list(wanted.images)
    for number, stored in enumerate(wanted.stored):
        path = folder / f"upload-{number}"
        uploads.assemble(storage, stored.shas, path)
        images.append(FilePart("images", stored.filename, path))
    return images


def _is_large(settings: Settings, wanted: CreateDatasetForm, images: list[FilePart]) -> bool:
    """Whether a worker should import it: by its files, or by the rows that it may make."""
    documents = [wanted.annotations, *([wanted.truth] if wanted.truth else [])]
    if len(images) > settings.sync_import_files:
        return True
    if any(part.path.stat().st_size > settings.sync_document_bytes for part in documents):
        return True
    limits = archives.Limits(settings.sync_import_files, settings.sync_import_bytes, math.inf)
    packed = [part for part in (*documents, *images) if archives.is_archive(part.path)]
    return any(archives.is_large(part.path, limits) for part in packed)


def _at_once(
    database: Database,
    storage: Storage,
    settings: Settings,
    wanted: CreateDatasetForm,
    images: list[FilePart],
    folder: Path,
    issues: list[ValidationIssue],
) -> DatasetOut:
    parent = None if issues else wanted.image_parent_id
    fetch = from_parent(database, storage, parent) if parent else None
    sent = DatasetFiles(wanted.annotations, images, wanted.truth, fetch, wanted.boxes)
    checked = check(sent, folder, settings)
    issues = issues + checked.issues
    if issues:
        raise Invalid(issues, summarize(issues))

    files = {p.sha: p.path for p in checked.image_files.by_name.values()}
    document_sha, truth_sha = file_sha256(wanted.annotations.path), None
    files[document_sha] = wanted.annotations.path
    if checked.truth:
        truth_sha = file_sha256(checked.truth)
        files[truth_sha] = checked.truth
    dataset = Dataset(
        name=wanted.name,
        status=DatasetStatus.READY,
        parent_id=wanted.parent,
        images=len(checked.document.images),
        annotations=len(checked.document.kept),
        bytes=sum(path.stat().st_size for path in files.values()),
        report=checked.report,
        document_sha=document_sha,
        truth_sha=truth_sha,
    )
    with blobs.pinned(database, storage, files):
        storage.put_files(files, move=True)
        with database.begin() as session:
            session.add(dataset)
            session.flush()
            for table, batch in rows.batches(dataset.id, checked):
                session.execute(insert(table), batch)
            described = service.described(session, dataset)
            idempotency.save_response(session, 201, f"/datasets/{dataset.id}", described)
    uploads.remove(database, wanted.uploads)
    return described
