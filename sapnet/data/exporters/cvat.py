"""CVAT for images 1.1: an XML of masks, to be uploaded as annotations of a task.

A mask is a run-length code of its own box, row by row, background first; nothing is lost. CVAT
finds images by name, and labels by name too: the task must have them.
"""

from collections.abc import Iterable, Sequence
from typing import ClassVar
from xml.sax.saxutils import escape, quoteattr

import numpy as np

from sapnet.data.exporters.base import ExportContext, Writer
from sapnet.data.exporters.source import Shape
from sapnet.data.exporters.xml import printable
from sapnet.types import BoolArray, ImageInfo


class Cvat(Writer):
    """One XML of masks."""

    document_suffix = ".xml"
    notes: ClassVar[tuple[str, ...]] = (
        "The task in CVAT must have labels by the same names, and the same images.",
    )

    def __init__(self, context: ExportContext) -> None:
        super().__init__(context)
        self._file = context.archive.document("annotations.xml", ending=b"</annotations>\n")
        names = map(escape, self.class_names.values())
        labels = "".join(f"<label><name>{name}</name></label>" for name in names)
        self._number = 0
        self._write('<?xml version="1.0" encoding="utf-8"?>\n<annotations><version>1.1</version>')
        self._write(f"<meta><task><labels>{labels}</labels></task></meta>\n")

    def writable_name(self, name: str) -> str:
        """The name of a class as XML can hold it."""
        return printable(name)

    def add(self, image: ImageInfo, shapes: Sequence[Shape]) -> Iterable[float]:
        """Write an image's masks, see `Writer.add`."""
        name = quoteattr(printable(self.context.image_names[image.id]))
        self._write(f'<image id="{self._number}" name={name} ')
        subset = f'subset="{image.subset}" ' if image.subset else ""
        self._write(f'{subset}width="{image.width}" height="{image.height}">\n')
        self._number += 1
        for shape in shapes:
            runs = row_runs(shape.mask)
            label = quoteattr(self.class_names[shape.instance.category_id])
            x, y, width, height = shape.bbox
            self._write(
                f'<mask label={label} source="auto" occluded="0" rle="{", ".join(map(str, runs))}" '
                f'left="{x}" top="{y}" width="{width}" height="{height}" z_order="0"></mask>\n'
            )
            yield 1.0
        self._write("</image>\n")

    def _write(self, text: str) -> None:
        self._file.write(text.encode())


def row_runs(mask: BoolArray) -> list[int]:
    """Lengths of runs row by row, of background first (0 where a mask begins at once)."""
    flat = mask.ravel()
    changes = np.flatnonzero(np.diff(flat)) + 1
    runs = np.diff(np.concatenate([[0], changes, [flat.size]])).tolist()
    return [0, *runs] if flat[0] else runs
