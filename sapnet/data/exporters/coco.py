"""COCO instances: masks as RLE, byte for byte as they are, or as polygons.

The points come along, so the file is a dataset with ground truth for this service too.
"""

from collections.abc import Iterable, Sequence
from typing import Any, ClassVar

from sapnet.data.annotations.boxes import belongs_to
from sapnet.data.exporters.base import ExportContext, Writer, to_json
from sapnet.data.exporters.polygons import outlines
from sapnet.data.exporters.rasterize import agreement, filled
from sapnet.data.exporters.source import Shape
from sapnet.types import ImageInfo

NAME = "annotations/instances_default.json"
INFO = {
    "description": "instance masks from points",
    "coordinates": "pixels as the files store them, without their EXIF orientation",
}


class Coco(Writer):
    """Compressed RLE. Nothing is lost."""

    document_suffix = ".json"

    def __init__(self, context: ExportContext) -> None:
        super().__init__(context)
        self._file = context.archive.document(NAME, ending=b"]}\n")
        self._file.write(b'{"info":' + to_json(INFO) + b',"images":[')
        for number, image in enumerate(context.images):
            record: dict[str, Any] = {"id": image.id, "file_name": context.image_names[image.id]}
            record |= {"width": image.width, "height": image.height}
            split = {"subset": image.subset, "group": image.group}
            record |= {name: value for name, value in split.items() if value}
            self._file.write((b",\n" if number else b"") + to_json(record))
        records = [{"id": id_, "name": name} for id_, name in self.class_names.items()]
        self._file.write(b'],"categories":' + to_json(records) + b',"annotations":[')
        self._first = True

    def add(self, image: ImageInfo, shapes: Sequence[Shape]) -> Iterable[float]:
        """Write an image's masks, see `Writer.add`."""
        for shape in shapes:
            segmentation, iou = self.segmentation(shape)
            instance = shape.instance
            record: dict[str, Any] = {
                "id": instance.id,
                "image_id": image.id,
                "category_id": instance.category_id,
                "segmentation": segmentation,
                "bbox": shape.bbox,
                "area": shape.area,
                "iscrowd": 0,
                "quality": instance.quality,
            }
            x, y, width, height = shape.bbox
            box = (x, y, x + width, y + height)
            if instance.point is not None and belongs_to(*instance.point, box):
                record["point"] = instance.point  # beside another box it would not be read again
            self._file.write((b"" if self._first else b",\n") + to_json(record))
            self._first = False
            yield iou

    def segmentation(self, shape: Shape) -> tuple[Any, float]:
        """What is written for a mask, and its IoU with it."""
        return shape.instance.segmentation, 1.0


class CocoPolygons(Coco):
    """A polygon for each connected part of a mask."""

    notes: ClassVar[tuple[str, ...]] = (
        "A polygon has no holes: each hole is joined to its outline by a slit of no width. Readers "
        "that fill by the even-odd rule, as pycocotools does, give it back exactly; a program that "
        "draws outlines shows the slit.",
        "Programs that paint outlines as well (OpenCV's fillPoly, supervision) see masks a "
        "pixel larger at the right and below; the format coco has none of this.",
    )

    def segmentation(self, shape: Shape) -> tuple[Any, float]:
        """Polygons, and their IoU with the mask."""
        written, back = [], []
        for polygon in outlines(shape.mask, simplify=self.context.options.simplify):
            back.append(polygon)
            whole = (polygon + shape.corner).astype(int)
            written.append(whole.ravel().tolist())
        return written, agreement(filled(back, *shape.mask.shape), shape.mask)
