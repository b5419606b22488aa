"""The file of annotations as COCO points: as it is, or made from what another tool exports."""

import zipfile
from contextlib import closing
from pathlib import Path, PurePosixPath

from app.datasets import archives
from app.http.multipart import FilePart
from sapnet.data import importers
from sapnet.data.annotations.boxes import Boxes
from sapnet.data.annotations.decoding import ReadProgress
from sapnet.data.file_pairing import DOCUMENTS
from sapnet.data.importers import Annotations
from sapnet.errors import ValidationIssue

_PACK = "send COCO or CVAT's XML as it is, or Labelme's JSON files or a whole data set in a zip"
_NOTHING = "there are no annotations in it: no .json, .geojson, .xml, .yaml or classes.txt"


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
    return importers.read_annotations(files, folder / "points.json", watch, boxes)


def take_documents(archive: Path, target: Path, limits: archives.Limits, most: int) -> None:
    """Copy what is no image of an archive that holds a whole data set to the zip `target`.

    Args:
        most: bytes of all of these together.

    Raises:
        ArchiveProblem: it cannot be read, holds no such file, or too much of it.
    """
    described, size = False, 0
    with (
        closing(archives.members(archive, limits)) as members,
        zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as packed,
    ):
        for member in members:
            if member.name.lower().endswith(DOCUMENTS):
                described = described or _says_what(member.name)
                # a tar may have names that are no text
                name = member.name.encode("utf-8", "surrogateescape").decode("utf-8", "replace")
                with packed.open(name, "w", force_zip64=True) as file:
                    for chunk in member.chunks():
                        size += len(chunk)
                        if size > most:
                            problem = f"its annotations have more than {most:,} bytes"
                            raise archives.LimitExceeded(problem)
                        file.write(chunk)
    if not described:
        raise archives.ArchiveProblem(_NOTHING)


def _documents(part: FilePart, folder: Path, limits: archives.Limits) -> list[tuple[str, Path]]:
    """Names and files: the part itself, or the documents of an archive."""
    if not archives.is_archive(part.path):
        return [(part.filename, part.path)]
    documents: list[tuple[str, Path]] = []
    with closing(archives.members(part.path, limits)) as members:
        for member in members:
            if member.name.lower().endswith(DOCUMENTS):
                path = folder / f"document-{len(documents)}"
                with path.open("wb") as file:
                    file.writelines(member.chunks())
                documents.append((member.name, path))
    if not any(_says_what(name) for name, _ in documents):
        raise archives.ArchiveProblem(_NOTHING)
    return documents


def _says_what(name: str) -> bool:
    """Whether a file may be annotations, or say of which kind these are."""
    base = PurePosixPath(name).name.lower()
    return base.endswith(DOCUMENTS) and (not base.endswith(".txt") or base == "classes.txt")
