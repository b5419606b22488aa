"""Label Studio: tasks with predictions, brush masks in its own run-length code.

Its importer reads brush labels, which keep holes and split parts; polygons would lose both. The
code is rle-pack's (https://github.com/thi-ng/umbrella/tree/develop/packages/rle-pack), over the
four channels of each pixel, row by row.
"""

from collections.abc import Iterable, Sequence
from typing import Any, ClassVar
from urllib.parse import quote
from xml.sax.saxutils import quoteattr

import numpy as np

from sapnet.data.exporters.base import ExportContext, Writer, to_json
from sapnet.data.exporters.source import Shape
from sapnet.data.exporters.xml import printable
from sapnet.types import BoolArray, ImageInfo

CHANNELS, WORD_BITS = 4, 8
LENGTH_BITS = (3, 4, 8, 16)
"""Of a run's length less one; which of them comes before it, in 2 bits."""


class LabelStudio(Writer):
    """Tasks with brush masks as predictions."""

    notes: ClassVar[tuple[str, ...]] = (
        "label_config.xml is the labelling interface for the project.",
        "Tasks name images in local storage: put them into a folder `images` below "
        "LOCAL_FILES_DOCUMENT_ROOT, or replace data.image.",
    )

    def __init__(self, context: ExportContext) -> None:
        super().__init__(context)
        values = map(quoteattr, self.class_names.values())
        labels = "".join(f"<Label value={value}/>" for value in values)
        context.archive.text(
            "label_config.xml",
            '<View><Image name="image" value="$image"/>'
            f'<BrushLabels name="tag" toName="image">{labels}</BrushLabels></View>\n',
        )
        self._file = context.archive.document("tasks.json", ending=b"]\n")
        self._file.write(b"[")
        self._first = True

    def writable_name(self, name: str) -> str:
        """The name of a class as XML can hold it."""
        return printable(name)

    def add(self, image: ImageInfo, shapes: Sequence[Shape]) -> Iterable[float]:
        """Write an image's masks, see `Writer.add`."""
        results = [self._result(image, shape) for shape in shapes]
        qualities = [s.instance.quality for s in shapes]
        task = {
            "data": {"image": f"/data/local-files/?d={quote(self.image_path(image))}"},
            "predictions": [
                {
                    "model_version": "points to masks",
                    "score": float(np.mean(qualities)) if qualities else 0.0,
                    "result": results,
                }
            ],
        }
        self._file.write((b"" if self._first else b",\n") + to_json(task))
        self._first = False
        return [1.0] * len(shapes)

    def _result(self, image: ImageInfo, shape: Shape) -> dict[str, Any]:
        return {
            "id": str(shape.instance.id),
            "type": "brushlabels",
            "from_name": "tag",
            "to_name": "image",
            "original_width": image.width,
            "original_height": image.height,
            "image_rotation": 0,
            "score": shape.instance.quality,
            "value": {
                "format": "rle",
                "rle": brush_rle(shape.mask, image.size, shape.left, shape.top),
                "brushlabels": [self.class_names[shape.instance.category_id]],
            },
        }


def brush_rle(mask: BoolArray, size: tuple[int, int], left: int = 0, top: int = 0) -> list[int]:
    """The bytes that `value.rle` of brush labels holds.

    Args:
        mask: (h, w) bool, a part of the image.
        size: (H, W) of the whole image.
        left, top: where the part begins, in pixels.
    """
    return list(packed(_row_runs(mask, size, left, top)))


def _row_runs(mask: BoolArray, size: tuple[int, int], left: int, top: int) -> list[int]:
    """Lengths of runs of the whole image, row by row, of background first (maybe 0), in pixels."""
    height, width = mask.shape
    framed = np.zeros((height, width + 2), np.int8)
    framed[:, 1:-1] = mask
    rows, columns = np.nonzero(np.diff(framed, axis=1))  # begin, end, begin, end, …
    places = (top + rows) * size[1] + left + columns
    return np.diff(np.concatenate([[0], places, [size[0] * size[1]]])).tolist()


def packed(runs: list[int]) -> bytes:
    """rle-pack's code of an image of 8 bits: 255 in every channel of the mask, 0 elsewhere.

    Count of values (32 bits), bits a word less one (5), the four LENGTH_BITS less one (4 each);
    then for each run: 1, which of LENGTH_BITS (2), its length less one, the value (8).
    """
    fields = [f"{CHANNELS * sum(runs):032b}{WORD_BITS - 1:05b}"]
    fields += [f"{size - 1:04b}" for size in LENGTH_BITS]
    longest = 1 << LENGTH_BITS[-1]
    for number, run in enumerate(runs):
        value, left = f"{255 * (number % 2):08b}", CHANNELS * run
        while left > 0:
            length = min(left, longest)
            kind = next(k for k, size in enumerate(LENGTH_BITS) if length <= 1 << size)
            fields.append(f"1{kind:02b}{length - 1:0{LENGTH_BITS[kind]}b}{value}")
            left -= length
    text = "".join(fields)
    text += "0" * (-len(text) % 8)
    return int(text, 2).to_bytes(len(text) // 8, "big")
