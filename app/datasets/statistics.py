"""What is in a data set: classes, sizes, objects an image; and what in it looks wrong."""

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from pycocotools import mask as coco_mask
from sqlalchemy import distinct, func, select
from sqlalchemy.orm import Session

from app.datasets import descriptors, point_findings, service
from app.datasets.descriptors import Described
from app.datasets.image_rows import images_of, rows_of
from app.datasets.statistics_schemas import (
    ClassStatistics,
    DatasetStatistics,
    Example,
    Finding,
    ImageSize,
    ObjectsInImages,
    Spread,
)
from app.db.models import Annotation, Dataset, DatasetStatus, Image
from app.errors import Conflict
from sapnet.data.descriptor import layouts
from sapnet.data.near_duplicates import near_duplicates

SIZES = 20
MASKS = 100_000
"""Confirmed masks whose areas are told."""
RARE = 0.1
"""A class is rare that has a share of the annotations below this one of its even share."""


def statistics(
    session: Session, dataset_id: str, job_id: str | None, min_distance: float, examples: int
) -> DatasetStatistics:
    """Count what is in a data set, and find what is worth a look.

    Args:
        job_id: a training, whose masks tell which points may be wrong.
        min_distance: pixels; points of one image that are nearer are told.
        examples: at most so many of each finding.

    Raises:
        NotFound: there is no such data set, or no such job.
        Conflict: the data set is not ready; the job has no masks, or is no training of it or of one
            that it was made from.
    """
    dataset = service.get(session, dataset_id)
    if dataset.status is not DatasetStatus.READY:
        raise Conflict(f"The data set is {dataset.status}.", dataset_status=dataset.status)
    job = None if job_id is None else point_findings.training_of(session, dataset, job_id)
    classes = _classes(session, dataset)
    by_objects = _by_objects(session, dataset_id)
    empty = dict(by_objects).get(0, 0)
    sizes = _sizes(session, dataset_id)
    described = descriptors.of_dataset(session, dataset_id)
    findings = [
        *_without_points(session, dataset_id, empty, examples),
        *_rare_classes(classes),
        *_duplicates(session, dataset_id, described, examples),
        *point_findings.of_positions(session, dataset_id, min_distance, examples),
    ]
    if job is not None:
        findings += point_findings.of_masks(session, dataset_id, job.id, examples)
    return DatasetStatistics(
        dataset_id=dataset_id,
        job_id=job_id,
        images=dataset.images,
        images_without_annotations=empty,
        annotations=dataset.annotations,
        described=len(described.ids),
        unreadable=described.unreadable,
        complete=not described.missing,
        classes=classes,
        objects_per_image=_spread_of(by_objects),
        images_by_objects=_grouped(by_objects),
        image_sizes=[ImageSize(width=w, height=h, images=n) for w, h, n in sizes[:SIZES]],
        different_sizes=len(sizes),
        mask_areas=_mask_areas(session, dataset_id),
        findings=findings,
    )


def _classes(session: Session, dataset: Dataset) -> list[ClassStatistics]:
    query = select(Annotation.category_id, func.count(distinct(Annotation.image_id)))
    query = query.where(Annotation.dataset_id == dataset.id).group_by(Annotation.category_id)
    images = {row[0]: row[1] for row in session.execute(query)}
    total = max(dataset.annotations, 1)
    classes = [
        ClassStatistics(
            id=c.category_id,
            name=c.name,
            annotations=c.annotations,
            share=round(c.annotations / total, 6),
            images=images.get(c.category_id, 0),
        )
        for c in service.categories(session, dataset)
    ]
    return sorted(classes, key=lambda c: (-c.annotations, c.id))


def _by_objects(session: Session, dataset_id: str) -> list[tuple[int, int]]:
    """(objects, how many images have so many), by objects."""
    query = select(Image.annotations, func.count()).where(Image.dataset_id == dataset_id)
    rows = session.execute(query.group_by(Image.annotations).order_by(Image.annotations))
    return [(row[0], row[1]) for row in rows]


def _sizes(session: Session, dataset_id: str) -> list[tuple[int, int, int]]:
    """(width, height, images), the most frequent first."""
    query = select(Image.width, Image.height, func.count().label("images"))
    query = query.where(Image.dataset_id == dataset_id).group_by(Image.width, Image.height)
    rows = [(row[0], row[1], row[2]) for row in session.execute(query)]
    return sorted(rows, key=lambda row: (-row[2], row[0], row[1]))


def _spread_of(counts: Sequence[tuple[int, int]]) -> Spread | None:
    if not counts:
        return None
    values, times = np.array(counts).T
    return _spread(np.repeat(values, times))


def _spread(values: Any) -> Spread | None:
    if not len(values):
        return None
    low, lower, median, upper, high = np.percentile(values, [0, 25, 50, 75, 100])
    return Spread(
        count=len(values),
        min=float(low),
        lower_quartile=float(lower),
        median=float(median),
        upper_quartile=float(upper),
        max=float(high),
        mean=round(float(np.mean(values)), 3),
    )


def _grouped(counts: Sequence[tuple[int, int]], most: int = 16) -> list[ObjectsInImages]:
    """Groups of equal width, at most about `most` of them; images without objects are one."""
    groups: dict[int, int] = {}
    width = max(1, -(-(counts[-1][0] if counts else 0) // most))
    for objects, images in counts:
        group = 0 if objects == 0 else 1 + (objects - 1) // width
        groups[group] = groups.get(group, 0) + images
    return [
        ObjectsInImages(objects=0 if not g else (g - 1) * width + 1, most=g * width, images=n)
        for g, n in sorted(groups.items())
    ]


def _mask_areas(session: Session, dataset_id: str) -> Spread | None:
    query = select(Annotation.segmentation).where(
        Annotation.dataset_id == dataset_id, Annotation.segmentation.is_not(None)
    )
    rows = session.scalars(query.limit(MASKS).execution_options(yield_per=1_000))
    return _spread([int(coco_mask.area(mask)) for mask in rows])


def _without_points(session: Session, dataset_id: str, count: int, most: int) -> Iterable[Finding]:
    if not count:
        return
    query = select(Image.image_id, Image.file_name)
    query = query.where(Image.dataset_id == dataset_id, Image.annotations == 0)
    rows = session.execute(query.order_by(Image.image_id).limit(most))
    detail = f"{_counted(count, 'image has', 'images have')} no points, and teach nothing"
    examples = [Example(image_id=row.image_id, file_name=row.file_name) for row in rows]
    yield Finding(kind="images_without_points", count=count, detail=detail, examples=examples)


def _rare_classes(classes: Sequence[ClassStatistics]) -> Iterable[Finding]:
    rare = [c for c in classes if c.share * len(classes) < RARE]
    if rare:
        names = ", ".join(f"{c.name} ({c.annotations})" for c in rare[:10])
        detail = f"{_counted(len(rare), 'class has', 'classes have')} very few objects: {names}"
        yield Finding(kind="rare_classes", count=len(rare), detail=detail)


def _duplicates(
    session: Session, dataset_id: str, described: Described, most: int
) -> Iterable[Finding]:
    groups = near_duplicates(described.hashes, layouts(described.features))
    if not groups:
        return
    ids = [[int(described.ids[place]) for place in group] for group in groups]
    count = sum(len(group) - 1 for group in ids)
    detail = (
        f"{_counted(count, 'image is', 'images are')} nearly the same as another one, "
        f"in {_counted(len(ids), 'group', 'groups')}"
    )
    yield _of_groups(session, dataset_id, "near_duplicates", count, detail, ids[:most])
    subsets = {
        row.image_id: row.subset
        for row in rows_of(session, dataset_id, (id_ for group in ids for id_ in group))
        if row.subset
    }
    mixed = [group for group in ids if len({subsets.get(id_) for id_ in group} - {None}) > 1]
    if mixed:
        number = _counted(len(mixed), "group", "groups")
        detail = (
            f"{number} of nearly the same images lie in several of train, val and test: figures "
            "that are measured there are too good"
        )
        kind = "duplicates_across_subsets"
        yield _of_groups(session, dataset_id, kind, len(mixed), detail, mixed[:most])


def _of_groups(
    session: Session, dataset_id: str, kind: Any, count: int, detail: str, groups: list[list[int]]
) -> Finding:
    names = images_of(session, dataset_id, [group[0] for group in groups])
    examples = [
        Example(image_id=group[0], file_name=names[group[0]], other_image_ids=group[1:100])
        for group in groups
    ]
    return Finding(kind=kind, count=count, detail=detail, examples=examples)


def _counted(count: int, one: str, many: str) -> str:
    return f"{count:,} {one if count == 1 else many}"
