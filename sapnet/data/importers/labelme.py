"""Labelme: a JSON for each image, with shapes of the types `point` and `rectangle`.

Places are FILE#/shapes/3.
"""

import posixpath
from collections.abc import Sequence
from pathlib import Path, PureWindowsPath
from typing import Any

from sapnet.data.annotations.decoding import ReadProgress
from sapnet.data.depth import parse
from sapnet.data.importers.base import Conversion

_POINTS = ("point", "points")
"""Shape types: a point, and those that its models are prompted with."""


def read(files: Sequence[tuple[str, Path]], conversion: Conversion, progress: ReadProgress) -> None:
    """Read Labelme's files, one per image, into the conversion."""
    done = 0
    for name, path in sorted(files):
        try:
            document = parse(path.read_bytes())
        except ValueError as error:
            conversion.issues.add(f"{name}#", f"it is no JSON: {error}", "save it again")
        else:
            _file(name, document, conversion)
        done += path.stat().st_size
        progress(done)


def _file(name: str, document: Any, conversion: Conversion) -> None:
    shapes = document.get("shapes") if isinstance(document, dict) else None
    image = document.get("imagePath") if isinstance(document, dict) else None
    if not isinstance(shapes, list) or not isinstance(image, str) or not image:
        problem = "it is not one of Labelme's files: these have shapes and an imagePath"
        conversion.issues.add(f"{name}#", problem, "leave it out of the archive")
        return
    height, width = document.get("imageHeight"), document.get("imageWidth")
    size = (height, width) if isinstance(height, int) and isinstance(width, int) else None
    image_id = conversion.image(_beside(name, image), size, f"{name}#")
    for number, shape in enumerate(shapes):
        _shape(shape, image_id, f"{name}#/shapes/{number}", conversion)


def _shape(shape: Any, image_id: int, place: str, conversion: Conversion) -> None:
    shape = shape if isinstance(shape, dict) else {}
    kind, label, group = (
        shape.get("shape_type", "polygon"),
        shape.get("label"),
        shape.get("group_id"),
    )
    if kind not in (*_POINTS, "rectangle"):
        conversion.left_out[str(kind)] += 1
        return
    try:
        points = [(float(x), float(y)) for x, y in shape["points"]]
    except (KeyError, TypeError, ValueError, OverflowError):
        conversion.skip(f"{place}/points", "should be one point", "it is [[x, y]], in pixels")
        return
    signs = shape.get("point_labels")
    if isinstance(signs, list) and len(signs) == len(points):  # 0: not on the object
        points = [point for point, sign in zip(points, signs, strict=True) if sign]
    if kind == "rectangle" and len(points) != 2:
        conversion.skip(f"{place}/points", "it has not two corners", "they are [[x, y], [x, y]]")
    elif not points:
        conversion.skip(f"{place}/points", "it has not one point", "it is [[x, y]], in pixels")
    elif not isinstance(label, str) or not label:
        conversion.skip(f"{place}/label", f"the {kind} has no label", "give it one")
    else:
        group = shape.get("group_id")
        is_group = isinstance(group, int | str) and not isinstance(group, bool)
        box = (*points[0], *points[1]) if kind == "rectangle" else None
        points = points if box is None else []
        conversion.object(image_id, label, points, place, group if is_group else None, box)


def _beside(name: str, image: str) -> str:
    """An image's path, from that of the file that names it; above the archive there is nothing."""
    path = image.replace("\\", "/")
    absolute = path.startswith("/") or PureWindowsPath(path).drive
    return path if absolute else posixpath.join(posixpath.dirname(name), path)
