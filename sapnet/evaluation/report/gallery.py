"""One PNG that shows a run: image, points, proposals, selected, refined, delivered, predicted."""

from collections.abc import Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from sapnet.data.drawing import colour, dots, paint
from sapnet.data.images import read_rgb
from sapnet.data.masks import area
from sapnet.data.samples import ImageRecord
from sapnet.types import ByteArray, PseudoMask

TITLES = ("image and points", "proposals", "selected", "refined", "delivered", "predicted")
HEIGHT = 220
GAP = 6
ROWS = 6  # images with annotations, the first ones
PROPOSALS = 4  # of each bag, the largest
LEAST_SCORE = 0.3  # of the predictions that are drawn


def draw_gallery(
    path: Path,
    records: Sequence[ImageRecord],
    masks: Sequence[PseudoMask],
    detections: list[dict[str, Any]],
    count: int = ROWS,
) -> None:
    """Write a PNG with a row per image: the first `count` images that have annotations.

    Args:
        masks: the delivered ones, of all images.
        detections: COCO results with image_id, over all images.
    """
    chosen = list(islice((record for record in records if record.annotations), count))
    strips = [panels_of(record, masks, detections) for record in chosen]
    if not strips:
        strips = [[np.full((HEIGHT, HEIGHT, 3), 255, np.uint8)] * len(TITLES)]
    widths = [max(strip[column].shape[1] for strip in strips) for column in range(len(TITLES))]
    header = 24
    sheet = Image.new(
        "RGB",
        (sum(widths) + GAP * (len(widths) + 1), header + len(strips) * (HEIGHT + GAP)),
        "white",
    )
    pen = ImageDraw.Draw(sheet)
    x = GAP
    for column, title in enumerate(TITLES):
        pen.text((x, 4), title, fill="black", font=ImageFont.load_default(14))
        for row, strip in enumerate(strips):
            sheet.paste(Image.fromarray(strip[column]), (x, header + row * (HEIGHT + GAP)))
        x += widths[column] + GAP
    sheet.save(path)


def panels_of(
    record: ImageRecord, masks: Sequence[PseudoMask], detections: list[dict[str, Any]]
) -> list[ByteArray]:
    """The six panels of one image, each HEIGHT pixels high."""
    image = read_rgb(record.path, ranges=record.ranges)
    own = {mask.id: mask for mask in masks if mask.image_id == record.info.id}
    shown = [own[a.id] for a in record.annotations]
    points = [(a.x, a.y) for a in record.annotations]
    predicted = [
        d for d in detections if d["image_id"] == record.info.id and d["score"] >= LEAST_SCORE
    ]
    proposals = [
        (rle, colour(n))
        for n, bag in enumerate(record.bags)
        for rle in sorted(bag.masks, key=area, reverse=True)[:PROPOSALS]
    ]
    panels = [
        dots(image, points),
        dots(paint(image, proposals), points),
        paint(image, [(m.selected, colour(n)) for n, m in enumerate(shown)]),
        paint(image, [(m.refined, colour(n)) for n, m in enumerate(shown) if m.refined]),
        paint(image, [(m.segmentation, colour(n)) for n, m in enumerate(shown)]),
        paint(image, [(d["segmentation"], colour(n)) for n, d in enumerate(predicted)]),
    ]
    return [to_height(panel) for panel in panels]


def to_height(panel: ByteArray) -> ByteArray:
    """Resize to HEIGHT, the width in proportion and at most twice that."""
    h, w = panel.shape[:2]
    size = (min(max(round(w * HEIGHT / h), 1), 2 * HEIGHT), HEIGHT)
    return np.asarray(Image.fromarray(panel).resize(size, Image.Resampling.LANCZOS))
