"""Check all that was sent for a data set.

It is the same whether a request waits for it or a worker does it. Touches neither database nor
storage.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from app.datasets import archives
from app.datasets import image_collection as intake
from app.datasets.annotation_import import read_annotations
from app.datasets.image_collection import ReportProgress
from app.errors import ValidationIssue
from app.http.multipart import FilePart
from app.settings import Settings
from sapnet.data.annotations.boxes import Boxes
from sapnet.data.annotations.coco import PointDocument, check_truth
from sapnet.data.annotations.frames import NAMED
from sapnet.data.images import Inspection
from sapnet.data.importers import Annotations
from sapnet.data.orientation import upright_size
from sapnet.errors import InvalidDataset
from sapnet.errors import ValidationIssue as DocumentIssue
from sapnet.types import ImageInfo

MAX_WARNINGS = 100  # kept in the report

Fetch = Callable[[PointDocument, Path, ReportProgress], intake.ImageFiles]


def silent(stage: str, step: int, of: int) -> None:
    """Report nothing."""


@dataclass(frozen=True)
class DatasetFiles:
    """The files that a data set is to be made of, on this machine.

    Attributes:
        fetch: gets the images where they were not sent.
        boxes: whether boxes of annotations count.
    """

    annotations: FilePart
    images: Sequence[FilePart] = ()
    truth: FilePart | None = None
    fetch: Fetch | None = None
    boxes: Boxes = "use"


@dataclass(frozen=True)
class ValidationResult:
    """What the files of a data set hold, and what is wrong with them.

    Attributes:
        report: as it goes into the row of the data set.
        truth: the file that holds ground truth, where there is any.
        issues: everything that is wrong.
    """

    document: PointDocument
    image_files: intake.ImageFiles
    report: dict[str, Any]
    truth: Path | None
    issues: list[ValidationIssue] = field(default_factory=list)

    @property
    def images(self) -> tuple[ImageInfo, ...]:
        """The document's images with the sizes of their files. Only where there are no issues."""
        by_name = self.image_files.by_name
        return self.document.sized({n: p.size for n, p in by_name.items() if p.size is not None})


def check(
    sent: DatasetFiles, folder: Path, settings: Settings, report_progress: ReportProgress = silent
) -> ValidationResult:
    """Read annotations, images and ground truth, and list every issue.

    The files of `sent` that are archives, or no images, are removed on the way.

    Args:
        folder: for what is unpacked.
    """
    limits, watch = (
        archives.archive_limits(settings),
        _watch(report_progress, "annotations", sent.annotations.path),
    )
    annotations = read_annotations(sent.annotations, folder, limits, watch, sent.boxes)
    document = annotations.document
    if sent.fetch is not None:
        image_files = sent.fetch(document, folder, report_progress)
    else:
        file_names = (image.file_name for image in document.images)
        names = dict(zip(file_names, document.addresses, strict=True))
        pixels = settings.max_image_pixels
        image_files = intake.collect(sent.images, names, folder, limits, pixels, report_progress)
    if sent.images or sent.fetch:
        annotations = _sized(annotations, image_files)
    document = annotations.document.split_as(image_files.splits)
    annotations = replace(annotations, document=document)
    issues = to_issues("annotations", document.issues) + image_files.issues
    inspections = image_files.inspected
    if sent.images or sent.fetch:
        files = {name: (image.size, image.orientation) for name, image in inspections.items()}
        complete = not image_files.unread
        document, mismatches = annotations.in_images(
            files, image_files.sizes, complete=complete, missing=image_files.missing
        )
        issues += to_issues("annotations", mismatches)
    report = _report(document, image_files)
    of_image = {
        image.id: inspections[image.file_name]
        for image in document.images
        if image.file_name in inspections
    }
    points = annotations.source or sent.annotations.path
    truth = _truth(document, points, sent, of_image, issues, report, report_progress)
    return ValidationResult(document, image_files, report, truth, issues)


def to_issues(part: str, issues: Sequence[DocumentIssue]) -> list[ValidationIssue]:
    """Return the issues of a document as issues of the form's part that it came in."""
    return [ValidationIssue(part, issue.pointer, issue.problem, issue.hint) for issue in issues]


def summarize(issues: Sequence[ValidationIssue]) -> str:
    """Return a sentence about a data set that was refused."""
    return f"Nothing was kept; {len(issues):,} fault{'' if len(issues) == 1 else 's'}"


def _sized(annotations: Annotations, image_files: intake.ImageFiles) -> Annotations:
    """Annotations in shares of their images' sizes, in pixels; images have their files' names."""
    if annotations.unsized is None:
        return annotations
    files = {
        name: (
            None
            if isinstance(file.inspection, str)
            else upright_size(file.inspection.size, file.inspection.orientation),
            file.sent_as,
        )
        for name, file in image_files.by_name.items()
    }
    before = [image.file_name for image in annotations.document.images]
    annotations = annotations.sized(files)
    after = [image.file_name for image in annotations.document.images]
    if len(after) == len(before):
        image_files.rename(dict(zip(before, after, strict=True)))
    return annotations


def _truth(
    document: PointDocument,
    points: Path,
    sent: DatasetFiles,
    images: Mapping[int, Inspection],
    issues: list[ValidationIssue],
    report: dict[str, Any],
    report_progress: ReportProgress,
) -> Path | None:
    """Return the file that holds ground truth.

    It is the one sent as such, else the annotations themselves where some of them have a
    segmentation. Objects that are wrong are left out; a file is an issue where nothing of it can be
    used, but not the annotations themselves, which have points all the same.

    Args:
        points: the annotations as COCO.
        images: by id.
    """
    sizes = {id_: image.size for id_, image in images.items()}
    warnings: list[DocumentIssue] = []

    def checked(path: Path) -> Any:
        watch = _watch(report_progress, "truth", path)
        orientations = lambda id_: images[id_].orientation  # noqa: E731
        return check_truth(path, watch, sizes, orientations, warnings.append)

    if sent.truth is not None:
        path = sent.truth.path
        try:
            ids = checked(path)
        except InvalidDataset as error:
            issues += to_issues("truth", error.issues)
            return None
        if not document.names_any(ids):
            _warn(report, "truth", "no annotation id is one of the points' ids")
        report["truth"] = "truth"
        report["warnings"] += _warnings("truth", warnings)
        return path
    if not document.has_truth:
        return None
    path = points
    try:
        checked(path)
    except InvalidDataset as error:
        _warn(report, "annotations", f"the segmentations are no usable truth: {error}")
        return None
    report["truth"] = "annotations"
    if document.counts["boxes"]:
        detail = "training uses the boxes of annotations whose segmentations measure it"
        _warn(report, "annotations", f"{detail}; boxes=ignore goes by the points alone")
    # What is said of the whole document was said of its points already.
    report["warnings"] += _warnings("annotations", [i for i in warnings if i.pointer])
    return path


def _watch(report_progress: ReportProgress, stage: str, path: Path) -> Callable[[int], None]:
    """Progress in a file, by KiB."""
    of = path.stat().st_size >> 10
    return lambda read: report_progress(stage, read >> 10, of)


def _report(document: PointDocument, image_files: intake.ImageFiles) -> dict[str, Any]:
    warnings = _warnings("annotations", document.warnings)
    warnings += [asdict(issue) for issue in (*image_files.warnings, *_lost(image_files))]
    return {
        "warnings": warnings,
        "images_without_annotations": len(document.images) - len(document.per_image()),
        "crowd": document.crowd_count,
        **document.counts,
        "subsets": document.subsets,
        "ignored_files": {"count": image_files.ignored, "examples": image_files.ignored_examples},
        "truth": None,
    }


def _warnings(part: str, issues: Sequence[DocumentIssue]) -> list[dict[str, Any]]:
    """For the report; of many the first."""
    warnings = [asdict(issue) for issue in to_issues(part, issues[:MAX_WARNINGS])]
    if len(issues) > MAX_WARNINGS:
        more = f"{len(issues) - MAX_WARNINGS} more warnings are not listed"
        warnings.append(asdict(ValidationIssue(part, "", more)))
    return warnings


def _lost(image_files: intake.ImageFiles) -> list[ValidationIssue]:
    """What reading the images drops, each with the images that it is so with."""
    concerned: dict[str, list[str]] = {}
    for name, inspection in image_files.inspected.items():
        for note in inspection.notes:
            concerned.setdefault(note, []).append(name)
    issues = []
    for note, names in concerned.items():
        more = f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
        few = ", ".join(map(repr, names[:NAMED]))
        issues.append(ValidationIssue("images", "", f"{note}: {few}{more}"))
    return issues


def _warn(report: dict[str, Any], part: str, detail: str) -> None:
    report["warnings"].append(asdict(ValidationIssue(part, "", detail)))
