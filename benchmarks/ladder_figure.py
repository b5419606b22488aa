"""The same objects under every method, one sheet."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from ladder_data import DataSet
from PIL import Image, ImageDraw, ImageFont

from sapnet.data.annotations.ground_truth import as_rle
from sapnet.data.drawing import colour, dots, paint
from sapnet.types import ByteArray, PointAnnotation, Rle

SIDE, GAP, HEADER = 112, 4, 18
MARGIN = 0.5  # of the object's longer side, on each side of it


def chosen(data: DataSet, count: int) -> tuple[int, ...]:
    """Ids of up to `count` annotations with truth, of different images and rising size."""
    true = {a["id"]: a for a in data.truth["annotations"] if not a["iscrowd"]}
    known = sorted(
        (a for a in data.points.annotations if a.id in true),
        key=lambda a: (true[a.id]["area"], a.id),
    )
    found: list[PointAnnotation] = []
    for wanted in np.linspace(0.4, 0.97, count) * (len(known) - 1):
        used = {a.image_id for a in found}
        rest = [(abs(i - wanted), i) for i, a in enumerate(known) if a.image_id not in used]
        found += [known[i] for _, i in sorted(rest)[:1]]
    found.sort(key=known.index)
    return tuple(a.id for a in found)


def draw(
    path: Path,
    sets: Sequence[tuple[DataSet, str, Mapping[str, Mapping[int, Rle]]]],
    titles: Mapping[str, str],
) -> None:
    """Write a PNG: a row an object, a column a method, between the image and the truth.

    sets: data, what to call it, and by method the masks by annotation id. titles: by method.
    """
    heads = ["image and point", *titles.values(), "truth"]
    lines: list[tuple[str, list[list[ByteArray]]]] = []
    for data, name, masks in sets:
        ids = list(dict.fromkeys(id_ for own in masks.values() for id_ in own))
        strips = [
            strip(data, id_, [masks.get(method, {}).get(id_) for method in titles]) for id_ in ids
        ]
        lines.append((name, strips))
    height = HEADER + sum(HEADER + len(strips) * (SIDE + GAP) for _, strips in lines)
    sheet = Image.new("RGB", (len(heads) * (SIDE + GAP) + GAP, height), "white")
    pen, font = ImageDraw.Draw(sheet), ImageFont.load_default(12)
    for column, text in enumerate(heads):
        pen.text((GAP + column * (SIDE + GAP), 2), text, fill="black", font=font)
    y = HEADER
    for name, strips in lines:
        pen.text((GAP, y + 2), name, fill="black", font=font)
        y += HEADER
        for panels in strips:
            for column, panel in enumerate(panels):
                sheet.paste(Image.fromarray(panel), (GAP + column * (SIDE + GAP), y))
            y += SIDE + GAP
    path.parent.mkdir(parents=True, exist_ok=True)
    sheet.save(path)


def strip(data: DataSet, id_: int, masks: Sequence[Rle | None]) -> list[ByteArray]:
    """The panels of one object, (SIDE, SIDE, 3) each; white where a method has no mask."""
    point = next(a for a in data.points.annotations if a.id == id_)
    info = next(i for i in data.points.images if i.id == point.image_id)
    true: dict[str, Any] = next(a for a in data.truth["annotations"] if a["id"] == id_)
    image = data.pixels(info)
    whole = as_rle(true["segmentation"], *info.size)
    x, y, w, h = true["bbox"]
    half = max((0.5 + MARGIN) * max(w, h), 12.0)
    window = (x + w / 2 - half, y + h / 2 - half, x + w / 2 + half, y + h / 2 + half)
    panels = [dots(image, [(point.x, point.y)], max(half / 30, 1.5))]
    panels += [
        np.full_like(image, 255) if mask is None else paint(image, [(mask, colour(0))])
        for mask in masks
    ]
    panels.append(paint(image, [(whole, colour(2))]))
    return [cut(panel, window) for panel in panels]


def cut(panel: ByteArray, window: tuple[float, float, float, float]) -> ByteArray:
    """A window (xyxy) of an image, black outside of it, at SIDE × SIDE."""
    left, top, right, bottom = (round(value) for value in window)
    cropped = Image.fromarray(panel).crop((left, top, right, bottom))
    return np.asarray(cropped.resize((SIDE, SIDE), Image.Resampling.LANCZOS))
