"""Loads a trained segmenter as a model of MLflow's flavour python_function."""

import json
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pandas

    from sapnet.segmenters.checkpoint import Predictor

COLUMNS = ("category_id", "score", "x", "y", "width", "height", "segmentation")


class MlflowModel:
    """Predicts the objects in an image."""

    def __init__(self, predictor: "Predictor") -> None:
        self._predictor = predictor

    def predict(self, image: Any, params: dict[str, Any] | None = None) -> "pandas.DataFrame":
        """Return a row for each object.

        Args:
            image: (H, W, 3) uint8 RGB, or {"image": that}.

        Returns:
            A table of COLUMNS; boxes in pixels, `segmentation` as JSON of compressed COCO RLE.
        """
        import numpy
        import pandas

        array = image["image"] if isinstance(image, dict) else image
        results = self._predictor.predict(numpy.asarray(array, numpy.uint8))
        rows = [
            (r["category_id"], r["score"], *r["bbox"], json.dumps(r["segmentation"]))
            for r in results
        ]
        return pandas.DataFrame(rows, columns=list(COLUMNS))


def _load_pyfunc(path: str) -> MlflowModel:
    from pathlib import Path

    from sapnet.segmenters.checkpoint import load_predictor

    return MlflowModel(load_predictor(Path(path)))
