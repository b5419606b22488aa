"""Read COCO-style point annotations: one point per object, and its mask where that is known.

"mask" is an RLE that the owner confirms; "segmentation" is ground truth, which no training sees.
Imports no torch.

A document is checked by itself (`read_points`) and against the images that came with it
(`check_against_images`), so that a service can check it before the images have arrived, and still
list everything that is wrong at once. `read_truth` reads the instances that metrics need.
"""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path, PureWindowsPath
from typing import Any

import numpy as np

from sapnet.data.annotations.decoding import (
    INVALID,
    MAX_ISSUES,
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
from sapnet.data.annotations.document import (
    AT_BBOX,
    AT_POINT,
    CROWD,
    HAS_ID,
    TRUTH,
    VALID,
    PointDocument,
    Rows,
    repeats,
)
from sapnet.data.annotations.ground_truth import check_truth, read_truth
from sapnet.data.category_names import category_warnings
from sapnet.data.file_names import is_address, relative
from sapnet.data.file_pairing import Unpaired
from sapnet.data.masks import area, check_rle, check_size, checked_rle
from sapnet.errors import InvalidDataset, InvalidGeometry, ValidationIssue
from sapnet.types import Category, ImageInfo, PointSet, Rle

__all__ = [
    "PointDocument",
    "check_against_images",
    "check_truth",
    "load_points",
    "read_points",
    "read_truth",
]

NO_MASK_HINT = "give the RLE of the whole image, or leave the mask out"
NO_POINT_HINT = 'add "point": [x, y], keypoints with one visible point, or a bbox of zero size'


def read_points(source: bytes | Path, progress: ReadProgress = ignore_progress) -> PointDocument:
    """Read a points document and list everything that is wrong in it (at most 1,000 issues).

    The file is read twice in pieces, the short lists first, so annotations may come before images,
    and memory is that of the images and 45 bytes an annotation.

    Args:
        progress: called now and then with the bytes read so far.

    Raises:
        OSError: the path cannot be read. Nothing is raised for what the document says.
    """
    issues, warnings, rows = Issues(), Issues(), Rows()
    try:
        kinds: dict[str, Any] = {"images": ImageEntry, "categories": CategoryEntry}
        lists = read_lists(source, kinds, ("annotations",), issues)
        categories = _check_categories(lists["categories"], issues)
        images = _check_images(lists["images"], issues)
        checks = _Annotations(lists, images, categories, rows, issues)
        if lists["annotations"] is not INVALID:
            for start, records in read_list(
                source, "annotations", AnnotationEntry, issues, progress
            ):
                checks.add(start, records)
            checks.finish(warnings)
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
    )
    if categories:
        parents = {c.supercategory for c in lists["categories"] if isinstance(c.supercategory, str)}
        document.warnings.extend(
            category_warnings(document.categories, document.per_category(), parents)
        )
    return document


def load_points(path: Path, image_sizes: Mapping[int, tuple[int, int]] | None = None) -> PointSet:
    """Read points that must be right.

    Args:
        image_sizes: image id -> (h, w) of the image's file; None where the document declares them
            all.

    Raises:
        InvalidDataset: carries every issue.
    """
    document = read_points(path)
    if image_sizes is None:
        sizes = {image.file_name: image.size for image in document.images if image.width}
        undeclared = [
            ValidationIssue(
                f"/images/{index}", "width and height are missing", "declare them, in pixels"
            )
            for index, image in zip(document.image_indices, document.images, strict=True)
            if not image.width
        ]
        issues = document.issues + undeclared[:MAX_ISSUES]
    else:
        sizes = {
            image.file_name: image_sizes[image.id]
            for image in document.images
            if image.id in image_sizes
        }
        issues = document.issues + check_against_images(document, sizes)
    if issues:
        raise InvalidDataset(issues)
    return document.with_sizes(sizes)


def check_against_images(
    document: PointDocument,
    states: Mapping[str, tuple[int, int] | str],
    *,
    complete: bool = True,
    missing: Mapping[str, Unpaired] | None = None,
) -> list[ValidationIssue]:
    """What does not fit between a document and its images.

    Points of images whose size the document declares were checked against it before; here come
    those of the others.

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
        concerned = np.isin(np.asarray(rows.image_ids)[document.kept], list(undeclared))
        for row in document.kept[concerned].tolist():
            image = undeclared[rows.image_ids[row]]
            _check_inside(rows.pointer(row), (rows.x[row], rows.y[row]), image, issues)
            if row in rows.masks:
                _check_mask(f"/annotations/{row}/mask", rows.masks[row], image.size, issues)
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


def _check_images(records: list[ImageEntry], issues: Issues) -> dict[int, tuple[int, ImageInfo]]:
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
            images[record.id] = (index, ImageInfo(record.id, record.file_name, *size))
    return images


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


class _Annotations:
    """Checks annotations as they come, and writes a row for each."""

    def __init__(
        self,
        lists: Mapping[str, Any],
        images: Mapping[int, tuple[int, ImageInfo]],
        categories: Mapping[int, Category],
        rows: Rows,
        issues: Issues,
    ) -> None:
        # Ids as the file states them: a record with another fault is still known by its id.
        self._image_ids = _stated_ids(lists["images"])
        self._category_ids = _stated_ids(lists["categories"])
        self._images, self._categories = images, categories
        self._rows, self._issues = rows, issues

    def add(self, start: int, records: list[AnnotationEntry]) -> None:
        """Check records of the list, from its index `start` on."""
        for index, record in enumerate(records, start):
            self._add(record, f"/annotations/{index}")

    def _add(self, record: AnnotationEntry, pointer: str) -> None:
        issues, rows = self._issues, self._rows
        before = issues.total
        image_id, category_id = record.image_id, record.category_id
        _check_known(image_id, self._image_ids, f"{pointer}/image_id", "image", issues)
        _check_known(category_id, self._category_ids, f"{pointer}/category_id", "category", issues)
        crowd = record.iscrowd is not INVALID and bool(record.iscrowd)
        point = None if crowd else _point_of(record, pointer, issues)
        _, image = self._images.get(image_id, (0, None))
        place, (x, y) = point or (AT_POINT, (0.0, 0.0))
        rows.ids.append(0 if record.id is INVALID else record.id)
        rows.image_ids.append(0 if image_id is INVALID else image_id)
        rows.category_ids.append(0 if category_id is INVALID else category_id)
        rows.x.append(x)
        rows.y.append(y)
        rows.places.append(place)
        row = len(rows.ids) - 1
        if point and image and image.width:
            _check_inside(rows.pointer(row), (x, y), image, issues)
        if mask := _mask_of(record, pointer, issues):
            rows.masks[row] = mask
            if image and image.width:
                _check_mask(f"{pointer}/mask", mask, image.size, issues)
        resolved = (
            image is not None and category_id in self._categories and record.mask is not INVALID
        )
        right = issues.total == before and resolved and (crowd or point is not None)
        rows.flags.append(
            (HAS_ID if record.id is not INVALID else 0)
            | (VALID if right and record.id is not INVALID else 0)
            | (CROWD if crowd else 0)
            | (TRUTH if record.has_segmentation else 0)
        )

    def finish(self, warnings: Issues) -> None:
        """What can only be said of all together."""
        rows, issues = self._rows, self._issues
        for row, first in repeats(rows.where(HAS_ID), np.asarray(rows.ids)):
            problem = f"annotation id {rows.ids[row]} was used before, at /annotations/{first}/id"
            issues.add(f"/annotations/{row}/id", problem, "give each its own annotation id")
            rows.flags[row] &= ~VALID
        if len(rows.where(CROWD)) == len(rows):
            problem = "there is no annotation to train on"
            issues.add("/annotations", problem, "give a point an object")
        places = (np.asarray(column) for column in (rows.y, rows.x, rows.image_ids))
        for row, first in repeats(rows.where(VALID, unset=CROWD), *places):
            warnings.add(
                f"/annotations/{row}",
                f"has the same point as /annotations/{first}",
                "check that these are two objects",
            )


def _stated_ids(records: list[ImageEntry] | list[CategoryEntry]) -> set[int]:
    return set() if records is INVALID else {r.id for r in records if r.id is not INVALID}


def _check_known(id_: int, listed: set[int], pointer: str, what: str, issues: Issues) -> None:
    # An empty list of ids is an issue of its own.
    if listed and id_ is not INVALID and id_ not in listed:
        hint = f"correct the id, or list this {what}"
        issues.add(pointer, f"there is no {what} with id {id_}", hint)


def _point_of(
    record: AnnotationEntry, pointer: str, issues: Issues
) -> tuple[int, tuple[float, float]] | None:
    """The annotation's point and where it stands; None where there is none, which is an issue."""
    if INVALID in (record.point, record.keypoints, record.bbox):
        return None  # an issue already
    if record.point is not None:
        return AT_POINT, record.point
    keypoints, bbox = record.keypoints or [], record.bbox or []
    if len(keypoints) % 3:
        issues.add(f"{pointer}/keypoints", "the length is no multiple of 3", "use [x, y, visible]")
        return None
    visible = [i for i in range(0, len(keypoints), 3) if keypoints[i + 2] > 0]
    if len(visible) == 1:
        x, y, _ = keypoints[visible[0] : visible[0] + 3]
        return visible[0], (x, y)
    if len(bbox) == 4 and bbox[2] == 0 and bbox[3] == 0:
        return AT_BBOX, (bbox[0], bbox[1])
    if visible:
        issues.add(f"{pointer}/keypoints", f"{len(visible)} keypoints are visible", NO_POINT_HINT)
    else:
        issues.add(pointer, "the annotation has no point", NO_POINT_HINT)
    return None


def _mask_of(record: AnnotationEntry, pointer: str, issues: Issues) -> Rle | None:
    """The annotation's mask, compressed; None where there is none, or one that is an issue."""
    if record.mask is None or record.mask is INVALID:
        return None
    size, counts = record.mask.size, record.mask.counts
    try:
        mask = checked_rle({"size": size, "counts": counts}, size)
    except InvalidGeometry as error:
        issues.add(f"{pointer}/mask", str(error), NO_MASK_HINT)
        return None
    if not area(mask):
        issues.add(f"{pointer}/mask", "the mask is empty", "leave it out, or the annotation")
        return None
    return mask


def _check_mask(pointer: str, mask: Rle, size: tuple[int, int], issues: Issues) -> None:
    try:
        check_rle(mask["size"], mask["counts"], size)
    except InvalidGeometry as error:
        issues.add(pointer, str(error), NO_MASK_HINT)


def _check_inside(
    pointer: str, point: tuple[float, float], image: ImageInfo, issues: Issues
) -> None:
    x, y = point
    if not (0 <= x < image.width and 0 <= y < image.height):
        issues.add(
            pointer,
            f"the point ({x:g}, {y:g}) is outside its image of {image.width}×{image.height} pixels",
            "0 ≤ x < width and 0 ≤ y < height",
        )
