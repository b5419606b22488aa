"""FiftyOne's samples from a job, and a data set's points from such samples.

Only what FiftyOne stores needs its database: samples that no dataset holds do not.
"""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from sapnet_client.extras import FIFTYONE, needed

SUBSETS = {"train": "train", "val": "val", "validation": "val", "valid": "val", "test": "test"}


def sample_of(
    path: Path, image: Any, masks: Sequence[Any], points: Sequence[Any], names: Mapping[int, str]
) -> Any:
    """Return a `fiftyone.Sample` with the fields `masks`, `points` and `image_id`.

    Args:
        path: of the image's file.
        image: `Image`, whose subset becomes a tag.
        masks: the pseudo-masks of the image; their confidence is the quality.
        points: its annotations.
        names: of the classes, by category id.
    """
    fo = needed("fiftyone", FIFTYONE)
    size = {"width": image.width, "height": image.height}
    sample = fo.Sample(
        filepath=str(path),
        tags=[image.subset] if image.subset else [],
        metadata=fo.ImageMetadata(num_channels=3, **size),
    )
    sample["image_id"] = image.id
    sample["masks"] = fo.Detections(detections=[_detection(fo, m, image, names) for m in masks])
    sample["points"] = fo.Keypoints(
        keypoints=[
            fo.Keypoint(
                label=names.get(a.category_id, str(a.category_id)),
                points=[(a.point[0] / image.width, a.point[1] / image.height)],
                annotation_id=a.id,
            )
            for a in points
            if a.pointed
        ]
    )
    return sample


def _detection(fo: Any, mask: Any, image: Any, names: Mapping[int, str]) -> Any:
    import numpy

    x, y, width, height = (round(n) for n in mask.bbox)
    box = mask.segmentation.array()[y : y + height, x : x + width]
    return fo.Detection(
        label=names.get(mask.category_id, str(mask.category_id)),
        bounding_box=[
            x / image.width,
            y / image.height,
            width / image.width,
            height / image.height,
        ],
        mask=numpy.ascontiguousarray(box),
        confidence=mask.quality,
        annotation_id=mask.id,
        status=mask.status,
        source=mask.source,
    )


def points_document(samples: Iterable[Any], field: str) -> tuple[dict[str, Any], list[Path]]:
    """Return samples as a COCO points document, and the files of their images.

    Keypoints become points, detections boxes, and their masks ground truth. A sample's first tag of
    train, val, validation and test is its subset.

    Args:
        samples: a dataset of FiftyOne, a view, or a list of samples.
        field: with `Keypoints` or `Detections`, or one `Keypoint` or `Detection`.

    Raises:
        ValueError: a sample's field holds something else, or no sample has an object.
    """
    document: dict[str, list[Any]] = {"images": [], "categories": [], "annotations": []}
    classes: dict[str, int] = {}
    files: list[Path] = []
    names: set[str] = set()
    for number, sample in enumerate(samples, 1):
        path = Path(sample.filepath)
        name = path.name if path.name not in names else f"{number}_{path.name}"
        names.add(name)
        files.append(path)
        width, height = _size(sample, path)
        image = {"id": number, "file_name": str(path.absolute()).lstrip("/"), "width": width}
        subset = next((SUBSETS[tag] for tag in sample.tags or [] if tag in SUBSETS), None)
        document["images"].append(
            {**image, "height": height, **({"subset": subset} if subset else {})}
        )
        for label in _labels(sample[field], path):
            record = _object(label, width, height)
            category = classes.setdefault(label.label or "object", len(classes) + 1)
            own = {"id": len(document["annotations"]) + 1, "image_id": number}
            document["annotations"].append({**own, "category_id": category, **record})
    if not document["annotations"]:
        raise ValueError(f"no sample has a keypoint or a detection in its field {field!r}")
    document["categories"] = [{"id": id_, "name": name} for name, id_ in classes.items()]
    return {"info": {"frame": "upright"}, **document}, files


def _size(sample: Any, path: Path) -> tuple[int, int]:
    """Width and height of the upright image, in which FiftyOne has its coordinates."""
    metadata = sample.metadata
    if metadata is not None and metadata.width and metadata.height:
        return metadata.width, metadata.height
    from PIL import Image, ImageOps

    with Image.open(path) as image:
        upright = ImageOps.exif_transpose(image)
        return upright.width, upright.height


def _labels(value: Any, path: Path) -> Sequence[Any]:
    if value is None:
        return []
    kind = type(value).__name__
    if kind in ("Keypoints", "Detections"):
        labels: Sequence[Any] = value.keypoints if kind == "Keypoints" else value.detections
        return labels
    if kind in ("Keypoint", "Detection"):
        return [value]
    raise ValueError(f"{path}: its field holds {kind}, not Keypoints and not Detections")


def _object(label: Any, width: int, height: int) -> dict[str, Any]:
    if type(label).__name__ == "Keypoint":
        pairs = [(x * width, y * height) for x, y in label.points]
        usable = [[x, y] for x, y in pairs if x == x and y == y]  # NaN is a point that is not there
        return {"point": usable[0]} if len(usable) == 1 else {"points": usable}
    x, y, across, down = label.bounding_box
    box = [x * width, y * height, across * width, down * height]
    mask = label.mask
    if mask is None:
        return {"bbox": box}
    return {"bbox": box, "segmentation": _full_size(mask, box, width, height)}


def _full_size(mask: Any, box: Sequence[float], width: int, height: int) -> dict[str, Any]:
    """The RLE of the whole image, of a mask that fills a box."""
    import numpy
    from PIL import Image

    from sapnet_client.types import Segmentation

    left, top = round(box[0]), round(box[1])
    size = max(round(box[2]), 1), max(round(box[3]), 1)
    fitted = Image.fromarray(numpy.asarray(mask, bool)).resize(size, Image.Resampling.NEAREST)
    whole = Image.new("1", (width, height))
    whole.paste(fitted, (left, top))
    return Segmentation.of(numpy.asarray(whole)).document()
