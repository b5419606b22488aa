"""Datasets as CVAT, Label Studio, Labelme, YOLO and others have them, as a COCO points document.

The format is recognised by content. Imports no torch.

What is made is checked by the one validator (`sapnet.data.annotations.coco`) like any other;
`Converted` says in the source's own terms where an issue lies.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import count
from pathlib import Path

from sapnet.data.annotations.boxes import Boxes
from sapnet.data.annotations.coco import (
    PointDocument,
    check_against_images,
    read_points,
    settle_undeclared,
)
from sapnet.data.annotations.decoding import ReadProgress, ignore_progress
from sapnet.data.annotations.document import Rows
from sapnet.data.annotations.frames import in_stored_pixels
from sapnet.data.file_names import split_suffix
from sapnet.data.file_pairing import Unpaired, in_words
from sapnet.data.importers import (
    coco_files,
    cvat,
    datumaro,
    geojson,
    label_studio,
    labelme,
    voc,
    yolo,
)
from sapnet.data.importers.base import Conversion, Converted
from sapnet.data.importers.formats import Recognised, recognise
from sapnet.data.masks import Size
from sapnet.errors import ValidationIssue
from sapnet.types import Category, ImageInfo

__all__ = ["Annotations", "Converted", "convert", "read_annotations"]


@dataclass(frozen=True)
class Annotations:
    """What was read of a file of annotations.

    Attributes:
        document: points, images and categories, with every issue of them.
        converted: how the document was made from another tool's file; None for COCO.
        source: the file of COCO that was read, as it was sent or as it was made.
        unsized: what is to be read once the sizes of the images are known, by `sized`; until then
            the document has no more than their names.
    """

    document: PointDocument
    converted: Converted | None = None
    source: Path | None = None
    unsized: "Unsized | None" = None

    def sized(self, images: Mapping[str, tuple[Size | None, str]]) -> "Annotations":
        """Read what needs the sizes of the images; the same where nothing does.

        Args:
            images: by name, (h, w) upright, None where it is not known; and the name of its file,
                whose suffix the image takes where it has none.
        """
        if self.unsized is None or self.document.issues:
            return self
        return self.unsized.read(
            {
                name: (name + (split_suffix(file)[1] if not split_suffix(name)[1] else ""), size)
                for name, (size, file) in images.items()
            }
        )

    def translated(self, issues: list[ValidationIssue]) -> list[ValidationIssue]:
        """Return issues of the document, in the terms of the file that was read."""
        return self.converted.translated(issues) if self.converted else issues

    def in_images(
        self,
        files: Mapping[str, tuple[tuple[int, int], int]],
        states: Mapping[str, tuple[int, int] | str],
        *,
        complete: bool = True,
        missing: Mapping[str, Unpaired] | None = None,
    ) -> tuple[PointDocument, list[ValidationIssue]]:
        """Hold the document against its images.

        Args:
            files: see `in_stored_pixels`.
            states, complete, missing: see `check_against_images`.

        Returns:
            The document in stored pixels, without points that are left out; every issue.
        """
        document = in_stored_pixels(self.document, files)
        document, outside, warnings = settle_undeclared(document, states)
        issues = check_against_images(document, states, complete=complete, missing=missing)
        warnings = document.warnings + self.translated(warnings)
        return replace(document, warnings=warnings), self.translated(issues + outside)

    @classmethod
    def refused(
        cls, issues: list[ValidationIssue], converted: Converted | None = None
    ) -> "Annotations":
        """Return what is left of a file that cannot be read."""
        empty = replace(read_points(b"{}"), issues=issues, warnings=[])
        return cls(empty, converted)


@dataclass(frozen=True)
class Unsized:
    """Files in shares of their images' sizes: YOLO's.

    Attributes:
        target: for the COCO points document.
    """

    folder: yolo.YoloFolder
    target: Path
    boxes: Boxes
    warnings: list[ValidationIssue]

    def named(self) -> Annotations:
        """The images by name, without a size and without objects."""
        images = (ImageInfo(i, n, 0, 0) for i, n in zip(count(1), self.folder.labels, strict=False))
        categories = (Category(n + 1, name) for n, name in self.folder.classes.items())
        places = range(len(self.folder.labels))
        addresses = (None,) * len(places)
        document = PointDocument(
            tuple(images), tuple(categories), Rows(), [], [], tuple(places), addresses
        )
        return Annotations(document, unsized=self)

    def read(self, images: Mapping[str, tuple[str, Size | None]]) -> Annotations:
        """The whole document, see `YoloFolder.convert`."""
        with Conversion(self.target) as conversion:
            self.folder.convert(conversion, images)
            converted = conversion.finish()
        return _read_converted(_with_warnings(converted, self.warnings), self.boxes)


def read_annotations(
    files: Sequence[tuple[str, Path]],
    target: Path,
    progress: ReadProgress = ignore_progress,
    boxes: Boxes = "use",
) -> Annotations:
    """Read annotations, whichever of the formats they are in.

    Args:
        files: see `convert`; progress too.
        target: for the COCO points document, where it has to be made.
        boxes: see `read_points`.

    Raises:
        OSError: a path cannot be read.
    """
    recognised = recognise(files)
    if recognised.format == "yolo":
        return _open_yolo(recognised, target, boxes)
    converted = _convert(recognised, target, progress)
    if converted is None:
        path = recognised.files[0][1]
        document = read_points(path, progress, boxes)
        warnings = document.warnings + _passed_over(recognised)
        return Annotations(replace(document, warnings=warnings), source=path)
    return _read_converted(converted, boxes)


def _read_converted(converted: Converted, boxes: Boxes) -> Annotations:
    if converted.issues:
        return Annotations.refused(converted.issues, converted)
    document = read_points(converted.path, boxes=boxes)
    issues = converted.translated(document.issues)
    warnings = converted.warnings + converted.translated(document.warnings)
    document = replace(document, issues=issues, warnings=warnings)
    return Annotations(document, converted, converted.path)


def _open_yolo(recognised: Recognised, target: Path, boxes: Boxes) -> Annotations:
    try:
        folder = yolo.open_folder(dict(recognised.files))
    except yolo.NotYolo as error:
        hint = "send data.yaml with names, and the folders labels and images"
        return Annotations.refused([ValidationIssue("", str(error), hint)])
    warnings = _passed_over(recognised)
    if folder.unread:
        named = in_words(list(folder.unread))
        problem = f"lists of images that are not there, or too long: {named}"
        hint = "no image is of their subset by them; send them too, or correct data.yaml"
        warnings.append(ValidationIssue("data.yaml", problem, hint))
    return Unsized(folder, target, boxes, warnings).named()


def convert(
    files: Sequence[tuple[str, Path]], target: Path, progress: ReadProgress = ignore_progress
) -> Converted | None:
    """Write the COCO points document that the files stand for to `target`.

    Args:
        files: names, for messages and for the folders of images, and paths. Several are one
            dataset's.
        progress: called now and then with the bytes read so far.

    Returns:
        None where there is one of COCO, and so to be read as it is.

    Raises:
        OSError: a path cannot be read. Nothing is raised for what the files say.
    """
    return _convert(recognise(files), target, progress)


def _convert(recognised: Recognised, target: Path, progress: ReadProgress) -> Converted | None:
    files = recognised.files
    if recognised.format == "coco":
        if len(files) == 1:
            return None
        converted = coco_files.merge(files, target, progress)
        return _with_warnings(converted, _passed_over(recognised))
    with Conversion(target) as conversion:
        match recognised.format:
            case "voc":
                xml = [file for file in files if file[0].lower().endswith(".xml")] or files
                described = {name for name, _ in xml}
                lists = [file for file in files if file[0] not in described]
                voc.read(xml, lists, conversion, progress)
            case "datumaro":
                datumaro.read(files, conversion, progress)
            case "geojson":
                geojson.read(files, conversion, progress)
            case "cvat" | "label-studio" if len(files) == 1:
                reader = cvat if recognised.format == "cvat" else label_studio
                with files[0][1].open("rb") as file:
                    reader.read(file, conversion, progress)
            case "cvat" | "label-studio":
                problem = f"there are {len(files)} files of {recognised.format} in it"
                conversion.issues.add("", problem, "send one file")
            case _:
                labelme.read(files, conversion, progress)
        return _with_warnings(conversion.finish(), _passed_over(recognised))


def _passed_over(recognised: Recognised) -> list[ValidationIssue]:
    """A warning of documents beside those that are read."""
    if not recognised.others:
        return []
    problem = f"read as {recognised.format}; passed over: {in_words(list(recognised.others))}"
    return [ValidationIssue("", problem, "")]


def _with_warnings(converted: Converted, warnings: list[ValidationIssue]) -> Converted:
    return replace(converted, warnings=converted.warnings + warnings) if warnings else converted
