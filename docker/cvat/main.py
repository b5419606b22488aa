"""What Nuclio calls for CVAT's AI tools: an image in, masks of the service's model out.

The body is CVAT's: {"image": base64, "threshold": 0 to 1}. The answer is a list of
{"confidence", "label", "type": "mask", "mask": pixels of the box row by row, then its left, top,
right and bottom}.
"""

import base64
import json
import os
from typing import Any

import numpy as np

from sapnet_client import Client

SCORE = 0.3


def init_context(context: Any) -> None:
    """Ask for the model once, when the function starts."""
    client = Client(progress=False)  # at $SAPNET_URL, with $SAPNET_KEY
    model = client.model(os.environ["SAPNET_MODEL"])
    context.user_data.client, context.user_data.model = client, model.id
    context.user_data.names = {category.id: category.name for category in model.categories}


def handler(context: Any, event: Any) -> Any:
    """Answer one image."""
    body = event.body if isinstance(event.body, dict) else json.loads(event.body)
    score = float(body.get("threshold", SCORE))
    predictions = context.user_data.client.predict(
        context.user_data.model, base64.b64decode(body["image"]), score=score
    )
    results = [result(f, context.user_data.names[f.category_id]) for f in predictions]
    return context.Response(
        body=json.dumps([r for r in results if r is not None]),
        headers={},
        content_type="application/json",
        status_code=200,
    )


def result(prediction: Any, label: str) -> dict[str, Any] | None:
    """A prediction as CVAT takes it; None for an empty mask."""
    mask = prediction.segmentation.array()
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    if not rows.size:
        return None
    top, bottom, left, right = (int(n) for n in (rows[0], rows[-1], columns[0], columns[-1]))
    inside = mask[top : bottom + 1, left : right + 1].astype(int).ravel().tolist()
    return {
        "confidence": str(round(prediction.score, 4)),
        "label": label,
        "type": "mask",
        "mask": [*inside, left, top, right, bottom],
    }
