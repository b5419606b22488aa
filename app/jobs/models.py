"""Models from outside: taken in by a job, and removed. They have no data set."""

from pathlib import Path

from sqlalchemy import select
from sqlalchemy.orm import Session

from app.db.columns import Base
from app.db.models import ACTIVE, Job, JobKind, ModelAlias
from app.db.session import Database
from app.errors import Conflict, Invalid, ValidationIssue
from app.http import idempotency
from app.http.multipart import Form
from app.jobs.schemas import JobCreated
from app.jobs.submit import new_job, submit
from app.registry.service import get as get_model
from app.settings import Settings
from app.storage import garbage_collection as blobs
from app.storage.store import Storage
from app.uploads import service as uploads
from sapnet.utils import tensor_file
from sapnet.utils.files import file_sha256

MAX_NAME = 200


def create(
    database: Database, storage: Storage, settings: Settings, form: Form, folder: Path
) -> Job:
    """Keep a file that seems to be a model's, and the job that will read it.

    Args:
        form: with a part `file`, or `file_upload`; perhaps a `name`.
        folder: for an upload that is put together.

    Raises:
        Invalid: the form is incomplete; or the file is unsafe, damaged, or too large. Nothing is
            kept then.
    """
    path, filename, upload_id = _file(database, storage, settings, form, folder)
    name = form.texts.get("name", "").strip() or Path(filename).stem or "model"
    if len(name) > MAX_NAME or not name.isprintable():
        detail = f"at most {MAX_NAME} printable characters"
        raise Invalid([ValidationIssue("name", "", detail, "shorten it")])
    try:
        tensor_file.check(path, settings.max_model_bytes)
    except ValueError as error:
        raise Invalid([ValidationIssue("file", "", str(error))]) from error
    sha = file_sha256(path)
    job = new_job(JobKind.IMPORT_MODEL, None, {"name": name, "filename": filename})
    job.initial_sha = sha
    with blobs.pinned(database, storage, [sha]):
        storage.put_files({sha: path}, move=True)
        with database.begin() as session:
            submit(session, settings, job)
            made = JobCreated.model_validate(job)
            idempotency.save_response(session, 202, f"/jobs/{job.id}", made)
    uploads.remove(database, [upload_id] if upload_id else [])
    return job


def _file(
    database: Database, storage: Storage, settings: Settings, form: Form, folder: Path
) -> tuple[Path, str, str | None]:
    """Where the file is, its name as it was sent, and the upload that it was."""
    issues = [
        ValidationIssue(part.name[:100], "", "there is no such part", "use file, name")
        for part in form.files
        if part.name != "file"
    ]
    files, ids = form.named("file"), form.lists.get("file_upload", [])
    if len(files) + len(ids) != 1:
        hint = "-F file=@model.pth, or -F file_upload=ID of a finished upload"
        issues.append(ValidationIssue("file", "", "one file is wanted", hint))
    if issues:
        raise Invalid(issues)
    if files:
        return files[0].path, _presentable(files[0].filename), None
    try:
        stored = uploads.stored(database, ids[0])
    except uploads.NotUsable as error:
        raise Invalid([ValidationIssue("file_upload", "", str(error), error.hint)]) from error
    if stored.size > settings.max_model_bytes:
        detail = f"at most {settings.max_model_bytes:,} bytes are taken"
        raise Invalid([ValidationIssue("file_upload", "", detail)])
    path = folder / "upload"
    uploads.assemble(storage, stored.shas, path)
    return path, _presentable(stored.filename), ids[0]


def _presentable(filename: str) -> str:
    """A file's name without folders, for people."""
    name = filename.replace("\\", "/").rpartition("/")[2]
    return "".join(c for c in name if c.isprintable())[:MAX_NAME] or "model"


def delete(session: Session, name: str) -> None:
    """Remove a model that was imported, and the jobs on it that have no data set.

    Raises:
        NotFound: there is no such model.
        Conflict: it was trained here; a job that needs it is not over; it has an alias.
    """
    model = get_model(session, name)
    # Held by whoever makes a job with it (see `app.jobs.submit.hold_model`).
    own = select(Job.dataset_id).where(Job.id == model.job_id).with_for_update()
    if (dataset_id := session.scalars(own).one()) is not None:
        raise Conflict(f"It was trained here, and goes with its data set {dataset_id}.")
    jobs, aliases = Base.metadata.tables["job"].c, Base.metadata.tables[ModelAlias.__tablename__].c
    active = select(jobs.id).where(jobs.model_id == model.id, jobs.state.in_(ACTIVE))
    if users := list(session.scalars(active)):
        raise Conflict("Jobs that need the model are not over; wait for them.", jobs=users)
    if named := sorted(session.scalars(select(aliases.name).where(aliases.model_id == model.id))):
        raise Conflict(
            f"It has an alias: {', '.join(named)}. Move or remove it first.", aliases=named
        )
    on_it = select(jobs.id).where(jobs.dataset_id.is_(None), jobs.model_id == model.id)
    ids = list(session.scalars(on_it))
    session.expunge(model)
    for table in reversed(Base.metadata.sorted_tables):
        column = table.c.id if table.name == "job" else table.c.get("job_id")
        if column is not None:
            while blobs.remove_rows(session, table, column.in_(ids)):
                pass
