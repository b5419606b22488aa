"""Jobs on a trained model: predictions of many images, its export to ONNX, or its import.

Their job files are like a training's (docs/architecture.md), told from it by their `kind`.
"""

import json
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from sapnet.data.images import MAX_PIXELS, ImageProblem, read_rgb
from sapnet.data.inner_point import inner_point
from sapnet.data.masks import area, holds_points
from sapnet.data.tiles import Tiles
from sapnet.errors import InvalidConfig, Stopped
from sapnet.evaluation.score_calibration import ScoreCalibration
from sapnet.pipeline.events import EventSink, Progressed, Warned
from sapnet.utils.resources import ProgressTimer, peak_memory_mb

UNCALIBRATED = (
    "the model says nothing about how often its masks of a score are right (it was imported, or "
    "trained by an earlier release): their quality is their score"
)
Wish = Callable[[], bool]


@dataclass(frozen=True)
class InputImage:
    """One image to predict.

    Attributes:
        number: its place among them, or another number that it alone has.
        error: why there is no file to read.
        annotated: (J, 2) points of objects that need not be found, x and y in pixels.
    """

    number: int
    path: Path | None = None
    error: str | None = None
    annotated: Sequence[Sequence[float]] = ()


@dataclass(frozen=True)
class PredictJob:
    """Predict on many images.

    The result, `result/predictions.ndjson`, has a line an image: {"number", "size": [h, w],
    "results"} (COCO results), or {"number", "error"}.

    Attributes:
        model: an artifact, as `load_predictor` reads it.
        workdir: the job's folder.
        images: in the order of the result.
        score: the least one of a result.
        tiles, mirror: how, see `Predictor.predict`.
        max_pixels: of an image.
        label: whether results are to be objects of the data set: each has its "quality", the
            probability that it is right, a "point" inside of it and its "area" in pixels, and none
            holds a known point.
    """

    model: Path
    workdir: Path
    images: tuple[InputImage, ...]
    score: float = 0.1
    max_pixels: int = MAX_PIXELS
    label: bool = False
    tiles: Tiles = "auto"
    mirror: bool = False

    @classmethod
    def of(cls, data: dict[str, Any]) -> "PredictJob":
        """From the fields of a job file.

        Raises:
            LookupError: a field is missing.
            TypeError: a field is unknown or missing.
            ValueError: a value does not fit.
        """
        images = [
            InputImage(
                i["number"],
                Path(i["path"]) if "path" in i else None,
                i.get("error"),
                i.get("annotated", ()),
            )
            for i in data.pop("images")
        ]
        model, workdir = Path(data.pop("model")), Path(data.pop("workdir"))
        return cls(model, workdir, tuple(images), **data)

    def __call__(self, emit_event: EventSink, should_stop: Wish) -> dict[str, Any]:
        """Started again it goes on after the last whole line.

        Raises:
            Stopped: between images.
        """
        from sapnet.segmenters.checkpoint import load_predictor

        part = self.workdir / "predictions.part"
        failed_by_number = {line["number"]: "error" in line for line in _whole_lines(part)}
        predictor = None
        began, eta = time.monotonic(), ProgressTimer()
        with part.open("ab") as file:
            for step, image in enumerate(self.images, start=1):
                if image.number not in failed_by_number:
                    if image.error is None and predictor is None:
                        predictor = load_predictor(self.model)
                        if self.label and ScoreCalibration.of_meta(predictor.meta) is None:
                            emit_event(Warned(UNCALIBRATED))
                    line = self._line(predictor, image)
                    failed_by_number[image.number] = "error" in line
                    file.write(json.dumps(line).encode() + b"\n")
                    file.flush()
                seconds, of = round(eta(step, len(self.images)), 1), len(self.images)
                emit_event(Progressed("predict", step, of, seconds))
                if step < of and should_stop():
                    raise Stopped(f"stopped on request, {step} of {of} images done")
        if failed := sum(failed_by_number.values()):
            words = f"{failed} of {len(failed_by_number)} images could not be read; each says why"
            emit_event(Warned(words))
        target = self.workdir / "result" / "predictions.ndjson"
        target.parent.mkdir(exist_ok=True)
        part.replace(target)
        return _report(began)

    def _line(self, predictor: Any, image: InputImage) -> dict[str, Any]:
        try:
            if image.path is None:
                return {"number": image.number, "error": image.error or "it is missing"}
            pixels = read_rgb(image.path, self.max_pixels, predictor.pixel_ranges)
        except ImageProblem as error:
            return {"number": image.number, "error": str(error)}
        results = predictor.predict(pixels, self.score, self.tiles, self.mirror)
        if self.label:
            calibration = ScoreCalibration.of_meta(predictor.meta)
            results = list(_as_objects(results, image.annotated, calibration))
        return {"number": image.number, "size": list(pixels.shape[:2]), "results": results}


@dataclass(frozen=True)
class OnnxJob:
    """Write a model as `result/model.onnx`."""

    model: Path
    workdir: Path

    @classmethod
    def of(cls, data: dict[str, Any]) -> "OnnxJob":
        """From the fields of a job file.

        Raises:
            TypeError: a field is missing, unknown, or no path.
        """
        return cls(**{name: Path(value) for name, value in data.items()})

    def __call__(self, emit_event: EventSink, should_stop: Wish) -> dict[str, Any]:
        """Export the model.

        This takes a minute or so, in which `should_stop` is not asked: the process is killed then,
        and nothing is lost.
        """
        from sapnet.segmenters.checkpoint import load_predictor
        from sapnet.segmenters.onnx.export import export_onnx

        began = time.monotonic()
        emit_event(Progressed("onnx", 0, 1, None))
        predictor = load_predictor(self.model, device="cpu", ready=False)
        export_onnx(predictor, self.workdir / "result" / "model.onnx")
        emit_event(Progressed("onnx", 1, 1, 0.0))
        return _report(began)


@dataclass(frozen=True)
class ImportJob:
    """Write a model from outside as `result/model.pt`, with its other forms beside it.

    Attributes:
        file: see `sapnet.segmenters.importing`.
        name: of the file, for people.
        workdir: the job's folder.
    """

    file: Path
    name: str
    workdir: Path

    @classmethod
    def of(cls, data: dict[str, Any]) -> "ImportJob":
        """From the fields of a job file.

        Raises:
            LookupError: a field is missing.
            TypeError: a field is unknown, or no path.
        """
        file, workdir = Path(data.pop("file")), Path(data.pop("workdir"))
        return cls(file=file, workdir=workdir, **data)

    def __call__(self, emit_event: EventSink, should_stop: Wish) -> dict[str, Any]:
        """Read the file; `should_stop` is not asked, since this takes seconds.

        Raises:
            WeightsUnavailable: it is damaged, unsafe, or no model that is known.
        """
        from sapnet.segmenters.importing import import_model

        began = time.monotonic()
        emit_event(Progressed("model", 0, 1, None))
        import_model(self.file, self.workdir / "result", self.name)
        emit_event(Progressed("model", 1, 1, 0.0))
        return _report(began)


def _as_objects(
    results: list[dict[str, Any]],
    annotated: Sequence[Sequence[float]],
    calibration: ScoreCalibration | None,
) -> Iterator[dict[str, Any]]:
    """COCO results with "quality", "point" and "area", without empty masks and known objects.

    Args:
        annotated: see `InputImage`.
        calibration: of the model; without one the score stands for the quality.
    """
    for result in results:
        mask, score = result["segmentation"], result["score"]
        pixels = area(mask)
        if pixels and not (len(annotated) and holds_points(mask, np.asarray(annotated)).any()):
            quality = round(score if calibration is None else calibration(score), 4)
            yield {**result, "quality": quality, "point": inner_point(mask), "area": pixels}


def _report(began: float) -> dict[str, Any]:
    seconds = {"all": round(time.monotonic() - began, 2)}
    return {"seconds": seconds, "peak_memory_mb": peak_memory_mb()}


def _whole_lines(path: Path) -> Iterator[dict[str, Any]]:
    """The lines of an attempt before; a last one that was cut off is removed."""
    if not path.exists():
        return
    with path.open("r+b") as file:
        while line := file.readline():
            if not line.endswith(b"\n"):
                file.seek(-len(line), 1)
                file.truncate()
                return
            yield json.loads(line)


Job = PredictJob | OnnxJob | ImportJob
_KINDS: dict[str, Callable[[dict[str, Any]], Job]] = {
    "predict": PredictJob.of,
    "onnx": OnnxJob.of,
    "import": ImportJob.of,
}


def job_of(path: Path) -> Job | None:
    """The job that a file describes; None for a training's, which has no kind.

    Raises:
        InvalidConfig: names what is wrong with the file.
    """
    try:
        data = dict(json.loads(path.read_text()))
        kind = data.pop("kind", None)
        return None if kind is None else _KINDS[kind](data)
    except (OSError, LookupError, TypeError, ValueError) as error:
        raise InvalidConfig(f"{path.name}: {error!r}") from error
