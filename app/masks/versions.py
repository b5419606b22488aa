"""A new version of a data set, from rows alone: what is kept, added, left out, named otherwise.

The images' files are the same ones: nothing is sent, hashed or decoded. Rows are read as they are
at one moment, and written in batches that nobody waits for; the data set is there after the last.
"""

import re
from collections import Counter
from collections.abc import Iterator, Mapping
from itertools import islice
from typing import TYPE_CHECKING, Any

from sqlalchemy import insert
from sqlalchemy.orm import Session

from app.datasets import removal
from app.datasets.rows import BATCH
from app.datasets.schemas import DatasetOut
from app.datasets.service import described
from app.db.columns import Base
from app.db.models import Annotation, Category, Dataset, DatasetStatus, Image
from app.db.session import Database
from app.errors import Conflict
from app.http import idempotency
from app.jobs.submit import hold_dataset
from app.masks.version_change import Change, Ids
from app.storage.garbage_collection import pause_after, wait_for_turn

if TYPE_CHECKING:
    from app.masks.version_rows import Annotations

_VERSION = re.compile(r", version (\d{1,9})$")
_NAME = 200
_INHERITED = ("crowd", "truth", "subsets")


def write_version(
    database: Database, parent: Dataset, ids: Ids | None, change: Change
) -> DatasetOut:
    """Write a version of a data set.

    Takes the database, not a session: it reads while it writes.

    Args:
        ids: of the parent's annotations.

    Raises:
        NotFound: the parent was deleted meanwhile.
        Conflict: no annotation would be left of those that there were, or it took too long.
    """
    from app.masks.version_rows import Annotations, images  # loads numpy

    kept_truth = not change.classes.ids
    dataset = Dataset(
        name=change.name or next_name(parent.name),
        status=DatasetStatus.READY,
        parent_id=parent.id,
        images=0,
        annotations=0,
        bytes=parent.bytes + sum(other.bytes for other in change.added),
        report={},
        document_sha=parent.document_sha,
        truth_sha=parent.truth_sha if kept_truth else None,
    )
    with removal.begin(database, dataset):
        rows = Annotations(database, dataset.id, parent.id, ids, change)
        write(database, Annotation, rows.read())
        if parent.annotations and not rows.per_class:
            raise Conflict("No object would be left to train on: all are rejected or left out.")
        counted = _Counted()
        write(database, Image, counted.of(images(database, dataset.id, parent.id, change), rows))
        report = {
            **{name: parent.report[name] for name in _INHERITED if name in parent.report},
            **rows.annotated,
            **change.report,
            "images_without_annotations": counted.empty,
        }
        if change.without_images or change.added:
            report["subsets"] = dict(counted.subsets)
        if not kept_truth:
            report.pop("truth", None)
        if change.reviews:
            report |= rows.report()
        return _finish(database, dataset, change.classes.names, rows.per_class, counted, report)


class _Counted:
    """What was counted while images were written."""

    def __init__(self) -> None:
        self.images = self.empty = 0
        self.subsets: Counter[str] = Counter()

    def of(
        self, rows: Iterator[dict[str, Any]], objects: "Annotations"
    ) -> Iterator[dict[str, Any]]:
        """Yield the rows of images with their numbers of objects."""
        for row in rows:
            count = objects.per_image[row["image_id"]]
            self.images += 1
            self.empty += not count
            if row["subset"]:
                self.subsets[row["subset"]] += 1
            yield {**row, "annotations": count}


def _finish(
    database: Database,
    dataset: Dataset,
    names: Mapping[int, str],
    per_class: Counter[int],
    counted: _Counted,
    report: dict[str, Any],
) -> DatasetOut:
    with database.begin() as session:
        hold_dataset(session, dataset.parent_id or "")
        _categories(session, dataset.id, names, per_class)
        values = {"images": counted.images, "annotations": per_class.total(), "report": report}
        if not removal.finish(session, dataset.id, **values):
            raise Conflict("The new version took too long to write; ask again.")
        answer = described(session, session.get_one(Dataset, dataset.id))
        idempotency.save_response(session, 201, f"/datasets/{dataset.id}", answer)
        return answer


def next_name(name: str) -> str:
    """Return the name of the next version: "cells" gives "cells, version 2", and so on."""
    match = _VERSION.search(name)
    version = f", version {int(match[1]) + 1 if match else 2}"
    return name[: match.start() if match else None][: _NAME - len(version)] + version


def _categories(
    session: Session, dataset_id: str, names: Mapping[int, str], per_class: Counter[int]
) -> None:
    session.add_all(
        Category(dataset_id=dataset_id, category_id=id_, name=name, annotations=per_class[id_])
        for id_, name in names.items()
    )


def write(database: Database, table: type[Base], rows: Iterator[dict[str, Any]]) -> None:
    """Write rows a batch at a time; others have their turn in between."""
    while batch := list(islice(rows, BATCH)):
        with database.begin() as session:
            began = wait_for_turn(session)
            session.execute(insert(table), batch)
        pause_after(began)
