"""What a form asks for: its files, the uploads it names, an address; and what is wrong with it."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import get_args

from app.datasets import annotation_import, archives
from app.datasets.archives import archive_limits
from app.datasets.image_sources import source_issues
from app.datasets.schemas import FORM_FILES, UPLOADS
from app.db.columns import is_id
from app.db.models import Dataset, DatasetStatus
from app.db.session import Database
from app.errors import ValidationIssue
from app.http.multipart import FilePart, Form
from app.settings import Settings
from app.storage.store import Storage
from app.uploads import service as uploads
from app.uploads.service import Stored
from sapnet.data.annotations.boxes import Boxes

BOXES: tuple[Boxes, ...] = get_args(Boxes)
MAX_NAME = 200
_WHOLE = "send annotations and images, or one archive of a data set that has both"


@dataclass(frozen=True)
class CreateDatasetForm:
    """A form, with the uploads that it names.

    Attributes:
        parent: id of the data set that this one corrects.
        images: those that came with the form.
        stored: images that were uploaded before.
        uploads: ids of all that was uploaded before, images and others.
        size: bytes, all together.
        boxes: whether boxes of annotations count.
        label_studio: key of the project that it is made of, and trained for: see
            `app.integrations.label_studio`. No form asks for it.
    """

    name: str
    parent: str | None
    annotations: FilePart
    truth: FilePart | None
    images: list[FilePart]
    stored: list[Stored]
    images_url: str | None
    uploads: list[str]
    size: int
    boxes: Boxes = "use"
    label_studio: int | None = None

    @property
    def image_parent_id(self) -> str | None:
        """Id of the data set whose images are to be used, where none were sent."""
        given = self.images or self.stored or self.images_url
        return None if given else self.parent


def parse_form(
    database: Database,
    storage: Storage,
    settings: Settings,
    form: Form,
    folder: Path,
    issues: list[ValidationIssue],
) -> CreateDatasetForm | None:
    """Return what a form asks for; None where there are no annotations to look at.

    Args:
        folder: for uploads that are put together.
        issues: what is wrong is appended to it.
    """
    uploads_of: dict[str, list[tuple[str, Stored]]] = {part: [] for part in FORM_FILES}
    for name, part in UPLOADS.items():
        for upload_id in form.lists.get(name, []):
            try:
                uploads_of[part].append((upload_id, uploads.stored(database, upload_id)))
            except uploads.NotUsable as error:
                issues.append(ValidationIssue(name, "", str(error), error.hint))
    documents: dict[str, FilePart] = {}
    for part in ("annotations", "truth"):
        files = form.named(part)
        for number, (_, stored) in enumerate(uploads_of[part]):
            if stored.size > settings.max_document_bytes:
                detail = f"at most {settings.max_document_bytes:,} bytes are taken"
                issues.append(ValidationIssue(f"{part}_upload", "", detail))
                continue
            path = folder / f"{part}-{number}"
            uploads.assemble(storage, stored.shas, path)
            files.append(FilePart(part, stored.filename, path))
        if len(files) > 1:
            issues.append(
                ValidationIssue(part, "", f"the part {part!r} came twice", "send one file")
            )
        if files:
            documents[part] = files[0]
    images, uploaded = form.named("images"), [file for _, file in uploads_of["images"]]
    given = bool(uploaded or form.texts.get("images_url") or form.texts.get("parent"))
    if not given:
        documents, images = _of_one_archive(documents, images, settings, folder, issues)
    elif len(uploaded) == 1 and not (images or "annotations" in documents):
        path = folder / "upload"
        uploads.assemble(storage, uploaded[0].shas, path)
        sent_whole = [FilePart("images", uploaded[0].filename, path)]
        documents, _ = _of_one_archive(documents, sent_whole, settings, folder, issues)
        path.unlink()
    if "annotations" not in documents:
        return None
    name = form.texts.get("name", "").strip()
    annotations = documents["annotations"]
    sent = [*documents.values(), *images]
    return CreateDatasetForm(
        name=name or Path(annotations.filename).stem[:MAX_NAME] or "data set",
        parent=form.texts.get("parent") or None,
        annotations=annotations,
        truth=documents.get("truth"),
        images=images,
        stored=uploaded,
        images_url=form.texts.get("images_url") or None,
        uploads=[upload_id for files in uploads_of.values() for upload_id, _ in files],
        size=sum(f.path.stat().st_size for f in sent) + sum(file.size for file in uploaded),
        boxes="ignore" if form.texts.get("boxes") == "ignore" else "use",
    )


def _of_one_archive(
    documents: dict[str, FilePart],
    images: list[FilePart],
    settings: Settings,
    folder: Path,
    issues: list[ValidationIssue],
) -> tuple[dict[str, FilePart], list[FilePart]]:
    """A data set in one archive, sent as its annotations or as its images: it is both.

    Args:
        issues: see `parse_form`.
    """
    annotations = documents.get("annotations")
    whole = annotations if annotations and not images else None
    if annotations is None and len(images) == 1:
        whole = images[0]
    if whole is None:
        return documents, images
    if not archives.is_archive(whole.path):
        missing = "images" if annotations else "annotations"
        issues.append(missing_part(missing))
        return documents, images
    path = folder / "documents.zip"
    try:
        limits, most = archive_limits(settings), settings.max_document_bytes
        annotation_import.take_documents(whole.path, path, limits, most)
    except archives.ArchiveProblem as error:
        detail = f"the archive {whole.filename!r} is refused: {error}"
        issues.append(ValidationIssue(whole.name, "", detail, _WHOLE))
        return documents, images
    packed = FilePart("annotations", whole.filename, path)
    return {**documents, "annotations": packed}, [replace(whole, name="images")]


def missing_part(part: str) -> ValidationIssue:
    """A part of the form that was not sent."""
    hint = f"-F {part}=@file, or -F {part}_upload=ID of a finished upload"
    return ValidationIssue(part, "", f"the part {part!r} is missing", hint)


def form_issues(database: Database, settings: Settings, form: Form) -> list[ValidationIssue]:
    """Return what is wrong with a form itself, before any of its files is read."""
    issues = []
    parts = ("name", "parent", "boxes", *FORM_FILES)
    for part in sorted({f.name for f in form.files} - set(FORM_FILES)):
        issues.append(
            ValidationIssue(part, "", f"there is no part {part!r}", f"use {', '.join(parts)}")
        )
    there = {
        part: form.named(part) or form.lists.get(f"{part}_upload") for part in UPLOADS.values()
    }
    elsewhere = bool(form.texts.get("images_url") or form.texts.get("parent"))
    # One archive may hold both: see `_of_one_archive`.
    one_archive = not elsewhere and (there["annotations"] or there["images"])
    for part in ("annotations", "images"):
        if not (there[part] or one_archive or (part == "images" and elsewhere)):
            issues.append(missing_part(part))
    name = form.texts.get("name", "")
    if len(name) > MAX_NAME or not name.isprintable():
        issues.append(
            ValidationIssue("name", "", f"at most {MAX_NAME} printable characters", "shorten it")
        )
    boxes = form.texts.get("boxes") or "use"
    if boxes not in BOXES:
        detail = f"it is neither {' nor '.join(BOXES)}"
        issues.append(ValidationIssue("boxes", "", detail, "leave it out to use them"))
    parent = form.texts.get("parent")
    if parent:
        with database.read() as session:
            row = session.get(Dataset, parent) if is_id(parent) else None
        if row is None:
            issues.append(ValidationIssue("parent", "", f"there is no data set {parent!r}"))
        elif row.status is not DatasetStatus.READY:
            waits = row.status is DatasetStatus.IMPORTING
            hint = "wait for it" if waits else "name one that is ready"
            issues.append(ValidationIssue("parent", "", f"the data set is {row.status}", hint))
    url = form.texts.get("images_url")
    if url:
        issues += source_issues(settings, url)
        if form.named("images") or form.lists.get("images_upload"):
            detail = "images were sent, and an address for them as well"
            issues.append(ValidationIssue("images_url", "", detail, "use one or the other"))
    return issues
