"""Check the annotations of a points document as they come: one point, or one box, an object.

An annotation that states neither is left out and named, and so are a few outside of their images.
Several points of one object, whether one annotation has them or a group of annotations, are one:
the most central of them.
"""

from collections.abc import Hashable, Iterable, Mapping, Sequence
from typing import Any

import msgspec
import numpy as np

from sapnet.data.annotations.boxes import (
    around,
    box_of,
    check_point_in_box,
    settle_box,
    xywh,
)
from sapnet.data.annotations.decoding import (
    INVALID,
    AnnotationEntry,
    CategoryEntry,
    ImageEntry,
    Issues,
    shown,
)
from sapnet.data.annotations.document import (
    AT_BBOX,
    AT_POINT,
    AT_POINTS,
    BOXED,
    CROWD,
    HAS_ID,
    SKIPPED,
    TRUTH,
    UNPOINTED,
    VALID,
    Rows,
    middle,
    repeats,
)
from sapnet.data.masks import area, check_rle, checked_rle
from sapnet.errors import InvalidGeometry
from sapnet.types import Category, ImageInfo, Rle

Point = tuple[float, float]
NO_MASK_HINT = "give the RLE of the whole image, or leave the mask out"
NO_POINT_HINT = 'add "point": [x, y], keypoints with a visible point, or a bbox'
INSIDE_HINT = "0 ≤ x < width and 0 ≤ y < height"
BORDER = 1.0
"""Pixels beyond its image within which a point still means the image's border."""
_NAMED = 5


class AnnotationChecks:
    """Checks annotations as they come, and writes a row for each."""

    def __init__(
        self,
        lists: Mapping[str, Any],
        images: Mapping[int, tuple[int, ImageInfo]],
        categories: Mapping[int, Category],
        rows: Rows,
        issues: Issues,
        warnings: Issues,
        *,
        boxes: bool = True,
    ) -> None:
        # Ids as the file states them: a record with another fault is still known by its id.
        self._image_ids = _stated_ids(lists["images"])
        self._category_ids = _stated_ids(lists["categories"])
        info = lists.get("info")
        self._may_be_empty = isinstance(info, dict) and info.get("unannotated") is True
        self._images, self._categories = images, categories
        self._rows, self._issues, self._warnings = rows, issues, warnings
        self._groups: dict[Hashable, list[int]] = {}
        self._outside: list[tuple[int, ImageInfo]] = []
        self._boxes = boxes

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
        points = None if crowd else _points_of(record, pointer, issues)
        box = None if points is None or not self._boxes else box_of(record.bbox or [])
        unpointed = box is not None and not points
        if box is not None and unpointed:
            points = {AT_BBOX: middle(box)}
        _, image = self._images.get(image_id, (0, None))
        place, (x, y) = self._one_of(points, pointer) if points else (AT_POINT, (0.0, 0.0))
        rows.ids.append(0 if record.id is INVALID else record.id)
        rows.image_ids.append(0 if image_id is INVALID else image_id)
        rows.category_ids.append(0 if category_id is INVALID else category_id)
        rows.x.append(x)
        rows.y.append(y)
        rows.places.append(place)
        rows.flags.append(UNPOINTED if unpointed else 0)
        row = len(rows.ids) - 1
        if box is not None:
            rows.add_box(row, box)
            check_point_in_box(rows, row, box, issues)
        if points and image and image.width:
            if box is not None:
                settle_box(rows, row, box, image, self._warnings)
            if not is_inside((rows.x[row], rows.y[row]), image):
                self._outside.append((row, image))
        if mask := _mask_of(record, pointer, issues):
            rows.masks[row] = mask
            if image and image.width:
                check_mask(f"{pointer}/mask", mask, image.size, issues)
        resolved = (
            image is not None and category_id in self._categories and record.mask is not INVALID
        )
        right = issues.total == before and resolved and record.id is not INVALID
        skipped = points == {} and issues.total == before
        if skipped:
            self._warnings.add(pointer, "left out: the annotation has no point", NO_POINT_HINT)
        rows.flags[row] |= (
            (HAS_ID if record.id is not INVALID else 0)
            | (VALID if right and (crowd or points) else 0)
            | (CROWD if crowd else 0)
            | (TRUTH if record.has_segmentation else 0)
            | (SKIPPED if skipped else 0)
        )
        plain = rows.flags[row] & ~(BOXED | UNPOINTED) == HAS_ID | VALID and mask is None
        if record.group_id is not None and plain:
            self._add_to_group(record.group_id, row, f"{pointer}/group_id")

    def _one_of(self, points: Mapping[int, Point], pointer: str) -> tuple[int, Point]:
        """The point of an object, and where it stands."""
        places = list(points)
        place = places[0]
        if len(points) > 1:
            place = places[most_central(points.values())]
            problem = f"the object has {len(points)} points: the most central one is used"
            self._warnings.add(pointer, problem, "give each object a point of its own")
        return max(place, AT_POINTS), points[place]

    def _add_to_group(self, group: Any, row: int, pointer: str) -> None:
        """An object of which points or boxes are given, in each of its annotations one."""
        rows = self._rows
        if not isinstance(group, int | str | float) or isinstance(group, bool):
            problem = f"should be a whole number or a text, but is {shown(group)}"
            self._issues.add(pointer, problem, "give the objects' own numbers, or leave it out")
            return
        key = rows.image_ids[row], rows.category_ids[row], group
        self._groups.setdefault(key, []).append(row)

    def _merge_groups(self) -> None:
        rows = self._rows
        for group in self._groups.values():
            members = [row for row in group if rows.flags[row] & VALID]
            if len(members) < 2:
                continue
            chosen = self._one_of_group(members)
            others = [row for row in members if row != chosen]
            for row in others:
                rows.flags[row] = rows.flags[row] & ~VALID | SKIPPED
            few = ", ".join(f"/annotations/{row}" for row in others[:_NAMED])
            more = f" and {len(others) - _NAMED} more" if len(others) > _NAMED else ""
            problem = f"is one object with {few}{more}, of the same group: the most central point"
            hint = "give each object a point of its own"
            self._warnings.add(f"/annotations/{chosen}", f"{problem} is used", hint)

    def _one_of_group(self, members: list[int]) -> int:
        """The row that stands for an object: with its most central point, and all of its boxes."""
        rows = self._rows
        pointed = [row for row in members if not rows.flags[row] & UNPOINTED] or members
        central = pointed[most_central((rows.x[row], rows.y[row]) for row in pointed)]
        boxes = {row: box for row in members if (box := rows.box(row))}
        if not boxes:
            return central
        chosen = central if central in boxes else next(iter(boxes))
        if chosen != central:  # which has a point
            rows.x[chosen], rows.y[chosen] = rows.x[central], rows.y[central]
            rows.flags[chosen] &= ~UNPOINTED
        box = around(boxes.values())
        rows.set_box(chosen, box)
        check_point_in_box(rows, chosen, box, self._issues)
        return chosen

    def finish(self) -> None:
        """What can only be said of all together."""
        rows, issues = self._rows, self._issues
        for row, first in repeats(rows.where(HAS_ID), np.asarray(rows.ids)):
            problem = f"annotation id {rows.ids[row]} was used before, at /annotations/{first}/id"
            issues.add(f"/annotations/{row}/id", problem, "give each its own annotation id")
            rows.flags[row] &= ~VALID
        skipped = len(rows.where(SKIPPED))
        unannotated = self._may_be_empty and not len(rows)
        if len(rows.where(CROWD)) + skipped == len(rows) and not unannotated:
            problem = "there is no annotation to train on"
            problem += f": {skipped:,} have no point" if skipped else ""
            issues.add("/annotations", problem, NO_POINT_HINT)
        settle_outside(rows, self._outside, issues, self._warnings)
        self._merge_groups()
        places = (np.asarray(column) for column in (rows.y, rows.x, rows.image_ids))
        hint = "check that these are two objects"
        for row, first in repeats(rows.where(VALID, unset=CROWD | UNPOINTED), *places):
            problem = f"has the same point as /annotations/{first}"
            self._warnings.add(f"/annotations/{row}", problem, hint)
        boxes = np.asarray(rows.boxes).reshape(-1, 4)
        images = np.asarray(rows.image_ids)[np.asarray(rows.box_rows, np.int64)]
        boxed = np.isin(rows.box_rows, rows.where(VALID | BOXED, unset=CROWD)).nonzero()[0]
        for again, earlier in repeats(boxed, *boxes.T, images):
            problem = f"has the same box as /annotations/{rows.box_rows[earlier]}"
            self._warnings.add(f"/annotations/{rows.box_rows[again]}", problem, hint)


def _stated_ids(records: list[ImageEntry] | list[CategoryEntry]) -> set[int]:
    return set() if records is INVALID else {r.id for r in records if r.id is not INVALID}


def _check_known(id_: int, listed: set[int], pointer: str, what: str, issues: Issues) -> None:
    # An empty list of ids is an issue of its own.
    if listed and id_ is not INVALID and id_ not in listed:
        hint = f"correct the id, or list this {what}"
        issues.add(pointer, f"there is no {what} with id {id_}", hint)


def _points_of(record: AnnotationEntry, pointer: str, issues: Issues) -> Mapping[int, Point] | None:
    """The annotation's points by where they stand: several of a list below AT_POINTS.

    There are none where it states none; None where what it states is an issue.
    """
    if INVALID in (record.point, record.keypoints, record.bbox) or record.points is INVALID:
        return None  # an issue already
    if record.point is not None:
        return {AT_POINT: record.point}
    keypoints, bbox = record.keypoints or [], record.bbox or []
    if len(keypoints) % 3:
        issues.add(f"{pointer}/keypoints", "the length is no multiple of 3", "use [x, y, visible]")
        return None
    if visible := [i for i in range(0, len(keypoints), 3) if keypoints[i + 2] > 0]:
        return {i: (keypoints[i], keypoints[i + 1]) for i in visible}
    if record.points is not None:
        return _listed(record.points, f"{pointer}/points", issues)
    if len(bbox) == 4 and bbox[2] == 0 and bbox[3] == 0:
        return {AT_BBOX: (bbox[0], bbox[1])}
    return {}


def _listed(points: Any, pointer: str, issues: Issues) -> Mapping[int, Point] | None:
    try:
        pairs = msgspec.convert(points, list[Point])
    except msgspec.ValidationError:
        problem = f"should be a list of points [[x, y], ...], but is {shown(points)}"
        issues.add(pointer, problem, "write it in this form, in pixels")
        return None
    return {AT_POINTS - number: pair for number, pair in enumerate(pairs)}


def most_central(points: Iterable[Point]) -> int:
    """Which of several points of one object stands for it: the nearest to their median.

    It is one that somebody has drawn, so it lies on the object; the first of equally near ones.
    """
    xy = np.array(list(points), np.float64)
    with np.errstate(over="ignore", invalid="ignore"):  # absurd ones lie outside of any image
        distances = np.hypot(*(xy - np.median(xy, axis=0)).T)
        nearest = np.isclose(distances, distances.min(), rtol=1e-9, atol=1e-9)  # but for rounding
    return int(nearest.argmax())


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


def check_mask(pointer: str, mask: Rle, size: tuple[int, int], issues: Issues) -> None:
    """Note an issue where a mask is not of an image of (h, w)."""
    try:
        check_rle(mask["size"], mask["counts"], size)
    except InvalidGeometry as error:
        issues.add(pointer, str(error), NO_MASK_HINT)


def is_inside(point: Point, image: ImageInfo) -> bool:
    """Whether a point (x, y) is within its image."""
    return 0 <= point[0] < image.width and 0 <= point[1] < image.height


def settle_outside(
    rows: Rows, outside: Sequence[tuple[int, ImageInfo]], issues: Issues, warnings: Issues
) -> None:
    """Decide on points, and middles of boxes, outside of their images; `rows` is changed.

    Where they are more than a tenth of all annotations each is an issue: the document is of other
    images, or in another frame. Fewer do not stand in the way of the others: those within `BORDER`
    of the image are moved into it (rounding puts them there, and counting from one), the rest, and
    boxes, are left out.

    Args:
        outside: rows, each with its image, of known size.
    """
    refused = len(outside) > len(rows.where(VALID, unset=CROWD)) // 10
    for row, image in outside:
        x, y = rows.x[row], rows.y[row]
        size = f"its image of {image.width}×{image.height} pixels"
        alone = rows.box(row) if rows.flags[row] & UNPOINTED else None
        what = f"point ({x:g}, {y:g})" if alone is None else f"box {shown(xywh(alone))}"
        problem = f"the {what} is outside {size}"
        if refused or not rows.flags[row] & VALID:
            issues.add(rows.pointer(row), problem, INSIDE_HINT)
            rows.flags[row] &= ~VALID
        elif (
            alone is None
            and -BORDER <= x <= image.width + BORDER
            and -BORDER <= y <= image.height + BORDER
        ):
            x, y = min(max(x, 0), image.width - 0.5), min(max(y, 0), image.height - 0.5)
            rows.x[row], rows.y[row] = x, y
            warnings.add(rows.pointer(row), f"{problem}: moved to ({x:g}, {y:g})", INSIDE_HINT)
        else:
            warnings.add(rows.pointer(row), f"left out: {problem}", INSIDE_HINT)
            rows.flags[row] = rows.flags[row] & ~VALID | SKIPPED
