"""Read COCO-style annotations: a point or a box per object, and its mask where that is known.

"mask" is an RLE that the owner confirms; "segmentation" is ground truth, which no training sees.
Imports no torch.

A document is checked by itself (`read_points`) and against the images that came with it
(`check_against_images`), so that a service can check it before the images have arrived, and still
list everything that is wrong at once. `read_truth` reads the instances that metrics need.
"""

from collections.abc import Container, Mapping
from dataclasses import replace
from pathlib import Path, PureWindowsPath
from typing import Any

import numpy as np

from sapnet.data.annotations.annotation_checks import (
    NO_POINT_HINT,
    AnnotationChecks,
    check_mask,
    is_inside,
    settle_outside,
)
from sapnet.data.annotations.boxes import Boxes, settle_box
from sapnet.data.annotations.decoding import (
    INVALID,
    AnnotationEntry,
    CategoryEntry,
    ImageEntry,
    Issues,
    NoDocument,
    ReadProgress,
    first_of_each,
    ignore_progress,
    is_text,
    read_list,
    read_lists,
    shown,
)
from sapnet.data.annotations.document import BOXED, PointDocument, Rows
from sapnet.data.annotations.frames import stated_frame
from sapnet.data.annotations.ground_truth import check_truth, read_truth
from sapnet.data.category_names import category_warnings
from sapnet.data.file_names import is_address, relative
from sapnet.data.file_pairing import Unpaired
from sapnet.data.masks import check_size
from sapnet.data.subsets import MAX_GROUP, subset_named
from sapnet.errors import InvalidDataset, InvalidGeometry, ValidationIssue
from sapnet.types import Category, ImageInfo, PointSet, Subset

__all__ = [
    "PointDocument",
    "check_against_images",
    "check_truth",
    "load_points",
    "read_points",
    "read_truth",
    "settle_undeclared",
]


def read_points(
    source: bytes | Path, progress: ReadProgress = ignore_progress, boxes: Boxes = "use"
) -> PointDocument:
    """Read a points document and list everything that is wrong in it (at most 1,000 issues).

    A document whose "info" has {"unannotated": true} may have no annotations: its images are to be
    labelled.

    The file is read twice in pieces, the short lists first, so annotations may come before images,
    and memory is that of the images and 45 bytes an annotation, 81 where it has a box.

    Args:
        progress: called now and then with the bytes read so far.
        boxes: "ignore" takes a bbox that is no point for nothing.

    Raises:
        OSError: the path cannot be read. Nothing is raised for what the document says.
    """
    issues, warnings, rows = Issues(), Issues(), Rows()
    try:
        kinds: dict[str, Any] = {"images": ImageEntry, "categories": CategoryEntry}
        lists = read_lists(source, kinds, ("annotations",), issues)
        categories = _check_categories(lists["categories"], issues)
        images = _check_images(lists["images"], issues, warnings)
        use = boxes == "use"
        checks = AnnotationChecks(lists, images, categories, rows, issues, warnings, boxes=use)
        if lists["annotations"] is not INVALID:
            for start, records in read_list(
                source, "annotations", AnnotationEntry, issues, progress
            ):
                checks.add(start, records)
            checks.finish()
    except NoDocument:
        return PointDocument((), (), Rows(), issues.listed(), [], (), ())
    places = [index for index, _ in images.values()]
    document = PointDocument(
        images=tuple(info for _, info in images.values()),
        categories=tuple(categories.values()),
        rows=rows,
        issues=issues.listed(),
        warnings=warnings.listed(),
        image_indices=tuple(places),
        addresses=tuple(lists["images"][index].address for index in places),
        frame=stated_frame(lists.get("info")),
    )
    if categories:
        parents = {c.supercategory for c in lists["categories"] if isinstance(c.supercategory, str)}
        document.warnings.extend(
            category_warnings(document.categories, document.per_category(), parents)
        )
    return document


def load_points(
    path: Path,
    image_sizes: Mapping[int, tuple[int, int]] | None = None,
    boxes: Boxes = "use",
    *,
    may_be_empty: bool = False,
) -> PointSet:
    """Read points that must be right.

    Args:
        image_sizes: image id -> (h, w) of the image's file; of others the declared size counts.
        boxes: see `read_points`.
        may_be_empty: whether there need be no annotation, as in a part of a data set.

    Raises:
        InvalidDataset: carries every issue.
    """
    document = read_points(path, boxes=boxes)
    sizes = image_sizes or {}
    by_name = {image.file_name: sizes[image.id] for image in document.images if image.id in sizes}
    document, outside, _ = settle_undeclared(document, by_name)
    issues = document.issues + check_against_images(document, by_name, complete=False) + outside
    issues += undeclared_sizes(document, by_name)
    if not (issues or len(document.kept) or may_be_empty):
        problem = "there is no annotation to train on"
        issues = [ValidationIssue("/annotations", problem, NO_POINT_HINT)]
    if issues:
        raise InvalidDataset(issues)
    return document.with_sizes(by_name)


def undeclared_sizes(document: PointDocument, sized: Container[str]) -> list[ValidationIssue]:
    """Images whose size neither the document declares nor anybody else knows.

    Args:
        sized: file names of those whose size is known.
    """
    issues = Issues()
    for index, image in zip(document.image_indices, document.images, strict=True):
        if not image.width and image.file_name not in sized:
            problem = f"width and height of {shown(image.file_name)} are missing"
            issues.add(f"/images/{index}", problem, "declare them, in pixels")
    return issues.listed()


def settle_undeclared(
    document: PointDocument, states: Mapping[str, tuple[int, int] | str]
) -> tuple[PointDocument, list[ValidationIssue], list[ValidationIssue]]:
    """Boxes and points beyond images of undeclared sizes, see `settle_box`, `settle_outside`.

    Args:
        states: see `check_against_images`.

    Returns:
        The document without those that are left out, boxes cut; issues; warnings.
    """
    issues, warnings, rows = Issues(), Issues(), document.rows
    sizes = {
        image.id: replace(image, height=state[0], width=state[1])
        for image in document.images
        if not image.width and isinstance(state := states.get(image.file_name), tuple)
    }
    concerned = document.kept[np.isin(np.asarray(rows.image_ids)[document.kept], list(sizes))]
    boxed = np.intersect1d(concerned, rows.where(BOXED)).tolist()
    if boxed:
        rows = rows.copied()
        document = replace(document, rows=rows)
    for row in boxed:
        if box := rows.box(row):
            settle_box(rows, row, box, sizes[rows.image_ids[row]], warnings)
    outside = [
        (row, image)
        for row in concerned.tolist()
        if not is_inside((rows.x[row], rows.y[row]), image := sizes[rows.image_ids[row]])
    ]
    if outside:
        rows = rows.copied()
        settle_outside(rows, outside, issues, warnings)
        document = replace(document, rows=rows)
    return document, issues.listed(), warnings.listed()


def check_against_images(
    document: PointDocument,
    states: Mapping[str, tuple[int, int] | str],
    *,
    complete: bool = True,
    missing: Mapping[str, Unpaired] | None = None,
) -> list[ValidationIssue]:
    """Issues between a document and its images.

    Args:
        states: file_name -> (h, w) of the decoded file, or in words what is wrong with that file.
        complete: whether a name that `states` lacks is a missing image.
        missing: what there is to say of those, by file_name.
    """
    issues = Issues()
    undeclared: dict[int, ImageInfo] = {}
    for index, image in zip(document.image_indices, document.images, strict=True):
        state = states.get(image.file_name)
        pointer = f"/images/{index}"
        if state is None:
            if complete:
                why = (missing or {}).get(image.file_name) or Unpaired(
                    f"there is no image {shown(image.file_name)}", "send it, or correct the name"
                )
                issues.add(f"{pointer}/file_name", why.problem, why.hint)
        elif isinstance(state, str):
            issues.add(
                f"{pointer}/file_name", f"{shown(image.file_name)}: {state}", "replace the image"
            )
        elif not image.width:
            height, width = state
            undeclared[image.id] = replace(image, width=width, height=height)
        elif image.size != state:
            height, width = state
            issues.add(
                pointer,
                f"declared {image.width}×{image.height} pixels, but {shown(image.file_name)} has "
                f"{width}×{height}",
                "points must be in pixels of the image as stored, or as its EXIF has it shown: "
                "send the very file that was annotated",
            )
    if undeclared:
        rows = document.rows
        for row in sorted(rows.masks.keys() & set(document.kept.tolist())):
            if (image_id := rows.image_ids[row]) in undeclared:
                size = undeclared[image_id].size
                check_mask(f"/annotations/{row}/mask", rows.masks[row], size, issues)
    return issues.listed()


def _check_categories(records: list[CategoryEntry], issues: Issues) -> dict[int, Category]:
    if records is INVALID:
        return {}
    if not records:
        issues.add("/categories", "there are no categories", "name at least one class")
    first = first_of_each((r.id for r in records), "/categories/{}/id", "category id", issues)
    for index, record in enumerate(records):
        if record.name is not INVALID and not is_text(record.name):
            problem = "holds characters that are no text"
            issues.add(f"/categories/{index}/name", problem, "rename it")
    return {
        id_: Category(id_, records[index].name)
        for id_, index in first.items()
        if records[index].name is not INVALID
    }


def _check_images(
    records: list[ImageEntry], issues: Issues, warnings: Issues
) -> dict[int, tuple[int, ImageInfo]]:
    """Image id -> (index in the file, info), for the records that are right."""
    if records is INVALID:
        return {}
    if not records:
        issues.add("/images", "there are no images", "list at least one image")
    for record in records:
        _resolve_address(record)
    first = first_of_each((r.id for r in records), "/images/{}/id", "image id", issues)
    first_of_each((r.file_name for r in records), "/images/{}/file_name", "file name", issues)
    images = {}
    for index, record in enumerate(records):
        right = _check_image(record, f"/images/{index}", issues)
        if right and record.id is not INVALID and first[record.id] == index:
            size = (record.width or 0, record.height or 0)
            part = _split_of(record, f"/images/{index}", warnings)
            images[record.id] = (index, ImageInfo(record.id, record.file_name, *size, *part))
    return images


def _split_of(
    record: ImageEntry, pointer: str, warnings: Issues
) -> tuple[Subset | None, str | None]:
    """The subset and the group of an image; what cannot be one is passed over with a warning."""
    subset, group = record.subset, record.group
    named = subset_named(subset) if isinstance(subset, str) else None
    if subset not in (None, "") and named is None:
        problem = f"the subset {shown(subset)} is none of train, val and test: it is passed over"
        warnings.add(f"{pointer}/subset", problem, "name one of the three, or leave it out")
    if isinstance(group, int) and not isinstance(group, bool):
        group = str(group)
    if group is not None and not (
        isinstance(group, str) and 0 < len(group) <= MAX_GROUP and is_text(group)
    ):
        problem = f"the group {shown(group)} is no text of 1 to {MAX_GROUP} characters: passed over"
        warnings.add(f"{pointer}/group", problem, "give images of one group the same text")
        group = None
    return named, group


def _resolve_address(record: ImageEntry) -> None:
    """A file name that is an address becomes its path; the address is kept as such."""
    name = record.file_name
    if name is not INVALID and is_address(name) and (path := relative(name)):
        record.file_name, record.url = path, record.address or name


def _check_image(record: ImageEntry, pointer: str, issues: Issues) -> bool:
    before = issues.total
    name = record.file_name
    if name is not INVALID:
        path = PureWindowsPath(name)  # knows both kinds of slash, and drives
        if not is_text(name):
            issues.add(f"{pointer}/file_name", "holds characters that are no text", "rename it")
        elif path.root or path.drive or ".." in path.parts:
            issues.add(
                f"{pointer}/file_name",
                f"{shown(name)} leaves the folder of images",
                f"use its path within this folder, such as {shown(Path(relative(name)).name)}",
            )
        elif not name.strip() or not path.name:
            issues.add(f"{pointer}/file_name", "the file name is empty", "name the image's file")
    if (record.width is None) != (record.height is None):
        issues.add(pointer, "has only one of width and height", "give both, or neither")
    elif record.width not in (None, INVALID) and record.height is not INVALID:
        try:
            check_size((record.height, record.width))
        except InvalidGeometry as error:
            issues.add(pointer, str(error), error.hint)
    readable = name is not INVALID and record.width is not INVALID and record.height is not INVALID
    return readable and issues.total == before
