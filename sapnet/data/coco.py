"""Read COCO-style point annotations: one point an object. Imports no torch.

A document is checked by itself (`read_points`) and against the images that came with it
(`check_against_images`), so that a service can check it before the images have arrived, and still
list everything that is wrong at once. `read_truth` reads the instances that metrics need.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path, PureWindowsPath

from sapnet.data.records import (
    BAD,
    MAX_ISSUES,
    AnnotationRecord,
    CategoryRecord,
    Document,
    ImageRecord,
    Issues,
    decode,
    first_of_each,
    is_text,
    shown,
)
from sapnet.data.truth import read_truth
from sapnet.errors import InvalidDataset, Issue
from sapnet.types import Category, ImageInfo, PointAnnotation, PointSet

__all__ = ["PointDocument", "check_against_images", "load_points", "read_points", "read_truth"]

NO_POINT_HINT = 'add "point": [x, y], keypoints with one visible point, or a bbox of zero size'


@dataclass(frozen=True)
class PointDocument:
    """A points file, read. Where `issues` is empty it is right as far as it can say by itself.

    points: every record that is right, `iscrowd` left out. An image whose size the file does not
    declare has width and height 0 there until `with_sizes`.
    crowds: the (id, image_id, category_id) of the `iscrowd` annotations.
    truth_ids: ids of the annotations that carry a segmentation (ground truth for metrics alone).
    warnings: odd but legal, such as two identical points.
    image_indices: places in the file's list, for pointers. point_pointers: to each point.
    """

    points: PointSet
    crowds: tuple[tuple[int, int, int], ...]
    truth_ids: frozenset[int]
    issues: list[Issue]
    warnings: list[Issue]
    image_indices: tuple[int, ...]
    point_pointers: tuple[str, ...]

    @property
    def has_truth(self) -> bool:
        """Whether every annotation carries its segmentation."""
        return bool(self.points.annotations) and all(
            annotation.id in self.truth_ids for annotation in self.points.annotations
        )

    def with_sizes(self, sizes: Mapping[str, tuple[int, int]]) -> PointSet:
        """The points with undeclared image sizes filled in. sizes: file_name -> (h, w)."""
        images = []
        for image in self.points.images:
            if not image.width:
                height, width = sizes[image.file_name]
                image = replace(image, width=width, height=height)
            images.append(image)
        return replace(self.points, images=tuple(images))


def read_points(source: bytes | Path) -> PointDocument:
    """Read a points document and list everything that is wrong in it (at most 1,000 issues).

    Never raises for what the document says; an unreadable path raises OSError.
    """
    issues, warnings = Issues(), Issues()
    document = decode(source, Document, issues)
    if document is None:
        return PointDocument(PointSet((), (), ()), (), frozenset(), issues.listed(), [], (), ())
    categories = _check_categories(document, issues)
    images = _check_images(document, issues)
    annotations, crowds = _check_annotations(document, images, categories, issues)
    _warn_of_twins(annotations, warnings)
    truth = frozenset(
        record.id
        for record in ([] if document.annotations is BAD else document.annotations)
        if record.id is not BAD and record.has_segmentation
    )
    points = PointSet(
        images=tuple(info for _, info in images.values()),
        annotations=tuple(annotation for _, _, annotation in annotations),
        categories=tuple(categories.values()),
    )
    return PointDocument(
        points=points,
        crowds=tuple(crowds),
        truth_ids=truth,
        issues=issues.listed(),
        warnings=warnings.listed(),
        image_indices=tuple(index for index, _ in images.values()),
        point_pointers=tuple(pointer for _, pointer, _ in annotations),
    )


def load_points(path: Path, image_sizes: Mapping[int, tuple[int, int]] | None = None) -> PointSet:
    """Read points that must be right. InvalidDataset carries every issue.

    image_sizes: image id -> (h, w) of the image's file; None where the document declares them all.
    """
    document = read_points(path)
    if image_sizes is None:
        found = {image.file_name: image.size for image in document.points.images if image.width}
        undeclared = [
            Issue(f"/images/{index}", "width and height are missing", "declare them, in pixels")
            for index, image in zip(document.image_indices, document.points.images, strict=True)
            if not image.width
        ]
        issues = document.issues + undeclared[:MAX_ISSUES]
    else:
        found = {
            image.file_name: image_sizes[image.id]
            for image in document.points.images
            if image.id in image_sizes
        }
        issues = document.issues + check_against_images(document, found)
    if issues:
        raise InvalidDataset(issues)
    return document.with_sizes(found)


def check_against_images(
    document: PointDocument, found: Mapping[str, tuple[int, int] | str], *, complete: bool = True
) -> list[Issue]:
    """What does not fit between a document and its images.

    found: file_name -> (h, w) of the decoded file, or in words what is wrong with that file. A
    name that is not there is a missing image, where `found` is complete. Points of images whose
    size the document declares were checked against it before; here come those of the others.
    """
    issues = Issues()
    undeclared: dict[int, ImageInfo] = {}
    for index, image in zip(document.image_indices, document.points.images, strict=True):
        state = found.get(image.file_name)
        at = f"/images/{index}"
        if state is None:
            if complete:
                issues.add(
                    f"{at}/file_name",
                    f"there is no image {shown(image.file_name)}",
                    "send it, or mend the name",
                )
        elif isinstance(state, str):
            issues.add(f"{at}/file_name", f"{shown(image.file_name)}: {state}", "replace the image")
        elif not image.width:
            height, width = state
            undeclared[image.id] = replace(image, width=width, height=height)
        elif image.size != state:
            height, width = state
            issues.add(
                at,
                f"declared {image.width}×{image.height} pixels, but {shown(image.file_name)} has "
                f"{width}×{height}",
                "points must be in pixels of the image as stored (no EXIF rotation, no resizing)",
            )
    if undeclared:
        places = zip(document.point_pointers, document.points.annotations, strict=True)
        for pointer, annotation in places:
            if annotation.image_id in undeclared:
                image = undeclared[annotation.image_id]
                _check_inside(pointer, (annotation.x, annotation.y), image, issues)
    return issues.listed()


def _check_categories(document: Document, issues: Issues) -> dict[int, Category]:
    records = document.categories
    if records is BAD:
        return {}
    if not records:
        issues.add("/categories", "there are no categories", "name at least one class")
    first = first_of_each((r.id for r in records), "/categories/{}/id", "category id", issues)
    for index, record in enumerate(records):
        if record.name is not BAD and not is_text(record.name):
            problem = "holds characters that are no text"
            issues.add(f"/categories/{index}/name", problem, "rename it")
    return {
        id_: Category(id_, records[index].name)
        for id_, index in first.items()
        if records[index].name is not BAD
    }


def _check_images(document: Document, issues: Issues) -> dict[int, tuple[int, ImageInfo]]:
    """image id -> (index in the file, info), for the records that are right."""
    records = document.images
    if records is BAD:
        return {}
    if not records:
        issues.add("/images", "there are no images", "list at least one image")
    first = first_of_each((r.id for r in records), "/images/{}/id", "image id", issues)
    first_of_each((r.file_name for r in records), "/images/{}/file_name", "file name", issues)
    images = {}
    for index, record in enumerate(records):
        right = _check_image(record, f"/images/{index}", issues)
        if right and record.id is not BAD and first[record.id] == index:
            size = (record.width or 0, record.height or 0)
            images[record.id] = (index, ImageInfo(record.id, record.file_name, *size))
    return images


def _check_image(record: ImageRecord, at: str, issues: Issues) -> bool:
    before = issues.total
    name = record.file_name
    if name is not BAD:
        path = PureWindowsPath(name)  # knows both kinds of slash, and drives
        if not is_text(name):
            issues.add(f"{at}/file_name", "holds characters that are no text", "rename it")
        elif path.root or path.drive or ".." in path.parts:
            issues.add(
                f"{at}/file_name", f"{shown(name)} leaves the folder of images", "use a plain name"
            )
        elif not name.strip() or not path.name:
            issues.add(f"{at}/file_name", "the file name is empty", "name the image's file")
    if (record.width is None) != (record.height is None):
        issues.add(at, "has only one of width and height", "give both, or neither")
    readable = name is not BAD and record.width is not BAD and record.height is not BAD
    return readable and issues.total == before


def _check_annotations(
    document: Document,
    images: Mapping[int, tuple[int, ImageInfo]],
    categories: Mapping[int, Category],
    issues: Issues,
) -> tuple[list[tuple[int, str, PointAnnotation]], list[tuple[int, int, int]]]:
    """(place in the file, pointer to the point, annotation) of those to train on; the crowds."""
    records = document.annotations
    if records is BAD:
        return [], []
    # Ids as the file states them: a record with another fault is still known by its id.
    image_ids = _stated_ids(document.images)
    category_ids = _stated_ids(document.categories)
    first = first_of_each((r.id for r in records), "/annotations/{}/id", "annotation id", issues)
    points, crowds = [], []
    for index, record in enumerate(records):
        at = f"/annotations/{index}"
        before = issues.total
        _check_known(record.image_id, image_ids, f"{at}/image_id", "image", issues)
        _check_known(record.category_id, category_ids, f"{at}/category_id", "category", issues)
        crowd = record.iscrowd is not BAD and bool(record.iscrowd)
        point = None if crowd else _point_of(record, at, issues)
        _, image = images.get(record.image_id, (0, None))
        if point and image and image.width:
            _check_inside(point[0], point[1], image, issues)
        known = image is not None and record.category_id in categories
        if issues.total > before or not known or record.id is BAD or first[record.id] != index:
            continue
        if crowd:
            crowds.append((record.id, record.image_id, record.category_id))
        elif point:
            where = PointAnnotation(record.id, record.image_id, record.category_id, *point[1])
            points.append((index, point[0], where))
    if not any(r.iscrowd is BAD or not r.iscrowd for r in records):
        issues.add("/annotations", "there is no annotation to train on", "give a point an object")
    return points, crowds


def _stated_ids(records: list[ImageRecord] | list[CategoryRecord]) -> set[int]:
    return set() if records is BAD else {r.id for r in records if r.id is not BAD}


def _check_known(id_: int, known: set[int], pointer: str, what: str, issues: Issues) -> None:
    if known and id_ is not BAD and id_ not in known:  # nothing known: that was said already
        hint = f"mend the id, or list this {what}"
        issues.add(pointer, f"there is no {what} with id {id_}", hint)


def _point_of(
    record: AnnotationRecord, at: str, issues: Issues
) -> tuple[str, tuple[float, float]] | None:
    """The annotation's point and the pointer to it; None where there is none, which is an issue."""
    if BAD in (record.point, record.keypoints, record.bbox):
        return None  # said already
    if record.point is not None:
        return f"{at}/point", record.point
    keypoints, bbox = record.keypoints or [], record.bbox or []
    if len(keypoints) % 3:
        issues.add(f"{at}/keypoints", "the length is no multiple of 3", "use [x, y, visible]")
        return None
    visible = [i for i in range(0, len(keypoints), 3) if keypoints[i + 2] > 0]
    if len(visible) == 1:
        x, y, _ = keypoints[visible[0] : visible[0] + 3]
        return f"{at}/keypoints/{visible[0]}", (x, y)
    if len(bbox) == 4 and bbox[2] == 0 and bbox[3] == 0:
        return f"{at}/bbox", (bbox[0], bbox[1])
    if visible:
        issues.add(f"{at}/keypoints", f"{len(visible)} keypoints are visible", NO_POINT_HINT)
    else:
        issues.add(at, "the annotation has no point", NO_POINT_HINT)
    return None


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


def _warn_of_twins(annotations: list[tuple[int, str, PointAnnotation]], warnings: Issues) -> None:
    seen: dict[tuple[int, float, float], int] = {}
    for index, _, annotation in annotations:
        first = seen.setdefault((annotation.image_id, annotation.x, annotation.y), index)
        if first != index:
            warnings.add(
                f"/annotations/{index}",
                f"has the same point as /annotations/{first}",
                "check that these are two objects",
            )
