"""In which frame the coordinates of a document are, and the document in stored pixels.

Tools that turn a picture by its EXIF orientation write coordinates of the upright picture; others,
and this project, those of the pixels as they are stored. The size that a document declares tells
them apart where width and height are exchanged (orientations 5 to 8, unless the image is square).
Where it does not, what the document's other images tell holds for all of it, else what its kind of
document is known for. docs/decisions has the reasons.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

import numpy as np

from sapnet.data.annotations.document import PointDocument
from sapnet.data.masks import Size
from sapnet.data.orientation import (
    AS_STORED,
    Frame,
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
    """What is known of one image. declared: its size in the document, if any. stored: (h, w) of
    its file. orientation: EXIF's."""

    id: int
    name: str
    declared: Size | None
    stored: Size
    orientation: int

    @property
    def upright(self) -> Size:
        return upright_size(self.stored, self.orientation)


@dataclass(frozen=True)
class Frames:
    """upright: image id -> orientation, of those whose coordinates are on the upright picture.
    warnings: what was mapped, and what was assumed."""

    upright: dict[int, int]
    warnings: list[ValidationIssue]


def frames_of(images: Iterable[ImageFrame], assumed: Frame) -> Frames:
    """assumed: where nothing tells."""
    turned = [image for image in images if image.orientation != AS_STORED]
    told: dict[Frame, list[ImageFrame]] = {"stored": [], "upright": []}
    untold = []
    for image in turned:
        if image.declared is None or image.stored == image.upright == image.declared:
            untold.append(image)
        elif image.declared == image.upright:
            told["upright"].append(image)
        elif image.declared == image.stored:
            told["stored"].append(image)
    if bool(told["stored"]) is not bool(told["upright"]):
        assumed = "upright" if told["upright"] else "stored"
    warnings = []
    if told["upright"]:
        problem = (
            f"the declared sizes say that coordinates are on the upright picture, as EXIF has it "
            f"shown: they were mapped to stored pixels, for {_listed(told['upright'])}"
        )
        warnings.append(ValidationIssue("", problem, ""))
    if untold:
        taken = (
            "on the upright picture, and were mapped to stored pixels"
            if assumed == "upright"
            else "in stored pixels, and were left as they are"
        )
        problem = (
            f"sizes do not tell whether coordinates are in stored pixels or on the upright "
            f"picture, as EXIF has it shown; they were taken to be {taken}, for {_listed(untold)}"
        )
        warnings.append(ValidationIssue("", problem, _HINT))
    upright = told["upright"] + (untold if assumed == "upright" else [])
    return Frames({image.id: image.orientation for image in upright}, warnings)


def in_stored_pixels(
    document: PointDocument, files: Mapping[str, tuple[Size, int]], assumed: Frame
) -> PointDocument:
    """The document with points and masks in stored pixels, and warnings where that was not sure.

    files: file_name -> (h, w) as stored and EXIF orientation. assumed: what this kind of document
    has where sizes do not tell.
    """
    known = {
        image.id: ImageFrame(
            image.id, image.file_name, image.size if image.width else None, *files[image.file_name]
        )
        for image in document.images
        if image.file_name in files
    }
    frames = frames_of(known.values(), assumed)
    if not frames.warnings:
        return document
    images = tuple(
        replace(image, width=known[image.id].stored[1], height=known[image.id].stored[0])
        if image.id in frames.upright and image.width
        else image
        for image in document.images
    )
    rows = document.rows
    x, y, masks = rows.x[:], rows.y[:], dict(rows.masks)
    for row in np.flatnonzero(np.isin(np.asarray(rows.image_ids), list(frames.upright))).tolist():
        image = known[rows.image_ids[row]]
        x[row], y[row] = stored_point(x[row], y[row], image.orientation, image.stored)
        if row in masks and tuple(masks[row]["size"]) == image.upright:
            masks[row] = stored_mask(masks[row], image.orientation)
    return replace(
        document,
        images=images,
        rows=replace(rows, x=x, y=y, masks=masks),
        warnings=document.warnings + frames.warnings,
    )


def _listed(images: list[ImageFrame]) -> str:
    few = ", ".join(f"{i.name!r} (orientation {i.orientation})" for i in images[:NAMED])
    more = f" and {len(images) - NAMED} more" if len(images) > NAMED else ""
    return f"{len(images)} image{'' if len(images) == 1 else 's'}: {few}{more}"
