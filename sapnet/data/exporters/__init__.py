"""Masks in the formats of other tools. Knows no database and no HTTP, and loads no torch.

An image's masks are in memory at a time, and the list of images. A mask that is no mask is left out
and listed; it never ends the export.
"""

from collections.abc import Callable, Container
from pathlib import Path
from typing import Any

from sapnet.data.exporters.archive import Bundle
from sapnet.data.exporters.base import Options, UnsupportedFormat, Writer, to_json
from sapnet.data.exporters.coco import Coco, CocoPolygons
from sapnet.data.exporters.cvat import Cvat
from sapnet.data.exporters.label_studio import LabelStudio
from sapnet.data.exporters.png import Png
from sapnet.data.exporters.report import Report
from sapnet.data.exporters.source import Instance, InvalidMask, Shape, Source, read_shape
from sapnet.data.exporters.voc import Voc
from sapnet.data.exporters.yolo import Yolo
from sapnet.types import ImageInfo

__all__ = [
    "FORMATS",
    "Instance",
    "InvalidMask",
    "Options",
    "Source",
    "UnsupportedFormat",
    "export",
    "suffix_of",
]

FORMATS: dict[str, type[Writer]] = {
    "coco": Coco,
    "coco-polygons": CocoPolygons,
    "yolo-seg": Yolo,
    "voc": Voc,
    "png": Png,
    "label-studio": LabelStudio,
    "cvat": Cvat,
}


def export(
    source: Source,
    format: str,
    target: Path,
    options: Options | None = None,
    tell: Callable[[int, int], None] = lambda done, of: None,
) -> dict[str, Any]:
    """Write all of the source to the file `target`; the report (see `Report.document`).

    format: one of FORMATS. The file is a zip, or a single document: see `suffix_of`. tell: called
    with the images that are done and of how many; what it raises ends the export.
    Raises UnsupportedFormat where the format cannot hold any of it, OSError.
    """
    options = options or Options()
    kind = FORMATS[format]
    report = Report(kind.notes)
    images = source.images
    with Bundle(target, zipped=suffix_of(format, options) == ".zip") as bundle:
        writer = kind(bundle, images, source.categories, options)
        for done, image in enumerate(images):
            tell(done, len(images))
            _add(writer, image, _shapes(source, image, writer.label_of, report), report)
            if options.images:
                _add_picture(bundle, writer, source, image, report)
        tell(len(images), len(images))
        if bundle.zipped:
            bundle.data("report.json", to_json(report.document()), packed=True)
        bundle.finish()
    return report.document()


def suffix_of(format: str, options: Options) -> str:
    """`.zip`, or that of a document which needs no other file beside it."""
    bare = FORMATS[format].bare
    return ".zip" if bare is None or options.images else bare


def _shapes(source: Source, image: ImageInfo, known: Container[int], report: Report) -> list[Shape]:
    shapes = []
    for instance in source.instances(image):
        if instance.rejected:
            report.rejected += 1
            continue
        try:
            if instance.category_id not in known:
                raise InvalidMask(f"there is no category with id {instance.category_id}")
            shapes.append(read_shape(instance, image))
        except InvalidMask as error:
            report.leave_out(instance.id, image.id, str(error))
    return shapes


def _add(writer: Writer, image: ImageInfo, shapes: list[Shape], report: Report) -> None:
    try:
        for shape, iou in zip(shapes, writer.add(image, shapes), strict=True):
            report.take(shape.instance.id, image.id, iou)
    except UnsupportedFormat as error:
        for shape in shapes:
            report.leave_out(shape.instance.id, image.id, str(error))


def _add_picture(
    bundle: Bundle, writer: Writer, source: Source, image: ImageInfo, report: Report
) -> None:
    path = source.file(image)
    if path is None:
        report.leave_out(None, image.id, "the picture is missing from storage")
    else:
        bundle.file(writer.place(image), path)
