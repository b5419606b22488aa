"""The file of annotations as COCO points: as it is, or made from what another tool exports."""

from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path

from app.datasets import archives
from app.http.multipart import FilePart
from sapnet.data.annotations.coco import PointDocument, read_points
from sapnet.data.annotations.decoding import ReadProgress
from sapnet.data.importers import Converted, convert
from sapnet.errors import ValidationIssue

_DOCUMENTS = (".json", ".xml")
_PACK = "send COCO or CVAT's XML as it is, or Labelme's JSON files in a zip"


@dataclass(frozen=True)
class Annotations:
    """What was read of a file of annotations.

    Attributes:
        document: points, images and categories, with every issue of them.
        converted: how the document was made from another tool's file; None for COCO.
    """

    document: PointDocument
    converted: Converted | None

    def translated(self, issues: list[ValidationIssue]) -> list[ValidationIssue]:
        """Return issues of the document, in the terms of the file that was sent."""
        return self.converted.translated(issues) if self.converted else issues


def read_annotations(
    part: FilePart, folder: Path, limits: archives.Limits, watch: ReadProgress
) -> Annotations:
    """Read what was sent as annotations, whichever of the formats it is, alone or in an archive.

    Args:
        folder: for what is unpacked and converted.
        watch: called with the number of bytes read so far.
    """
    try:
        files = _documents(part, folder, limits)
    except archives.ArchiveProblem as error:
        problem = f"the archive {part.filename!r} is refused: {error}"
        return Annotations(_refused([ValidationIssue("", problem, _PACK)]), None)
    target = folder / "points.json"
    converted = convert(files, target, watch)
    if converted is None:
        if files[0][1] != part.path:
            problem = f"{files[0][0]!r} in the archive is COCO, or nothing that is known here"
            return Annotations(_refused([ValidationIssue("", problem, _PACK)]), None)
        return Annotations(read_points(part.path, watch), None)
    if converted.issues:
        return Annotations(_refused(converted.issues), converted)
    document = read_points(target)
    issues = converted.translated(document.issues)
    warnings = converted.warnings + converted.translated(document.warnings)
    document = replace(document, issues=issues, warnings=warnings)
    return Annotations(document, converted)


def _documents(part: FilePart, folder: Path, limits: archives.Limits) -> list[tuple[str, Path]]:
    """Names and files: the part itself, or the documents of an archive."""
    if not archives.is_archive(part.path):
        return [(part.filename, part.path)]
    documents: list[tuple[str, Path]] = []
    with closing(archives.members(part.path, limits)) as members:
        for member in members:
            if member.name.lower().endswith(_DOCUMENTS):
                path = folder / f"document-{len(documents)}"
                with path.open("wb") as file:
                    file.writelines(member.chunks())
                documents.append((member.name, path))
    if not documents:
        raise archives.ArchiveProblem("there is no .json and no .xml in it")
    return documents


def _refused(issues: list[ValidationIssue]) -> PointDocument:
    return replace(read_points(b"{}"), issues=issues, warnings=[])
