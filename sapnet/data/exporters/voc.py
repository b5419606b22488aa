"""PASCAL VOC: PNGs of classes and of objects with its palette, and an XML per image."""

from collections.abc import Iterable, Sequence
from typing import ClassVar
from xml.sax.saxutils import escape

import numpy as np

from sapnet.data.exporters.base import (
    ExportContext,
    UnsupportedFormat,
    Writer,
    index_map,
)
from sapnet.data.exporters.names import stems
from sapnet.data.exporters.palette import PALETTE, palette_png
from sapnet.data.exporters.source import Shape
from sapnet.data.exporters.xml import printable
from sapnet.data.file_names import split_suffix
from sapnet.types import ImageInfo

LARGEST = 254  # 0 is background, 255 VOC's mark for pixels that count for nothing
SPLIT = "train"
"""Where images without a subset are listed."""


class Voc(Writer):
    """SegmentationClass, SegmentationObject and Annotations."""

    notes: ClassVar[tuple[str, ...]] = (
        f"Its PNGs have 8 bits: at most {LARGEST} classes, and at most {LARGEST} objects per "
        "image; an image with more is skipped.",
        "A pixel belongs to one object: where two overlap, the one of higher quality has it.",
        "Images stay of the kind that they are; programs that look for .jpg alone find no others.",
    )
    reserved_names = ("background",)

    def __init__(self, context: ExportContext) -> None:
        super().__init__(context)
        if len(context.categories) > LARGEST:
            raise UnsupportedFormat(
                f"PASCAL VOC has room for {LARGEST} classes, the dataset has "
                f"{len(context.categories)}; choose another format"
            )
        self._stems = stems(context.image_names)
        there = {image.subset or SPLIT for image in context.images} or {SPLIT}
        self._lists = {
            subset: [
                context.archive.document(f"ImageSets/{name}/{subset}.txt")
                for name in ("Main", "Segmentation")
            ]
            for subset in sorted(there)
        }
        context.archive.text("labelmap.txt", self._labelmap())

    def image_path(self, image: ImageInfo) -> str:
        """Where its file goes."""
        return f"JPEGImages/{self._file_name(image)}"

    def _file_name(self, image: ImageInfo) -> str:
        return self._stems[image.id] + split_suffix(self.context.image_names[image.id])[1]

    def writable_name(self, name: str) -> str:
        """The name of a class as XML and the list of labels can hold it."""
        return printable(name).replace(":", "_")

    def add(self, image: ImageInfo, shapes: Sequence[Shape]) -> Iterable[float]:
        """Write an image's masks, see `Writer.add`."""
        if len(shapes) > LARGEST:
            raise UnsupportedFormat(
                f"its image has {len(shapes)} masks, PASCAL VOC has room for {LARGEST}"
            )
        stem = self._stems[image.id]
        objects, ious = index_map(image, shapes, np.uint8)
        labels = [0, *(self.context.label_of[s.instance.category_id] + 1 for s in shapes)]
        classes = np.array(labels, np.uint8)[objects]
        self.context.archive.data(f"SegmentationObject/{stem}.png", palette_png(objects))
        self.context.archive.data(f"SegmentationClass/{stem}.png", palette_png(classes))
        self.context.archive.text(f"Annotations/{stem}.xml", self._xml(image, shapes))
        for file in self._lists[image.subset or SPLIT]:
            file.write(f"{stem}\n".encode())
        return ious

    def _labelmap(self) -> str:
        lines = ["# label:color_rgb:parts:actions", "background:0,0,0::"]
        for number, category in enumerate(self.context.categories, 1):
            colour = ",".join(map(str, PALETTE[3 * number : 3 * number + 3]))
            lines.append(f"{self.class_names[category.id]}:{colour}::")
        return "\n".join(lines) + "\n"

    def _xml(self, image: ImageInfo, shapes: Sequence[Shape]) -> str:
        name = escape(printable(self._file_name(image)))
        objects = "".join(map(self._object, shapes))
        return (
            "<annotation><folder>JPEGImages</folder>"
            f"<filename>{name}</filename>"
            f"<size><width>{image.width}</width><height>{image.height}</height><depth>3</depth>"
            f"</size><segmented>1</segmented>{objects}</annotation>\n"
        )

    def _object(self, shape: Shape) -> str:
        x, y, width, height = shape.bbox
        corners = {"xmin": x + 1, "ymin": y + 1, "xmax": x + width, "ymax": y + height}
        box = "".join(f"<{name}>{value}</{name}>" for name, value in corners.items())
        return (
            f"<object><name>{escape(self.class_names[shape.instance.category_id])}</name>"
            "<pose>Unspecified</pose><truncated>0</truncated><difficult>0</difficult>"
            f"<bndbox>{box}</bndbox></object>"
        )
