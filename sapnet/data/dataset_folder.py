"""A dataset on this machine: a file of points, and the folder of its images. Imports no torch.

It is read and checked as the service does it with what is sent to it.
"""

import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from sapnet.data.annotations.boxes import Boxes
from sapnet.data.annotations.coco import PointDocument, undeclared_sizes
from sapnet.data.exif import AS_STORED, orientation_of
from sapnet.data.file_pairing import DOCUMENTS, files_below, files_in, find_image_files
from sapnet.data.images import ImageProblem, read_header
from sapnet.data.importers import Annotations, read_annotations
from sapnet.data.masks import Size
from sapnet.data.orientation import upright_size
from sapnet.errors import InvalidDataset, ValidationIssue
from sapnet.types import PointSet

Warn = Callable[[ValidationIssue], None]


@dataclass(frozen=True)
class DatasetFolder:
    """Points and the files of their images.

    Attributes:
        points: in stored pixels, with the sizes of the files.
        files: by image id.
        orientations: EXIF's, by image id, of those that are not as stored.
    """

    points: PointSet
    files: dict[int, Path]
    orientations: dict[int, int]

    @property
    def sizes(self) -> dict[int, Size]:
        """(h, w) of each image, by id."""
        return {image.id: image.size for image in self.points.images}

    def orientation(self, image_id: int) -> int:
        """EXIF's, of an image."""
        return self.orientations.get(image_id, AS_STORED)


def read_dataset(
    points: Path,
    images: Path | None,
    warn: Warn,
    sizes: Mapping[int, Size] | None = None,
    boxes: Boxes = "use",
) -> DatasetFolder:
    """Read points and the headers of their images.

    Args:
        points: COCO, CVAT's XML, Label Studio's JSON, Labelme's or GeoJSON; or the folder of a
            dataset: Labelme's, several of COCO or of Datumaro, YOLO's or PASCAL VOC's.
        images: the folder in which `sapnet.data.file_pairing` finds the images.
        warn: called with what was left out, mapped or assumed.
        sizes: (h, w) by image id where they are known otherwise, in stored pixels. With it images
            may be missing.
        boxes: whether boxes count, see `sapnet.data.annotations.coco.read_points`.

    Raises:
        InvalidDataset: lists every issue.
        OSError: the points cannot be read.
    """
    with tempfile.TemporaryDirectory(prefix="sapnet-points-") as folder:
        annotations = _read(points, Path(folder) / "points.json", boxes)
        if annotations.unsized is not None:
            annotations = _sized(annotations, images, warn)
    document = annotations.document
    if document.issues:
        raise InvalidDataset(document.issues)
    files = _files(images, document, warn, complete=sizes is None)
    states: dict[str, Size | str] = {}
    headers: dict[str, tuple[Size, int]] = {}
    for image in document.images:
        name, file = image.file_name, files.get(image.id)
        if file is None:
            states |= {name: sizes[image.id]} if sizes and image.id in sizes else {}
            continue
        try:
            size = read_header(file).size
            states[name], headers[name] = size, (size, orientation_of(file))
        except (ImageProblem, OSError) as error:
            states[name] = f"{error}"
    document, issues = annotations.in_images(headers, states, complete=False)
    if issues := issues + annotations.translated(undeclared_sizes(document, states)):
        raise InvalidDataset(issues)
    for issue in document.warnings:
        warn(issue)
    return DatasetFolder(
        document.with_sizes({n: size for n, size in states.items() if not isinstance(size, str)}),
        files,
        {i.id: headers[i.file_name][1] for i in document.images if i.file_name in headers},
    )


def _files(
    images: Path | None, document: PointDocument, warn: Warn, *, complete: bool
) -> dict[int, Path]:
    """The file of each image by its id; where `complete` is false, of those that are there."""
    if images is None:
        return {}
    if not complete:
        matched = files_in(
            images, [i.file_name for i in document.images], document.addresses_by_name
        ).matched
        return {i.id: matched[i.file_name] for i in document.images if i.file_name in matched}

    def warn_of_files(message: str) -> None:
        warn(ValidationIssue("", message, ""))

    return find_image_files(images, document.images, document.addresses_by_name, warn_of_files)


def _read(points: Path, target: Path, boxes: Boxes) -> Annotations:
    files = [(points.name, points)]
    if points.is_dir():
        files = [(n, f) for n, f in files_below(points).items() if n.lower().endswith(DOCUMENTS)]
        if not files:
            problem = f"there is none of {', '.join(DOCUMENTS)} in {points}"
            raise InvalidDataset([ValidationIssue("", problem, "name a file of points")])
    return read_annotations(files, target, boxes=boxes)


def _sized(annotations: Annotations, images: Path | None, warn: Warn) -> Annotations:
    """Annotations in shares of their images' sizes, in pixels."""
    document = annotations.document
    files = _files(images, document, warn, complete=False)
    sizes: dict[str, tuple[Size | None, str]] = {}
    for image in document.images:
        if (file := files.get(image.id)) is not None:
            try:
                size = upright_size(read_header(file).size, orientation_of(file))
                sizes[image.file_name] = size, file.name
            except (ImageProblem, OSError):  # is said with all other images
                sizes[image.file_name] = None, file.name
    return annotations.sized(sizes)
