"""COCO results that a segmenter finds on the images of a ground truth."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sapnet.data.annotations.ground_truth import read_truth
from sapnet.data.exif import orientation_of
from sapnet.data.file_pairing import files_in
from sapnet.data.images import ImageProblem, read_header, read_rgb
from sapnet.errors import ValidationIssue

if TYPE_CHECKING:
    from sapnet.segmenters.checkpoint import Predictor
    from sapnet.segmenters.onnx.predictor import OnnxPredictor


def detect(
    predictor: "Predictor | OnnxPredictor",
    files: Mapping[int, Path],
    truth: dict[str, Any],
    progress: Callable[[int, int], None] = lambda step, of: None,
) -> list[dict[str, Any]]:
    """COCO results with `image_id`, of every image of `truth`.

    Every mask that Matrix NMS kept counts, however low its score: AP wants them.

    Args:
        files: of the images, by id.
        progress: called after each image with (step, of).

    Raises:
        ImageProblem: names the image.
        OSError: a file cannot be read.
    """
    results = []
    for step, image in enumerate(truth["images"], start=1):
        try:
            pixels = read_rgb(files[image["id"]], ranges=predictor.pixel_ranges)
        except ImageProblem as error:
            raise ImageProblem(f"{image['file_name']}: {error}") from error
        predicted = predictor.predict(pixels, score_threshold=0.0)
        results += [{"image_id": image["id"], **result} for result in predicted]
        progress(step, len(truth["images"]))
    return results


def read_truth_of(
    truth: Path, images: Path, warn: Callable[[ValidationIssue], None]
) -> tuple[dict[str, Any], dict[int, Path]]:
    """`read_truth`, held against the images themselves, and their files by image id.

    It comes back in stored pixels, as what a model finds in the images does.

    Args:
        images: the folder of the images, in which `sapnet.data.file_pairing` finds them.
        warn: called with what was left out, and with what was mapped or assumed of images with an
            EXIF orientation.

    Raises:
        InvalidDataset: the sizes are of other images.
        ImageProblem: names the image.
    """
    names = {image["id"]: image["file_name"] for image in read_truth(truth)["images"]}
    pairing = files_in(images, names.values())
    for problem in (pairing.missing() | pairing.unclear()).values():
        raise ImageProblem(f"{images}: {problem.problem} ({problem.hint})")
    files = {id_: pairing.matched[name] for id_, name in names.items()}
    sizes = {}
    for id_, file in files.items():
        try:
            sizes[id_] = read_header(file).size
        except ImageProblem as error:
            raise ImageProblem(f"{names[id_]}: {error}") from error
    return read_truth(truth, sizes, lambda id_: orientation_of(files[id_]), warn), files
