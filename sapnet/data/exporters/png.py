"""One PNG of 16 bits per image, whose pixels name their object, and a legend."""

from collections.abc import Iterable, Sequence
from typing import Any, ClassVar

import numpy as np

from sapnet.data.exporters.base import (
    ExportContext,
    UnsupportedFormat,
    Writer,
    index_map,
    to_json,
)
from sapnet.data.exporters.names import stems
from sapnet.data.exporters.palette import grey_png
from sapnet.data.exporters.source import Shape
from sapnet.types import ImageInfo

LARGEST = 65_535


class Png(Writer):
    """A PNG per image, and legend.json."""

    notes: ClassVar[tuple[str, ...]] = (
        "A pixel belongs to one object: where two overlap, the one of higher quality has it.",
        f"At most {LARGEST:,} objects per image; an image with more is skipped.",
    )

    def __init__(self, context: ExportContext) -> None:
        super().__init__(context)
        self._stems = stems(context.image_names)
        self._legend = context.archive.document("legend.json", ending=b"]}\n")
        names = [{"id": id_, "name": name} for id_, name in self.class_names.items()]
        self._legend.write(b'{"categories":' + to_json(names) + b',"images":[')
        self._first = True

    def add(self, image: ImageInfo, shapes: Sequence[Shape]) -> Iterable[float]:
        """Write an image's masks, see `Writer.add`."""
        if len(shapes) > LARGEST:
            raise UnsupportedFormat(
                f"its image has {len(shapes):,} masks, a PNG has room for {LARGEST:,}"
            )
        name = f"masks/{self._stems[image.id]}.png"
        indices, ious = index_map(image, shapes, np.uint16)
        self.context.archive.data(name, grey_png(indices))
        record: dict[str, Any] = {
            "id": image.id,
            "file_name": self.context.image_names[image.id],
            "masks": name,
            "instances": [
                {
                    "value": value,
                    "id": shape.instance.id,
                    "category_id": shape.instance.category_id,
                    "quality": shape.instance.quality,
                }
                for value, shape in enumerate(shapes, 1)
            ],
        }
        self._legend.write((b"" if self._first else b",\n") + to_json(record))
        self._first = False
        return ious
