"""The file of annotations as COCO points: as it is, or made from what another tool exports."""

from contextlib import closing
from pathlib import Path

from app.datasets import archives
from app.http.multipart import FilePart
from sapnet.data import importers
from sapnet.data.annotations.boxes import Boxes
from sapnet.data.annotations.decoding import ReadProgress
from sapnet.data.importers import Annotations
from sapnet.errors import ValidationIssue

_DOCUMENTS = (".json", ".xml")
_PACK = "send COCO or CVAT's XML as it is, or Labelme's JSON files in a zip"


def read_annotations(
    part: FilePart,
    folder: Path,
    limits: archives.Limits,
    watch: ReadProgress,
    boxes: Boxes = "use",
) -> Annotations:
    """Read what was sent as annotations, whichever of the formats it is, alone or in an archive.

    Args:
        folder: for what is unpacked and converted.
        watch: called with the number of bytes read so far.
        boxes: whether boxes count.
    """
    try:
        files = _documents(part, folder, limits)
    except archives.ArchiveProblem as error:
        problem = f"the archive {part.filename!r} is refused: {error}"
        return Annotations.refused([ValidationIssue("", problem, _PACK)])
    annotations = importers.read_annotations(files, folder / "points.json", watch, boxes)
    if annotations.converted is None and files[0][1] != part.path:
        problem = f"{files[0][0]!r} in the archive is COCO, or nothing that is known here"
        return Annotations.refused([ValidationIssue("", problem, _PACK)])
    return annotations


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
