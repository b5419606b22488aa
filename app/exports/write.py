"""A job's masks, from rows to a file. The one door from here to the library's exporters."""

import re
from collections.abc import Callable, Iterator
from functools import cached_property
from pathlib import Path
from typing import Any

from sqlalchemy import select

from app.db.models import Annotation, Category, Dataset, Image, Job, MaskStatus
from app.db.session import Database
from app.errors import BlobMissing
from app.exports.schemas import ExportRequest
from app.masks import service as masks
from app.storage.store import Storage
from sapnet.data import exporters as exports
from sapnet.data.exporters import Instance, Options, UnsupportedFormat
from sapnet.types import Category as Class
from sapnet.types import ImageInfo

__all__ = ["UnsupportedFormat", "filename", "write"]


def write(
    database: Database,
    storage: Storage,
    job_id: str,
    request: ExportRequest,
    target: Path,
    report_progress: Callable[[int, int], None],
) -> dict[str, Any]:
    """Write the file `target` from a job's masks.

    Args:
        report_progress: called before each image, with how many are done of how many. What it
            raises ends the work.

    Returns:
        The export's report, as in `ExportReport`.

    Raises:
        UnsupportedFormat: the format cannot hold these masks.
        OSError: the file cannot be written, or storage not be read.
    """
    source = JobSource(database, storage, job_id, request.min_quality)
    return exports.export(source, request.format, target, _options(request), report_progress)


def filename(database: Database, job_id: str, request: ExportRequest) -> str:
    """Return the name of the file where it is downloaded."""
    with database.read() as session:
        job = session.get_one(Job, job_id)
        name = session.get_one(Dataset, job.dataset_id).name
    plain = re.sub(r"[^A-Za-z0-9._-]+", "-", name).strip("-.")[:80]
    suffix = exports.suffix_of(request.format, _options(request))
    return f"{plain or 'masks'}-{request.format}{suffix}"


def _options(request: ExportRequest) -> Options:
    return Options(images=request.images, simplify=request.simplify)


class JobSource:
    """The masks of a job as they stand. Those of one image are read at a time."""

    def __init__(
        self, database: Database, storage: Storage, job_id: str, min_quality: float
    ) -> None:
        self._database, self._storage = database, storage
        self._job_id, self._min_quality = job_id, min_quality
        with database.read() as session:
            self._dataset_id = session.get_one(Job, job_id).dataset_id

    @cached_property
    def images(self) -> list[ImageInfo]:
        """Images of the data set, in the order in which they were sent."""
        columns = (Image.image_id, Image.file_name, Image.width, Image.height)
        split = (Image.subset, Image.split_group)
        query = (
            select(*columns, *split).where(Image.dataset_id == self._dataset_id).order_by(Image.pk)
        )
        with self._database.read() as session:
            return [ImageInfo(*row) for row in session.execute(query)]

    @cached_property
    def categories(self) -> list[Class]:
        """Classes of the data set."""
        query = select(Category.category_id, Category.name)
        query = query.where(Category.dataset_id == self._dataset_id)
        with self._database.read() as session:
            return [Class(*row) for row in session.execute(query)]

    def instances(self, image: ImageInfo) -> Iterator[Instance]:
        """Yield the masks of an image, those that were rejected too, by annotation id."""
        points = self._points(image)
        wanted = masks.Filter(self._job_id, image_id=image.id, min_quality=self._min_quality)
        after = None
        while True:
            with self._database.read() as session:
                batch = masks.page(session, wanted, masks.BATCH, after)
            for mask in batch:
                yield Instance(
                    mask["id"],
                    mask["category_id"],
                    mask["segmentation"],
                    mask["quality"],
                    rejected=mask["status"] == MaskStatus.REJECTED,
                    point=points.get(mask["id"]),
                )
            if len(batch) < masks.BATCH:
                return
            after = batch[-1]["id"]

    def file(self, image: ImageInfo) -> Path | None:
        """Return the image's file; None where storage has lost it."""
        query = select(Image.sha256).where(Image.dataset_id == self._dataset_id)
        with self._database.read() as session:
            sha = session.scalars(query.where(Image.image_id == image.id)).one()
        try:
            return self._storage.local_path(sha)
        except BlobMissing:
            return None

    def _points(self, image: ImageInfo) -> dict[int, tuple[float, float]]:
        query = select(Annotation.annotation_id, Annotation.x, Annotation.y).where(
            Annotation.dataset_id == self._dataset_id,
            Annotation.image_id == image.id,
            Annotation.pointed,
        )
        with self._database.read() as session:
            return {id_: (x, y) for id_, x, y in session.execute(query)}
