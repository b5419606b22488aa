"""Images for agents: one or a part of it, with a mask, and with a scale in its pixels."""

import base64
import io
import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from mcp.types import ImageContent, TextContent
from PIL import Image, ImageDraw

from sapnet.data.drawing import colour
from sapnet.data.images import read_rgb
from sapnet.data.masks import outline
from sapnet.types import BoolArray, ByteArray

SIDE = 640
"""Pixels of a drawn image's longer side, its scale not counted."""
MAX_ENLARGEMENT = 8.0
_LEFT, _BOTTOM = 40, 16  # pixels for the numbers of the scale
_STEPS = (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000, 10_000, 20_000)

Shown = list[TextContent | ImageContent]
Window = tuple[int, int, int, int]
"""x1, y1, x2, y2 in whole pixels of the image; x2 and y2 lie just behind it."""


def rgb(raw: bytes) -> ByteArray:
    """Return an image file as (H, W, 3) uint8, as it is stored."""
    return read_rgb(io.BytesIO(raw))


def window_around(box: Sequence[float], height: int, width: int, margin: float = 0.6) -> Window:
    """Return the part of an image around a box, with `margin` of its longer side on each side.

    Args:
        box: x, y, width, height in pixels.
        height, width: of the image.
    """
    x, y, w, h = box
    reach = max(margin * max(w, h), 12.0)
    return (
        max(0, int(x - reach)),
        max(0, int(y - reach)),
        min(width, int(np.ceil(x + w + reach))),
        min(height, int(np.ceil(y + h + reach))),
    )


def drawn(
    image: ByteArray,
    window: Window | None = None,
    masks: Iterable[BoolArray] = (),
    points: Iterable[Sequence[float]] = (),
    side: int = SIDE,
) -> bytes:
    """Draw a part of an image with masks and points over it, as a JPEG.

    The numbers along its left and lower side are pixels of the whole image.

    Args:
        image: (H, W, 3) uint8.
        window: the part; None is all of it.
        masks: (H, W) bool each.
        points: x, y in pixels of the image.
        side: pixels of the longer side of the result.
    """
    x1, y1, x2, y2 = window or (0, 0, image.shape[1], image.shape[0])
    scale = min(side / max(x2 - x1, y2 - y1), MAX_ENLARGEMENT)
    size = max(1, round((x2 - x1) * scale)), max(1, round((y2 - y1) * scale))
    how = Image.Resampling.BICUBIC if scale > 1 else Image.Resampling.BOX
    pixels = np.asarray(Image.fromarray(image[y1:y2, x1:x2]).resize(size, how)).copy()
    for number, mask in enumerate(masks):
        part = Image.fromarray(mask[y1:y2, x1:x2]).resize(size, Image.Resampling.NEAREST)
        inside, tint = np.asarray(part, np.bool_), np.array(colour(number), np.float32)
        pixels[inside] = (0.65 * pixels[inside] + 0.35 * tint).astype(np.uint8)
        pixels[outline(inside)] = tint.astype(np.uint8)
    canvas = Image.new("RGB", (size[0] + _LEFT, size[1] + _BOTTOM), (255, 255, 255))
    canvas.paste(Image.fromarray(pixels), (_LEFT, 0))
    pen = ImageDraw.Draw(canvas)
    for x, y in points:
        spot = _LEFT + (x - x1) * scale, (y - y1) * scale
        circle = (spot[0] - 4, spot[1] - 4, spot[0] + 4, spot[1] + 4)
        pen.ellipse(circle, fill=(255, 255, 255), outline=(20, 20, 20))
    _scale(pen, (x1, y1, x2, y2), scale, size[1])
    buffer = io.BytesIO()
    canvas.save(buffer, "JPEG", quality=85)
    return buffer.getvalue()


def _scale(pen: ImageDraw.ImageDraw, window: Window, scale: float, height: int) -> None:
    """Numbers along the left and the lower side."""
    x1, y1, x2, y2 = window
    step = next((s for s in _STEPS if s * scale >= 55), _STEPS[-1])
    grey = (90, 90, 90)
    for x in range(-(-x1 // step) * step, x2, step):
        spot = _LEFT + (x - x1) * scale
        pen.line((spot, height, spot, height + 4), fill=grey)
        pen.text((spot + 2, height + 3), str(x), fill=grey)
    for y in range(-(-y1 // step) * step, y2, step):
        spot = (y - y1) * scale
        pen.line((_LEFT - 4, spot, _LEFT, spot), fill=grey)
        pen.text((2, min(spot, height - 10)), str(y), fill=grey)


def labelled(images: Iterable[tuple[Mapping[str, Any], bytes]]) -> Shown:
    """Return a tool's answer: facts as JSON and their image, one after the other."""
    answer: Shown = []
    for facts, jpeg in images:
        data = base64.b64encode(jpeg).decode()
        answer.append(text(facts))
        answer.append(ImageContent(type="image", data=data, mime_type="image/jpeg"))
    return answer


def text(facts: Mapping[str, Any]) -> TextContent:
    """Return facts as JSON for an agent."""
    return TextContent(type="text", text=json.dumps(facts, ensure_ascii=False))
