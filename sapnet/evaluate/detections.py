"""COCO results to be counted: read from a file, or found by a segmenter on a truth's images."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sapnet.data.images import ImageProblem, read_rgb

if TYPE_CHECKING:
    from sapnet.artifact import Predictor
    from sapnet.onnx.predictor import OnnxPredictor


def detect(
    predictor: "Predictor | OnnxPredictor",
    images: Path,
    truth: dict[str, Any],
    emit: Callable[[dict[str, Any]], None] = lambda event: None,
) -> list[dict[str, Any]]:
    """COCO results with `image_id`, of every image of `truth`.

    images: the folder that file names are relative to. Every mask that Matrix NMS kept counts,
    however low its score: AP wants them. emit: takes a progress event an image. Errors:
    ImageProblem names the image, OSError the file.
    """
    results = []
    for step, image in enumerate(truth["images"], start=1):
        try:
            pixels = read_rgb(images / image["file_name"])
        except ImageProblem as error:
            raise ImageProblem(f"{image['file_name']}: {error}") from error
        found = predictor.predict(pixels, score_threshold=0.0)
        results += [{"image_id": image["id"], **result} for result in found]
        of = len(truth["images"])
        emit({"event": "progress", "stage": "predict", "step": step, "of": of})
    return results


def read_results(path: Path, truth: dict[str, Any]) -> list[dict[str, Any]]:
    """COCO results; those that name their image by its file get its id. ValueError names the first
    one that is none, or whose file the truth does not have."""
    try:
        results = json.loads(path.read_text())
    except ValueError as error:
        raise ValueError(f"{path.name} is no JSON: {error}") from error
    if not isinstance(results, list):
        raise ValueError(f"{path.name} is no list of COCO results")
    by_name = {image["file_name"]: image["id"] for image in truth["images"]}
    for index, result in enumerate(results):
        known = result if isinstance(result, dict) else {}
        missing = [n for n in ("category_id", "segmentation", "score") if n not in known]
        if missing:
            raise ValueError(f"{path.name}: result {index} lacks {', '.join(missing)}")
        if "image_id" not in result:
            name = result.get("file_name")
            if name not in by_name:
                raise ValueError(f"the truth has no image {name!r}")
            result["image_id"] = by_name[name]
    return results
