"""Masks in the formats of other tools.

Knows no database and no HTTP, and loads no torch.

An image's masks are in memory at a time, and the list of images. A mask that cannot be exported is
skipped and listed; it never ends the export.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from sapnet.data.exporters.archive import Archive
from sapnet.data.exporters.base import ExportContext, Options, UnsupportedFormat, Writer, to_json
from sapnet.data.exporters.check import Check
from sapnet.data.exporters.coco import Coco, CocoPolygons
from sapnet.data.exporters.cvat import Cvat
from sapnet.data.exporters.label_studio import LabelStudio
from sapnet.data.exporters.names import image_names, suffix_by_content
from sapnet.data.exporters.png import Png
from sapnet.data.exporters.report import (
    STORED_WITH_IMAGES,
    STORED_WITHOUT_IMAGES,
    ExportReport,
)
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
    progress: Callable[[int, int], None] = lambda done, of: None,
) -> dict[str, Any]:
    """Write all of the source to the file `target`.

    Args:
        format: one of FORMATS.
        target: a zip, or a single document: see `suffix_of`.
        progress: called with the images that are done and of how many; what it raises ends the
            export.

    Returns:
        The report, see `ExportReport.document`.

    Raises:
        UnsupportedFormat: the format cannot hold any of it.
        OSError: the file cannot be written.
    """
    options = options or Options()
    writer_class = FORMATS[format]
    frame = STORED_WITH_IMAGES if options.images else STORED_WITHOUT_IMAGES
    report = ExportReport((*writer_class.notes, frame))
    images = source.images
    with Archive(target, zipped=suffix_of(format, options) == ".zip") as archive:
        categories = sorted(source.categories, key=lambda category: category.id)
        names = image_names(images, _suffix_in(source) if options.images else None)
        context = ExportContext(archive, images, categories, options, names)
        writer = writer_class(context)
        report.note_renamed(writer.renamed)
        check = Check(with_images=options.images)
        for done, image in enumerate(images):
            progress(done, len(images))
            classes = _add_masks(context, writer, source, image, report)
            there = not options.images or _add_image(context, writer, source, image, report)
            if there and classes is not None:
                check.note(writer.image_path(image), image, classes)
        progress(len(images), len(images))
        archive.finish()
        for image_id, why in check.unread(format, archive, writer.class_names).items():
            report.unread(image_id, why)
        if archive.zipped:
            archive.data("report.json", to_json(report.document()), packed=True)
    return report.document()


def _suffix_in(source: Source) -> Callable[[ImageInfo], str]:
    def suffix(image: ImageInfo) -> str:
        path = source.file(image)
        if path is None:
            return ""
        with path.open("rb") as file:
            return suffix_by_content(file.read(12))

    return suffix


def suffix_of(format: str, options: Options) -> str:
    """`.zip`, or that of a document which needs no other file beside it."""
    suffix = FORMATS[format].document_suffix
    return ".zip" if suffix is None or options.images else suffix


def _add_masks(
    context: ExportContext, writer: Writer, source: Source, image: ImageInfo, report: ExportReport
) -> list[int] | None:
    """The classes of the masks that were written; None where the image could not be."""
    shapes: list[Shape] = []
    for instance in source.instances(image):
        if instance.rejected:
            report.rejected += 1
            continue
        try:
            if instance.category_id not in context.label_of:
                raise InvalidMask(f"there is no category with id {instance.category_id}")
            shapes.append(read_shape(instance, image))
        except InvalidMask as error:
            report.skip(instance.id, image.id, str(error))
    try:
        for shape, iou in zip(shapes, writer.add(image, shapes), strict=True):
            report.add(shape.instance.id, image.id, iou)
    except UnsupportedFormat as error:
        for shape in shapes:
            report.skip(shape.instance.id, image.id, str(error))
        return None
    return [shape.instance.category_id for shape in shapes]


def _add_image(
    context: ExportContext, writer: Writer, source: Source, image: ImageInfo, report: ExportReport
) -> bool:
    path = source.file(image)
    if path is None:
        report.skip(None, image.id, "the image is missing from storage")
        return False
    context.archive.image(writer.image_path(image), path)
    return True
