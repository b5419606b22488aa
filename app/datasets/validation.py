"""What was sent for a data set is checked, all of it: the same whether a request waits for it or a
worker does it. Touches neither database nor storage."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from app.datasets import archives
from app.datasets import image_collection as intake
from app.datasets.annotation_import import read_annotations
from app.datasets.image_collection import Tell
from app.errors import Fault
from app.http.multipart import FilePart
from app.settings import Settings
from sapnet.data.annotations.coco import PointDocument, check_against_images, check_truth
from sapnet.data.annotations.frames import NAMED, in_stored_pixels
from sapnet.data.images import Inspection
from sapnet.data.orientation import Frame
from sapnet.errors import InvalidDataset, ValidationIssue
from sapnet.types import ImageInfo

MAX_WARNINGS = 100  # kept in the report

Fetch = Callable[[PointDocument, Path, Tell], intake.Pictures]


def silent(stage: str, step: int, of: int) -> None:
    """Nobody wants to know."""


@dataclass(frozen=True)
class Sent:
    """The files that a data set is to be made of, on this machine. `fetch` gets the images where
    they were not sent."""

    annotations: FilePart
    images: Sequence[FilePart] = ()
    truth: FilePart | None = None
    fetch: Fetch | None = None


@dataclass(frozen=True)
class Checked:
    """faults: everything that is wrong. truth: the file that holds ground truth."""

    document: PointDocument
    pictures: intake.Pictures
    report: dict[str, Any]
    truth: Path | None
    faults: list[Fault] = field(default_factory=list)

    @property
    def images(self) -> tuple[ImageInfo, ...]:
        """With the sizes of their files. Only where there are no faults."""
        by_name = self.pictures.by_name
        return self.document.sized({n: p.size for n, p in by_name.items() if p.size is not None})


def check(sent: Sent, folder: Path, settings: Settings, tell: Tell = silent) -> Checked:
    """Read annotations, images and truth, and list every fault. folder: for what is unpacked.

    The files of `sent` that are archives, or no images, are removed on the way.
    """
    limits, watch = _limits(settings), _watch(tell, "annotations", sent.annotations.path)
    annotations = read_annotations(sent.annotations, folder, limits, watch)
    document = annotations.document
    faults = to_faults("annotations", document.issues)
    if sent.fetch is not None:
        pictures = sent.fetch(document, folder, tell)
    else:
        names = [image.file_name for image in document.images]
        pixels = settings.max_image_pixels
        pictures = intake.collect(sent.images, names, folder, limits, pixels, tell)
    faults += pictures.faults
    seen = pictures.inspected
    if sent.images or sent.fetch:
        # Whoever draws in one of these tools sees the picture upright.
        assumed: Frame = "upright" if annotations.converted else "stored"
        files = {name: (found.size, found.orientation) for name, found in seen.items()}
        document = in_stored_pixels(document, files, assumed)
        complete = not pictures.unread
        issues = check_against_images(document, pictures.found, complete=complete)
        faults += to_faults("annotations", annotations.told(issues))
    report = _report(document, pictures)
    of_image = {i.id: seen[i.file_name] for i in document.images if i.file_name in seen}
    truth = _truth(document, sent, of_image, faults, report, tell)
    return Checked(document, pictures, report, truth, faults)


def to_faults(part: str, issues: Sequence[ValidationIssue]) -> list[Fault]:
    return [Fault(part, issue.pointer, issue.problem, issue.hint) for issue in issues]


def summed_up(faults: Sequence[Fault]) -> str:
    return f"Nothing was kept; {len(faults):,} fault{'' if len(faults) == 1 else 's'}"


def _truth(
    document: PointDocument,
    sent: Sent,
    images: Mapping[int, Inspection],
    faults: list[Fault],
    report: dict[str, Any],
    tell: Tell,
) -> Path | None:
    """The file that holds ground truth: one sent as such, else the annotations themselves where
    each of them has a segmentation. Only one that was sent can be at fault. images: by id."""
    sizes = {id_: seen.size for id_, seen in images.items()}
    frames: list[ValidationIssue] = []

    def checked(path: Path) -> Any:
        watch = _watch(tell, "truth", path)
        return check_truth(path, watch, sizes, lambda id_: images[id_].orientation, frames.append)

    if sent.truth is not None:
        path = sent.truth.path
        try:
            ids = checked(path)
        except InvalidDataset as error:
            faults += to_faults("truth", error.issues)
            return None
        if not document.names_any(ids):
            _warn(report, "truth", "no annotation id is one of the points' ids")
        report["truth"] = "truth"
        report["warnings"] += [asdict(fault) for fault in to_faults("truth", frames)]
        return path
    if not document.has_truth:
        return None
    path = sent.annotations.path
    try:
        checked(path)
    except InvalidDataset as error:
        _warn(report, "annotations", f"the segmentations are no usable truth: {error}")
        return None
    report["truth"] = "annotations"
    return path


def _watch(tell: Tell, stage: str, path: Path) -> Callable[[int], None]:
    """Progress in a file, by KiB."""
    of = path.stat().st_size >> 10
    return lambda read: tell(stage, read >> 10, of)


def _report(document: PointDocument, pictures: intake.Pictures) -> dict[str, Any]:
    odd = to_faults("annotations", document.warnings)
    warnings = [asdict(fault) for fault in odd[:MAX_WARNINGS]]
    if len(odd) > MAX_WARNINGS:
        more = f"{len(odd) - MAX_WARNINGS} more warnings are not listed"
        warnings.append(asdict(Fault("annotations", "", more)))
    warnings += [asdict(fault) for fault in _lost(pictures)]
    return {
        "warnings": warnings,
        "images_without_annotations": len(document.images) - len(document.per_image()),
        "crowd": document.crowd_count,
        "ignored_files": {"count": pictures.ignored, "examples": pictures.ignored_examples},
        "truth": None,
    }


def _lost(pictures: intake.Pictures) -> list[Fault]:
    """What reading the images drops, each with the images that it is so with."""
    concerned: dict[str, list[str]] = {}
    for name, seen in pictures.inspected.items():
        for note in seen.notes:
            concerned.setdefault(note, []).append(name)
    faults = []
    for note, names in concerned.items():
        more = f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
        few = ", ".join(map(repr, names[:NAMED]))
        faults.append(Fault("images", "", f"{note}: {few}{more}"))
    return faults


def _warn(report: dict[str, Any], part: str, detail: str) -> None:
    report["warnings"].append(asdict(Fault(part, "", detail)))


def _limits(settings: Settings) -> archives.Limits:
    return archives.Limits(
        files=settings.max_archive_files,
        size=settings.max_archive_bytes,
        ratio=settings.max_archive_ratio,
    )
