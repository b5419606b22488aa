"""In which frame the coordinates of a document are, and the document in stored pixels.

Tools that turn an image by its EXIF orientation write coordinates of the upright image; others,
and this project, those of the pixels as they are stored. The size that a document declares tells
them apart where width and height are exchanged (orientations 5 to 8, unless the image is square).
Where it does not, what the document's other images tell holds for all of it, else what the document
states (`stated_frame`), as those that are made from other tools' files do. docs/decisions has the
reasons.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from sapnet.data.annotations.document import PointDocument
from sapnet.data.exif import AS_STORED
from sapnet.data.masks import Size
from sapnet.data.orientation import (
    Frame,
    stored_corners,
    stored_mask,
    stored_point,
    upright_size,
)
from sapnet.errors import ValidationIssue

NAMED = 10  # images in a warning
_HINT = (
    "look at the points over the images; where they are wrong, declare width and height, or send "
    "the images with the orientation applied to their pixels"
)


@dataclass(frozen=True, slots=True)
class ImageFrame:
    """One image's sizes and orientation.

    Attributes:
        declared: (h, w) in the document; None where it declares none.
        stored: (h, w) of the file.
        orientation: EXIF's, 1 to 8.
    """

    id: int
    name: str
    declared: Size | None
    stored: Size
    orientation: int

    @property
    def upright(self) -> Size:
        """(h, w) of the upright image."""
        return upright_size(self.stored, self.orientation)


@dataclass(frozen=True)
class Frames:
    """The frame of each image's coordinates.

    Attributes:
        upright: image id -> orientation, of the images whose coordinates are on the upright image.
        warnings: what was mapped, and what was assumed.
    """

    upright: dict[int, int]
    warnings: list[ValidationIssue]


def stated_frame(info: Any) -> Frame:
    """The frame that a document's "info" states: {"frame": "upright"}, say. Stored without it."""
    stated = info.get("frame") if isinstance(info, dict) else None
    return "upright" if stated == "upright" else "stored"


def frames_of(images: Iterable[ImageFrame], assumed: Frame) -> Frames:
    """Decide by declared sizes in which frame each image's coordinates are.

    Args:
        images: the images of one document.
        assumed: the frame where no declared size tells stored and upright apart.
    """
    turned = [image for image in images if image.orientation != AS_STORED]
    decided: dict[Frame, list[ImageFrame]] = {"stored": [], "upright": []}
    undecided = []
    for image in turned:
        if image.declared is None or image.stored == image.upright == image.declared:
            undecided.append(image)
        elif image.declared == image.upright:
            decided["upright"].append(image)
        elif image.declared == image.stored:
            decided["stored"].append(image)
    if bool(decided["stored"]) is not bool(decided["upright"]):
        assumed = "upright" if decided["upright"] else "stored"
    warnings = []
    if decided["upright"]:
        problem = (
            f"the declared sizes say that coordinates are on the upright image, as EXIF has it "
            f"shown: they were mapped to stored pixels, for {_listed(decided['upright'])}"
        )
        warnings.append(ValidationIssue("", problem, ""))
    if undecided:
        taken = (
            "on the upright image, and were mapped to stored pixels"
            if assumed == "upright"
            else "in stored pixels, and were left as they are"
        )
        problem = (
            f"sizes do not tell whether coordinates are in stored pixels or on the upright "
            f"image, as EXIF has it shown; they were taken to be {taken}, for {_listed(undecided)}"
        )
        warnings.append(ValidationIssue("", problem, _HINT))
    upright = decided["upright"] + (undecided if assumed == "upright" else [])
    return Frames({image.id: image.orientation for image in upright}, warnings)


def in_stored_pixels(
    document: PointDocument, files: Mapping[str, tuple[Size, int]]
) -> PointDocument:
    """The document in stored pixels: points, boxes, masks; with warnings of what was not sure.

    Args:
        files: file_name -> (h, w) as stored and EXIF orientation.
    """
    by_id = {
        image.id: ImageFrame(
            image.id, image.file_name, image.size if image.width else None, *files[image.file_name]
        )
        for image in document.images
        if image.file_name in files
    }
    frames = frames_of(by_id.values(), document.frame)
    if not frames.warnings:
        return document
    images = tuple(
        replace(image, width=by_id[image.id].stored[1], height=by_id[image.id].stored[0])
        if image.id in frames.upright and image.width
        else image
        for image in document.images
    )
    rows = document.rows.copied()
    for row in np.flatnonzero(np.isin(np.asarray(rows.image_ids), list(frames.upright))).tolist():
        image = by_id[rows.image_ids[row]]
        xy = stored_point(rows.x[row], rows.y[row], image.orientation, image.stored)
        rows.x[row], rows.y[row] = xy
        if box := rows.box(row):
            rows.set_box(row, stored_corners(box, image.orientation, image.stored))
        if row in rows.masks and tuple(rows.masks[row]["size"]) == image.upright:
            rows.masks[row] = stored_mask(rows.masks[row], image.orientation)
    return replace(
        document,
        images=images,
        rows=rows,
        warnings=document.warnings + frames.warnings,
    )


def _listed(images: list[ImageFrame]) -> str:
    few = ", ".join(f"{i.name!r} (orientation {i.orientation})" for i in images[:NAMED])
    more = f" and {len(images) - NAMED} more" if len(images) > NAMED else ""
    return f"{len(images)} image{'' if len(images) == 1 else 's'}: {few}{more}"
