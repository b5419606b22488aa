"""Models in memory, loaded at the first prediction: the only part of the API that loads torch."""

import io
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from app.errors import Unavailable
from app.http.capacity import Capacity
from app.observability.metrics import PREDICT_SECONDS, PREDICT_WAIT_SECONDS
from sapnet.errors import WeightsUnavailable, is_out_of_memory
from sapnet.types import ByteArray, Category

Results = list[dict[str, Any]]

_AS_A_JOB = "Many images are better sent as one job (Prefer: respond-async)."


@dataclass(frozen=True, slots=True)
class PredictOptions:
    """How an image is predicted.

    Attributes:
        score: confidence threshold of the results.
        tiles: "auto", "off", or a tile's side in pixels, see `sapnet.data.tiles`.
        mirror: whether the mirror image is predicted too, see `sapnet.data.mirrored`.
    """

    score: float
    tiles: str | int = "auto"
    mirror: bool = False

    def settings(self) -> dict[str, Any]:
        """Those beside the score that are not as they are by default."""
        given = {"tiles": self.tiles, "mirror": self.mirror}
        return {k: v for k, v in given.items() if v not in ("auto", False)}


class Predictor(Protocol):
    """What `sapnet.segmenters.checkpoint.load_predictor` gives."""

    @property
    def categories(self) -> Sequence[Category]:
        """Classes of the model."""

    def predict(
        self,
        image: ByteArray,
        score_threshold: float = 0.1,
        tiles: Any = "auto",
        mirror: bool = False,
    ) -> Results:
        """Return COCO results by falling score. image: (H, W, 3) uint8."""


def load(path: Path) -> Predictor:
    """Load a trained model, and with it torch.

    Raises:
        WeightsUnavailable: this release cannot load the file.
    """
    from sapnet.segmenters.checkpoint import load_predictor

    return load_predictor(path)


class Runtime:
    """At most `capacity` models in memory; the one used longest ago makes room.

    One lock for all of it: torch uses every core for one image as it is, and two models that load
    at once would need the memory of both.

    Attributes:
        predictions: bounds how many predictions requests wait for at once, to `slots`.
        fetches: bounds how many images are fetched at once, to `slots`.
    """

    def __init__(
        self, capacity: int, loader: Callable[[Path], Predictor] = load, slots: int = 8
    ) -> None:
        if capacity < 1:
            raise ValueError(f"predict_cache_models must be at least 1, not {capacity}")
        self._capacity = capacity
        self._loader = loader
        self.predictions = Capacity("predictions", slots, _AS_A_JOB)
        self.fetches = Capacity("images that are fetched for a prediction", slots, _AS_A_JOB)
        self._warm: OrderedDict[str, Predictor] = OrderedDict()
        self._lock = threading.Lock()

    def predict(
        self, sha256: str, artifact: Callable[[], Path], image: ByteArray, options: PredictOptions
    ) -> Results:
        """Return the COCO results of a model, by falling score.

        Args:
            sha256: of the model's file.
            artifact: gives that file; called where the model is not in memory.
            image: (H, W, 3) uint8.
            options: how.

        Raises:
            Unavailable: this release cannot load the model.
        """
        began = time.perf_counter()
        with self._lock:
            PREDICT_WAIT_SECONDS.observe(time.perf_counter() - began)
            try:
                with PREDICT_SECONDS.labels("warm" if sha256 in self._warm else "cold").time():
                    model = self._model(sha256, artifact)
                    return model.predict(image, score_threshold=options.score, **options.settings())
            except Exception as error:  # of torch: the request is answered with 503
                if is_out_of_memory(error):
                    self._warm.clear()  # the next one finds more room
                raise

    def _model(self, sha256: str, artifact: Callable[[], Path]) -> Predictor:
        if sha256 not in self._warm:
            while len(self._warm) >= self._capacity:
                self._warm.popitem(last=False)
            try:
                self._warm[sha256] = self._loader(artifact())
            except WeightsUnavailable as error:
                raise Unavailable(f"The model cannot be loaded: {error}") from error
        self._warm.move_to_end(sha256)
        return self._warm[sha256]


def overlay_png(image: ByteArray, results: Results, categories: Sequence[Category]) -> bytes:
    """Return an image with its results drawn on it, as PNG.

    Args:
        image: (H, W, 3) uint8.
    """
    from PIL import Image

    from sapnet.data.drawing import overlay

    buffer = io.BytesIO()
    Image.fromarray(overlay(image, results, categories)).save(buffer, format="PNG")
    return buffer.getvalue()
