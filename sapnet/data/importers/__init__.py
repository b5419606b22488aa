"""Points that were drawn in CVAT, Label Studio or Labelme, as a COCO points document.

The tool is recognised by content. Imports no torch.

What is made is checked by the one validator (`sapnet.data.annotations.coco`) like any other;
`Converted` says in the source's own terms where an issue lies.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import BinaryIO

from sapnet.data.annotations.decoding import ReadProgress, ignore_progress
from sapnet.data.depth import parse
from sapnet.data.importers import cvat, label_studio, labelme
from sapnet.data.importers.base import Conversion, Converted

__all__ = ["Converted", "convert"]

_HEAD = 1 << 16
_LARGEST_LABELME = 256 << 20  # bytes of a single file, which holds one image at most


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
    except ValueError:
        return False
    return isinstance(document.get("shapes"), list) and "annotations" not in document
