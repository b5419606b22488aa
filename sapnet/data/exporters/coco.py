"""COCO instances: masks as RLE, byte for byte as they are, or as polygons.

The points come along, so the file is a data set with truth for this service too.
"""

from collections.abc import Iterable, Sequence
from typing import Any, ClassVar

from sapnet.data.exporters.archive import Bundle
from sapnet.data.exporters.base import Options, Writer, to_json
from sapnet.data.exporters.polygons import outlines
from sapnet.data.exporters.rasterize import agreement, filled
from sapnet.data.exporters.source import Shape
from sapnet.types import Category, ImageInfo

NAME = "annotations/instances_default.json"


class Coco(Writer):
    """Compressed RLE. Nothing is lost."""

    bare = ".json"

    def __init__(
        self,
        bundle: Bundle,
        images: Sequence[ImageInfo],
        categories: Sequence[Category],
        options: Options,
    ) -> None:
        super().__init__(bundle, images, categories, options)
        self._file = bundle.document(NAME, ending=b"]}\n")
        self._file.write(b'{"info":{"description":"instance masks from points"},"images":[')
        for number, image in enumerate(images):
            record = {"id": image.id, "file_name": image.file_name}
            size = {"width": image.width, "height": image.height}
            self._file.write((b",\n" if number else b"") + to_json(record | size))
        records = [{"id": c.id, "name": c.name} for c in self.categories]
        self._file.write(b'],"categories":' + to_json(records) + b',"annotations":[')
        self._first = True

    def add(self, image: ImageInfo, shapes: Sequence[Shape]) -> Iterable[float]:
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
            if instance.point is not None:
                record["point"] = instance.point
            self._file.write((b"" if self._first else b",\n") + to_json(record))
            self._first = False
            yield iou

    def segmentation(self, shape: Shape) -> tuple[Any, float]:
        return shape.instance.segmentation, 1.0


class CocoPolygons(Coco):
    """A polygon for each connected part of a mask."""

    notes: ClassVar[tuple[str, ...]] = (
        "A polygon has no holes: each hole is joined to its outline by a slit of no width. Readers "
        "that fill by the even-odd rule, as pycocotools does, give it back exactly; a program that "
        "draws outlines shows the slit.",
    )

    def segmentation(self, shape: Shape) -> tuple[Any, float]:
        written, back = [], []
        for polygon in outlines(shape.mask, simplify=self.options.simplify):
            back.append(polygon)
            whole = (polygon + shape.corner).astype(int)
            written.append(whole.ravel().tolist())
        return written, agreement(filled(back, *shape.mask.shape), shape.mask)
