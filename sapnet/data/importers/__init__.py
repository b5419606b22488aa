"""Points that were drawn in CVAT, Label Studio or Labelme, as a COCO points document.

The tool is recognised by content. Imports no torch.

What is made is checked by the one validator (`sapnet.data.annotations.coco`) like any other;
`Converted` says in the source's own terms where an issue lies.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import BinaryIO

from sapnet.data.annotations.boxes import Boxes
from sapnet.data.annotations.coco import (
    PointDocument,
    check_against_images,
    read_points,
    settle_undeclared,
)
from sapnet.data.annotations.decoding import ReadProgress, ignore_progress
from sapnet.data.annotations.frames import in_stored_pixels
from sapnet.data.depth import parse
from sapnet.data.file_pairing import Unpaired
from sapnet.data.importers import cvat, label_studio, labelme
from sapnet.data.importers.base import Conversion, Converted
from sapnet.data.orientation import Frame
from sapnet.errors import ValidationIssue

__all__ = ["Annotations", "Converted", "convert", "read_annotations"]

_HEAD = 1 << 16
_UTF16 = (b"\xff\xfe", b"\xfe\xff")
_LARGEST_LABELME = 256 << 20  # bytes of a single file, which holds one image at most


@dataclass(frozen=True)
class Annotations:
    """What was read of a file of annotations.

    Attributes:
        document: points, images and categories, with every issue of them.
        converted: how the document was made from another tool's file; None for COCO.
    """

    document: PointDocument
    converted: Converted | None = None

    @property
    def frame(self) -> Frame:
        """Whoever draws in one of these tools sees the image upright."""
        return "upright" if self.converted else "stored"

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
        document = in_stored_pixels(self.document, files, self.frame)
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
    converted = convert(files, target, progress)
    if converted is None:
        return Annotations(read_points(files[0][1], progress, boxes))
    if converted.issues:
        return Annotations.refused(converted.issues, converted)
    document = read_points(target, boxes=boxes)
    issues = converted.translated(document.issues)
    warnings = converted.warnings + converted.translated(document.warnings)
    return Annotations(replace(document, issues=issues, warnings=warnings), converted)


def convert(
    files: Sequence[tuple[str, Path]], target: Path, progress: ReadProgress = ignore_progress
) -> Converted | None:
    """Write the COCO points document that the files stand for to `target`.

    Args:
        files: names, for messages and for the folders of Labelme's images, and paths. Several are
            Labelme's, one per image.
        progress: called now and then with the bytes read so far.

    Returns:
        None where it is a single file of none of the three tools, and so to be read as COCO itself.

    Raises:
        OSError: a path cannot be read. Nothing is raised for what the files say.
    """
    path = files[0][1]
    with path.open("rb") as file:
        head = file.read(_HEAD).removeprefix(b"\xef\xbb\xbf").lstrip()
        if head.startswith(_UTF16):  # expat reads XML in it, and JSON is refused in words
            head = head.decode("utf-16", "ignore").encode("utf-8", "ignore").lstrip()
    many = len(files) > 1
    if not (many or head.startswith((b"<", b"[")) or _is_labelme(path, head)):
        return None
    with Conversion(target) as conversion:
        if many or head.startswith(b"{"):
            labelme.read(files, conversion, progress)
        else:
            with path.open("rb") as file:
                _read(head, file, conversion, progress)
        return conversion.finish()


def _read(head: bytes, file: BinaryIO, conversion: Conversion, progress: ReadProgress) -> None:
    (cvat if head.startswith(b"<") else label_studio).read(file, conversion, progress)


def _is_labelme(path: Path, head: bytes) -> bool:
    if not head.startswith(b"{") or b'"shapes"' not in head:
        return False
    if path.stat().st_size > _LARGEST_LABELME:
        return False
    try:
        document = parse(path.read_bytes())
    except ValueError:  # is said where it is read, in the terms of its tool
        return b'"shape_type"' in head and b'"annotations"' not in head
    return isinstance(document.get("shapes"), list) and "annotations" not in document
