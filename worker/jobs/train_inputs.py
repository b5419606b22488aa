"""From rows to JOB.json: what the trainer needs, as files of this machine."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from app.db.models import Annotation, Category, Dataset, Image, Job
from app.db.session import Database
from app.errors import BlobMissing
from app.settings import Settings
from app.storage.store import Storage


def workdir_of(settings: Settings, job_id: str) -> Path:
    """The job's folder, the same for each of its attempts, so that a later one goes on."""
    return settings.folder("jobs", job_id)


def discard(settings: Settings, job_id: str) -> None:
    """Remove the folder of a job that has ended: its results are in storage and in rows."""
    shutil.rmtree(settings.data_dir.resolve() / "jobs" / job_id, ignore_errors=True)


def prepare(
    database: Database,
    storage: Storage,
    settings: Settings,
    job_id: str,
    should_stop: Callable[[], bool],
) -> Path | None:
    """Write JOB.json and what it names into the job's folder; its path.

    None where `should_stop` became true: with S3, every image is fetched here. Those that storage
    has lost are left out; raises BlobMissing where it has none of them, or not the truth.
    """
    workdir = workdir_of(settings, job_id)
    with database.read() as session:
        job = session.get_one(Job, job_id)
        points = _points(session, job.dataset_id)
        of_dataset = session.get_one(Dataset, job.dataset_id).truth_sha
        images = select(Image.image_id, Image.sha256).where(Image.dataset_id == job.dataset_id)
        blobs = {str(image_id): sha for image_id, sha in session.execute(images)}
    truth = job.truth_sha or of_dataset
    paths: dict[str, str] = {}
    missing: BlobMissing | None = None
    for image_id, sha in blobs.items():
        if should_stop():
            return None
        try:
            paths[image_id] = str(storage.local_path(sha))
        except BlobMissing as error:  # the run sets it aside, as it does any bad image
            missing = error
    if missing is not None and not paths:
        raise missing
    weights = settings.backbone_weights
    write_json(workdir / "points.json", points)
    write_json(
        workdir / "JOB.json",
        {
            "points": str(workdir / "points.json"),
            "truth": str(storage.local_path(truth)) if truth else None,
            "image_paths": paths,
            "workdir": str(workdir),
            "method": job.method,
            "preset": job.preset,
            "overrides": job.request["overrides"],
            "seed": job.seed,
            "proposals": job.request["proposals"],
            "proposal_store": str(settings.folder("proposals")),
            "initial_model": str(storage.local_path(job.initial_sha)) if job.initial_sha else None,
            "backbone_weights": str(weights.resolve()) if weights else None,
            "max_bad_images": settings.max_bad_images,
            "reserve_bytes": settings.reserve_bytes,
        },
    )
    return workdir / "JOB.json"


def _points(session: Session, dataset_id: str) -> dict[str, list[dict[str, Any]]]:
    """The data set as COCO-style points, with sizes as the files themselves have them."""
    images = select(Image.image_id, Image.file_name, Image.width, Image.height)
    categories = select(Category.category_id, Category.name)
    objects = select(
        Annotation.annotation_id,
        Annotation.image_id,
        Annotation.category_id,
        Annotation.x,
        Annotation.y,
        Annotation.segmentation,
    )
    return {
        "images": [
            {"id": id, "file_name": file_name, "width": width, "height": height}
            for id, file_name, width, height in session.execute(
                images.where(Image.dataset_id == dataset_id).order_by(Image.pk)
            )
        ],
        "annotations": [
            {
                "id": id,
                "image_id": image_id,
                "category_id": category_id,
                "point": [x, y],
                **({"mask": mask} if mask is not None else {}),
            }
            for id, image_id, category_id, x, y, mask in session.execute(
                objects.where(Annotation.dataset_id == dataset_id).order_by(Annotation.pk)
            )
        ],
        "categories": [
            {"id": id, "name": name}
            for id, name in session.execute(
                categories.where(Category.dataset_id == dataset_id).order_by(Category.category_id)
            )
        ],
    }


def write_json(path: Path, document: Any) -> None:
    """Whole or not at all."""
    part = path.with_suffix(".part")
    part.write_text(json.dumps(document), encoding="utf-8")
    part.replace(path)
