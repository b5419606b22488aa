"""A model of the service as an auto-annotation function of CVAT.

    cvat-cli task auto-annotate 7 --function-module app.cli.cvat.function -p model=str:best

The images go to the service, at $SAPNET_URL with $SAPNET_KEY, or at the parameters `url` and `key`.
"""

from collections.abc import Sequence
from typing import Any

import cvat_sdk.auto_annotation as cvataa
import cvat_sdk.models as models
import numpy as np
import PIL.Image
from cvat_sdk.masks import encode_mask

from sapnet.data.exporters.polygons import outlines
from sapnet_client import Client

_SCORE = 0.3
"""Where CVAT names no threshold: doubtful masks are work for people."""


class Function:
    """Masks of a trained model.

    Args:
        client: of the service.
        model: id or alias of the model.
    """

    def __init__(self, client: Client, model: str) -> None:
        info = client.model(model)
        self._client, self._model = client, info.id
        self._of_category = {c.id: number for number, c in enumerate(info.categories)}
        self.spec = cvataa.DetectionFunctionSpec(
            labels=[
                cvataa.label_spec(c.name, number, type="any")
                for number, c in enumerate(info.categories)
            ]
        )

    def detect(
        self, context: cvataa.DetectionFunctionContext, image: PIL.Image.Image
    ) -> Sequence[models.LabeledShapeRequest]:
        """The masks in an image, as it is given; as polygons where CVAT asks for these."""
        threshold = context.conf_threshold
        pixels = np.asarray(image.convert("RGB"))
        score = _SCORE if threshold is None else threshold
        shapes: list[models.LabeledShapeRequest] = []
        for prediction in self._client.predict(self._model, pixels, score=score):
            mask = prediction.segmentation.array().astype(bool)
            label = self._of_category[prediction.category_id]
            if not mask.any():
                continue
            if context.conv_mask_to_poly:
                shapes += [cvataa.polygon(label, points) for points in polygons(mask)]
            else:
                shapes.append(cvataa.mask(label, encode_mask(mask)))
        return shapes


def polygons(mask: Any) -> list[list[float]]:
    """The outer outlines of a mask's parts, as x, y, x, y, … in pixels."""
    return [p.ravel().tolist() for p in outlines(mask, simplify=0.75) if len(p) > 2]


def create(model: str, url: str | None = None, key: str | None = None) -> Function:
    """What `cvat-cli` calls with the parameters of its `-p`."""
    return Function(Client(url, key=key, progress=False), model)
