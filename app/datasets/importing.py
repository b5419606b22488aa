"""A form becomes a data set: everything is checked, then everything is stored, or nothing."""

from dataclasses import asdict
from pathlib import Path
from typing import Any

from sqlalchemy import insert
from sqlalchemy.orm import Session

from app import blobs
from app.access import idempotency
from app.datasets import archives, intake, service
from app.datasets.multipart import FilePart, Form
from app.datasets.schemas import DatasetOut
from app.db import Database
from app.errors import Fault, Invalid
from app.models import Annotation, Category, Dataset, DatasetStatus, Image, is_id
from app.settings import Settings
from app.storage import Storage, sha256_of
from sapnet.data.coco import PointDocument, check_against_images, read_points, read_truth
from sapnet.errors import InvalidDataset, Issue
from sapnet.types import PointSet

PARTS = ("name", "annotations", "images", "truth", "parent")
TEXTS = ("name", "parent")
MAX_NAME = 200
MAX_WARNINGS = 100  # kept in the report
_ROWS = 5_000  # inserted at once


def create(
    database: Database, storage: Storage, settings: Settings, form: Form, folder: Path
) -> DatasetOut:
    """Check everything, then store everything. Raises Invalid with every fault there is; then, as
    after any other failure, no row and no blob is left."""
    faults = _form_faults(database, form)
    name = form.texts.get("name", "").strip()
    annotations, truth = form.named("annotations"), form.named("truth")
    if not annotations:
        raise Invalid(faults)
    document = read_points(annotations[0].path)
    faults += _faults("annotations", document.issues)
    names = [image.file_name for image in document.points.images]
    pictures = intake.collect(
        form.named("images"), names, folder, _limits(settings), settings.max_image_pixels
    )
    faults += pictures.faults
    if form.named("images"):
        complete = not pictures.unread
        issues = check_against_images(document, pictures.found, complete=complete)
        faults += _faults("annotations", issues)
    report = _report(document, pictures)
    truth_path = _truth(document, annotations[0], truth, faults, report)
    if faults:
        raise Invalid(faults, f"Nothing was kept; {_many(len(faults), 'fault')}")

    points = document.with_sizes(
        {n: size for n, p in pictures.by_name.items() if (size := p.size) is not None}
    )
    files = {p.sha: p.path for p in pictures.by_name.values()}
    document_sha, truth_sha = sha256_of(annotations[0].path), None
    files[document_sha] = annotations[0].path
    if truth_path:
        truth_sha = sha256_of(truth_path)
        files[truth_sha] = truth_path
    dataset = Dataset(
        name=name or Path(annotations[0].filename).stem or "data set",
        status=DatasetStatus.READY,
        parent_id=form.texts.get("parent") or None,
        images=len(points.images),
        annotations=len(points.annotations),
        bytes=sum(path.stat().st_size for path in files.values()),
        report=report,
        document_sha=document_sha,
        truth_sha=truth_sha,
    )
    with blobs.pinned(database, storage, files):
        for sha, path in files.items():
            storage.put_file(path, sha=sha, move=True)
        with database.begin() as session:
            session.add(dataset)
            session.flush()
            _insert(session, dataset.id, points, pictures)
            described = service.described(session, dataset)
            idempotency.keep(session, 201, f"/datasets/{dataset.id}", described)
    return described


def _form_faults(database: Database, form: Form) -> list[Fault]:
    faults = []
    for part in sorted({f.name for f in form.files} - set(PARTS)):
        faults.append(Fault(part, "", f"there is no part {part!r}", f"use {', '.join(PARTS)}"))
    for part in ("annotations", "images"):
        if not form.named(part):
            faults.append(Fault(part, "", f"the part {part!r} is missing", f"-F {part}=@file"))
    for part in ("annotations", "truth"):
        if len(form.named(part)) > 1:
            faults.append(Fault(part, "", f"the part {part!r} came twice", "send one file"))
    name = form.texts.get("name", "")
    if len(name) > MAX_NAME or not name.isprintable():
        faults.append(Fault("name", "", f"at most {MAX_NAME} printable characters", "shorten it"))
    parent = form.texts.get("parent")
    if parent:
        with database.read() as session:
            if not is_id(parent) or session.get(Dataset, parent) is None:
                faults.append(Fault("parent", "", f"there is no data set {parent!r}"))
    return faults


def _truth(
    document: PointDocument,
    annotations: FilePart,
    sent: list[FilePart],
    faults: list[Fault],
    report: dict[str, Any],
) -> Path | None:
    """The file that holds ground truth: one sent as such, else the annotations themselves where
    each of them has a segmentation. Only one that was sent can be at fault."""
    if sent:
        try:
            ids = {a["id"] for a in read_truth(sent[0].path)["annotations"]}
        except InvalidDataset as error:
            faults += _faults("truth", error.issues)
            return None
        if ids.isdisjoint(a.id for a in document.points.annotations):
            _warn(report, "truth", "", "no annotation id is one of the points' ids")
        report["truth"] = "truth"
        return sent[0].path
    if not document.has_truth:
        return None
    try:
        read_truth(annotations.path)
    except InvalidDataset as error:
        _warn(report, "annotations", "", f"the segmentations are no usable truth: {error}")
        return None
    report["truth"] = "annotations"
    return annotations.path


def _report(document: PointDocument, pictures: intake.Pictures) -> dict[str, Any]:
    of_image = document.points.annotations_of
    odd = _faults("annotations", document.warnings)
    warnings = [asdict(fault) for fault in odd[:MAX_WARNINGS]]
    if len(odd) > MAX_WARNINGS:
        more = f"{len(odd) - MAX_WARNINGS} more warnings are not listed"
        warnings.append(asdict(Fault("annotations", "", more)))
    return {
        "warnings": warnings,
        "images_without_annotations": sum(not group for group in of_image.values()),
        "crowd": len(document.crowds),
        "ignored_files": {"count": pictures.ignored, "examples": pictures.ignored_examples},
        "truth": None,
    }


def _warn(report: dict[str, Any], part: str, pointer: str, detail: str) -> None:
    report["warnings"].append(asdict(Fault(part, pointer, detail)))


def _many(count: int, what: str) -> str:
    return f"{count:,} {what}{'' if count == 1 else 's'}"


def _faults(part: str, issues: list[Issue]) -> list[Fault]:
    return [Fault(part, issue.pointer, issue.problem, issue.hint) for issue in issues]


def _limits(settings: Settings) -> archives.Limits:
    return archives.Limits(
        files=settings.max_archive_files,
        size=settings.max_archive_bytes,
        ratio=settings.max_archive_ratio,
    )


def _insert(session: Session, dataset_id: str, points: PointSet, pictures: intake.Pictures) -> None:
    of_class = dict.fromkeys((c.id for c in points.categories), 0)
    for annotation in points.annotations:
        of_class[annotation.category_id] += 1
    _bulk(
        session,
        Category,
        [
            {
                "dataset_id": dataset_id,
                "category_id": c.id,
                "name": c.name,
                "annotations": of_class[c.id],
            }
            for c in points.categories
        ],
    )
    _bulk(
        session,
        Image,
        [
            {
                "dataset_id": dataset_id,
                "image_id": i.id,
                "file_name": i.file_name,
                "width": i.width,
                "height": i.height,
                "annotations": len(points.annotations_of[i.id]),
                "sha256": pictures.by_name[i.file_name].sha,
            }
            for i in points.images
        ],
    )
    _bulk(
        session,
        Annotation,
        [
            {
                "dataset_id": dataset_id,
                "annotation_id": a.id,
                "image_id": a.image_id,
                "category_id": a.category_id,
                "x": a.x,
                "y": a.y,
            }
            for a in points.annotations
        ],
    )


def _bulk(session: Session, table: type, rows: list[dict[str, Any]]) -> None:
    for start in range(0, len(rows), _ROWS):
        session.execute(insert(table), rows[start : start + _ROWS])
