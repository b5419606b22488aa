"""COCO instances: masks as RLE, byte for byte as they are, or as polygons.

The points come along, so the file is a dataset with ground truth for this service too.
"""

from collections.abc import Iterable, Sequence
from typing import IO, Any, ClassVar

from sapnet.data.annotations.boxes import belongs_to
from sapnet.data.exporters.base import ExportContext, Writer, to_json
from sapnet.data.exporters.polygons import outlines
from sapnet.data.exporters.rasterize import agreement, filled
from sapnet.data.exporters.source import Shape
from sapnet.types import ImageInfo

NAME = "annotations/instances_{}.json"
DEFAULT = "default"
"""Where images without a subset are, and all images of a single document."""
INFO = {
    "description": "instance masks from points",
    "coordinates": "pixels as the files store them, without their EXIF orientation",
}


class Coco(Writer):
    """Compressed RLE. Nothing is lost. In an archive each subset has a file of its own."""

    document_suffix = ".json"

    def __init__(self, context: ExportContext) -> None:
        super().__init__(context)
        of_subset: dict[str, list[ImageInfo]] = {}
        for image in context.images:
            of_subset.setdefault(self._subset(image), []).append(image)
        self._files = {
            name: self._begun(name, of_subset.get(name, [])) for name in of_subset or [DEFAULT]
        }
        self._begun_lists: set[str] = set()

    def _subset(self, image: ImageInfo) -> str:
        """The file that an image is in."""
        return (image.subset or DEFAULT) if self.context.archive.zipped else DEFAULT

    def _begun(self, subset: str, images: Sequence[ImageInfo]) -> IO[bytes]:
        """A document with all but its annotations."""
        file = self.context.archive.document(NAME.format(subset), ending=b"]}\n")
        file.write(b'{"info":' + to_json(INFO) + b',"images":[')
        for number, image in enumerate(images):
            path = self.context.image_names[image.id]
            record: dict[str, Any] = {"id": image.id, "file_name": path}
            record |= {"width": image.width, "height": image.height}
            split = {"subset": image.subset, "group": image.group}
            record |= {name: value for name, value in split.items() if value}
            file.write((b",\n" if number else b"") + to_json(record))
        records = [{"id": id_, "name": name} for id_, name in self.class_names.items()]
        file.write(b'],"categories":' + to_json(records) + b',"annotations":[')
        return file

    def add(self, image: ImageInfo, shapes: Sequence[Shape]) -> Iterable[float]:
        """Write an image's masks, see `Writer.add`."""
        subset = self._subset(image)
        file = self._files[subset]
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
            file.write((b",\n" if subset in self._begun_lists else b"") + to_json(record))
            self._begun_lists.add(subset)
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
