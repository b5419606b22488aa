"""How jobs and masks look in a notebook: HTML with previews in it, without scripts."""

import base64
import io
from html import escape
from typing import Any

LONGEST = 320
"""Pixels of a preview's longer side."""
COLOUR = (230, 60, 40)


def job_html(job: Any, preview: bytes | None = None) -> str:
    """Return a job as a small table.

    Args:
        preview: a PNG of some of its masks.
    """
    rows = {
        "state": job.state if not job.stage or job.over else f"{job.state}: {job.stage}",
        "done": f"{job.progress:.0%}",
        "method": job.method,
        "preset": job.preset,
        "model": job.model_id,
        "error": job.error,
    }
    rows |= {f"warning {n}": text for n, text in enumerate(job.warnings[:3], 1)}
    body = "".join(
        f"<tr><th style='text-align:left'>{escape(name)}</th><td>{escape(str(value))}</td></tr>"
        for name, value in rows.items()
        if value is not None
    )
    table = f"<table><caption>job {escape(job.id)}</caption>{body}</table>"
    return table if preview is None else f"{table}{_img(preview, 'masks of some images', 960)}"


def mask_html(mask: Any, file: bytes | None = None) -> str:
    """Return a mask drawn on its image.

    Args:
        file: of the image; None gives the mask's shape alone.
    """
    quality = getattr(mask, "quality", getattr(mask, "score", None))
    words = [f"image {mask.image_id}", f"class {mask.category_id}"]
    words += [f"quality {quality:.2f}"] if quality is not None else []
    words += [mask.status] if hasattr(mask, "status") else []
    caption = ", ".join(words)
    try:
        preview = drawn(mask.segmentation.array(), mask.bbox, _opened(file))
    except ValueError as error:  # damaged runs; a preview is no reason for an exception
        return f"<div>{escape(caption)}: {escape(str(error))}</div>"
    return (
        f"<figure style='margin:0'>{_img(preview, caption, LONGEST)}"
        f"<figcaption>{escape(caption)}</figcaption></figure>"
    )


def drawn(mask: Any, bbox: list[float], image: Any = None) -> bytes:
    """Draw a mask with a margin around its box.

    Args:
        mask: (height, width) bool.
        bbox: x, y, width, height in pixels.
        image: Pillow's, of the same size; a grey one where there is none.

    Returns:
        A PNG.
    """
    import numpy
    from PIL import Image

    height, width = mask.shape
    x, y, across, down = bbox
    margin = 0.25 * max(across, down) + 4
    left, top = max(int(x - margin), 0), max(int(y - margin), 0)
    right, bottom = (
        min(int(x + across + margin) + 1, width),
        min(int(y + down + margin) + 1, height),
    )
    if image is not None and image.size == (width, height):
        pixels = numpy.asarray(image.convert("RGB").crop((left, top, right, bottom)), float)
    else:
        pixels = numpy.full((bottom - top, right - left, 3), 235.0)
    inside = mask[top:bottom, left:right, None]
    blended = numpy.where(inside, 0.55 * pixels + 0.45 * numpy.array(COLOUR), pixels)
    preview = Image.fromarray(blended.astype(numpy.uint8))
    scale = LONGEST / max(preview.size)
    size = (max(round(preview.width * scale), 1), max(round(preview.height * scale), 1))
    buffer = io.BytesIO()
    preview.resize(size, Image.Resampling.NEAREST if scale > 1 else None).save(buffer, "PNG")
    return buffer.getvalue()


def _img(png: bytes, what: str, width: int) -> str:
    data = base64.b64encode(png).decode()
    style = f"max-width:{width}px;width:100%"
    return f'<img alt="{escape(what)}" style="{style}" src="data:image/png;base64,{data}">'


def _opened(file: bytes | None) -> Any:
    from PIL import Image, UnidentifiedImageError

    try:
        return None if file is None else Image.open(io.BytesIO(file))
    except (UnidentifiedImageError, OSError):
        return None
