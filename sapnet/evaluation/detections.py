"""COCO results to be counted: read from a file, or found by a segmenter on a truth's images."""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sapnet.data.annotations.ground_truth import read_truth
from sapnet.data.depth import parse
from sapnet.data.exif import orientation_of
from sapnet.data.images import ImageProblem, read_header, read_rgb
from sapnet.data.masks import check_box, checked_rle, tight_box
from sapnet.errors import InvalidGeometry, ValidationIssue

if TYPE_CHECKING:
    from sapnet.segmenters.checkpoint import Predictor
    from sapnet.segmenters.onnx.predictor import OnnxPredictor


def detect(
    predictor: "Predictor | OnnxPredictor",
    images: Path,
    truth: dict[str, Any],
    progress: Callable[[int, int], None] = lambda step, of: None,
) -> list[dict[str, Any]]:
    """COCO results with `image_id`, of every image of `truth`.

    images: the folder that file names are relative to. Every mask that Matrix NMS kept counts,
    however low its score: AP wants them. progress: called after each image with (step, of). Errors:
    ImageProblem names the image, OSError the file.
    """
    results = []
    for step, image in enumerate(truth["images"], start=1):
        try:
            pixels = read_rgb(images / image["file_name"], ranges=predictor.pixel_ranges)
        except ImageProblem as error:
            raise ImageProblem(f"{image['file_name']}: {error}") from error
        predicted = predictor.predict(pixels, score_threshold=0.0)
        results += [{"image_id": image["id"], **result} for result in predicted]
        progress(step, len(truth["images"]))
    return results


def read_truth_of(
    truth: Path, images: Path, warn: Callable[[ValidationIssue], None]
) -> dict[str, Any]:
    """`read_truth`, checked against the image files and in their stored pixels.

    Args:
        images: the folder that file names are relative to.
        warn: called with what was mapped or assumed of images with an EXIF orientation.

    Raises:
        InvalidDataset: the sizes are of other images.
        ImageProblem: names the image.
    """
    files = {i["id"]: images / i["file_name"] for i in read_truth(truth)["images"]}
    sizes = {}
    for id_, file in files.items():
        try:
            sizes[id_] = read_header(file).size
        except ImageProblem as error:
            raise ImageProblem(f"{file.relative_to(images)}: {error}") from error
    return read_truth(truth, sizes, lambda id_: orientation_of(files[id_]), warn)


def read_results(path: Path, truth: dict[str, Any]) -> list[dict[str, Any]]:
    """Read COCO results of a file.

    Results that name their image by its file get its id; masks become compressed RLE; boxes that
    are missing are those of the masks. Results whose image id the truth lacks are left out.

    Raises:
        ValueError: names the first result that is none, or whose file the truth does not have.
    """
    try:
        results = parse(path.read_bytes())
    except ValueError as error:
        raise ValueError(f"{path.name} is no JSON: {error}") from error
    if not isinstance(results, list):
        raise ValueError(f"{path.name} is no list of COCO results")
    by_name = {image["file_name"]: image["id"] for image in truth["images"]}
    sizes = {image["id"]: (image["height"], image["width"]) for image in truth["images"]}
    read = []
    for index, result in enumerate(results):
        place = f"{path.name}: result {index}"
        fields = result if isinstance(result, dict) else {}
        missing = [n for n in ("category_id", "segmentation", "score") if n not in fields]
        if missing:
            raise ValueError(f"{place} lacks {', '.join(missing)}")
        if "image_id" not in result:
            name = result.get("file_name")
            if name not in by_name:
                raise ValueError(f"the truth has no image {name!r}")
            result["image_id"] = by_name[name]
        ids, score = (result["image_id"], result["category_id"]), result["score"]
        if not all(type(id_) is int for id_ in ids):
            raise ValueError(f"{place} has an image_id or a category_id that is no whole number")
        if type(score) not in (int, float) or not abs(score) <= 1e9:
            raise ValueError(f"{place} has a score that is no number")
        if result["image_id"] in sizes:
            read.append(_checked(result, sizes[result["image_id"]], place))
    return read


def _checked(result: dict[str, Any], size: tuple[int, int], place: str) -> dict[str, Any]:
    try:
        rle = checked_rle(result["segmentation"], size)
        box = result.get("bbox")
        if box is None:
            box = tight_box(rle)
        check_box(box, size)
    except InvalidGeometry as error:
        raise InvalidGeometry(f"{place}: {error}", error.hint) from None
    return {**result, "segmentation": rle, "bbox": box}
