"""Masks as Label Studio's results. Its places are per cent of the image as it is shown."""

import secrets
from typing import Any

import numpy as np

from app.integrations.label_studio.interface import Control
from sapnet.data.orientation import upright_array
from sapnet.types import BoolArray

_TOLERANCE = 0.75
"""Pixels that a polygon may leave the outline of its mask."""


def regions_of(
    mask: BoolArray, orientation: int, control: Control, label: str, score: float | None = None
) -> list[dict[str, Any]]:
    """One result, or for polygons one for each connected part; none for an empty mask.

    Args:
        mask: (H, W) bool, as the image is stored.
        orientation: of the image's EXIF: Label Studio shows it upright.
        label: one of the tag's.
        score: of the prediction.
    """
    shown = np.ascontiguousarray(upright_array(mask, orientation))
    if not shown.any():
        return []
    height, width = shown.shape
    return [
        {
            "id": secrets.token_hex(5),
            "from_name": control.name,
            "to_name": control.image,
            "type": control.type,
            "original_width": width,
            "original_height": height,
            "image_rotation": 0,
            "value": {**value, control.type: [label]},
            **({} if score is None else {"score": round(score, 4)}),
        }
        for value in _values(shown, control.type)
    ]


def _values(mask: BoolArray, kind: str) -> list[dict[str, Any]]:
    from sapnet.data.exporters.label_studio import brush_rle  # the API needs no other exporter
    from sapnet.data.exporters.polygons import outlines

    if kind == "brushlabels":
        return [{"format": "rle", "rle": brush_rle(mask, (mask.shape[0], mask.shape[1]))}]
    height, width = mask.shape
    if kind == "polygonlabels":
        per_cent = 100 / np.array([width, height])
        return [
            {"points": np.round(polygon * per_cent, 4).tolist(), "closed": True}
            for polygon in outlines(mask, simplify=_TOLERANCE)
            if len(polygon) > 2
        ]
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    left, top = columns[0] * 100 / width, rows[0] * 100 / height
    right, bottom = (columns[-1] + 1) * 100 / width, (rows[-1] + 1) * 100 / height
    box = {"x": left, "y": top, "width": right - left, "height": bottom - top, "rotation": 0}
    return [{name: round(float(value), 4) for name, value in box.items()}]
