"""Which format the files of a dataset are in: by what is in them, not by what they are called."""

import posixpath
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from sapnet.data.annotations.json_stream import Unreadable, pieces
from sapnet.data.depth import parse

Named = tuple[str, Path]
"""A file: its name, with its folders, and where it is."""
Format = Literal[
    "coco", "cvat", "label-studio", "labelme", "yolo", "voc", "datumaro", "geojson", "unknown"
]
_HEAD = 1 << 16
_UTF16 = (b"\xff\xfe", b"\xfe\xff")
_LARGEST_LABELME = 256 << 20  # bytes of a single file, which holds one image at most
_ROOT = re.compile(rb"<([A-Za-z_][\w.:-]*)")
_COLLECTION = re.compile(rb'"type"\s*:\s*"FeatureCollection"')
_CATEGORIES_BY_KIND = re.compile(rb'"categories"\s*:\s*\{')
_ORDER: tuple[Format, ...] = (
    "labelme",
    "yolo",
    "voc",
    "datumaro",
    "geojson",
    "coco",
    "label-studio",
    "cvat",
)
"""Of several formats in one folder the first is read."""


@dataclass(frozen=True)
class Recognised:
    """The format of a dataset's files.

    Attributes:
        files: those to read.
        others: documents that are of no use.
    """

    format: Format
    files: Sequence[Named]
    others: Sequence[str] = field(default=())


def recognise(files: Sequence[Named]) -> Recognised:
    """Find out which format files are in.

    Args:
        files: a single document, or those of a folder; not empty.
    """
    documents = [f for f in files if not f[0].lower().endswith((".txt", ".yaml", ".yml"))]
    if len(files) == 1:
        return Recognised(_format_of(*files[0]), files)
    if len(documents) < len(files) and _is_yolo(files):
        texts = [f for f in files if f not in documents]
        return Recognised("yolo", texts, [name for name, _ in documents])
    of_file = {name: _format_of(name, path, single=len(documents) == 1) for name, path in documents}
    formats = set(of_file.values())
    format: Format = next((f for f in _ORDER if f in formats), "labelme")
    if format == "labelme":  # its reader says which files are none of Labelme's
        return Recognised(format, documents)
    chosen = [f for f in documents if of_file[f[0]] == format]
    if format == "coco":  # COCO's own archive has captions and keypoints of the same images too
        chosen = [f for f in chosen if posixpath.basename(f[0]).startswith("instances")] or chosen
    names = {name for name, _ in chosen}
    others = [name for name, _ in documents if name not in names]
    lists = [f for f in files if f[0].lower().endswith(".txt")] if format == "voc" else []
    return Recognised(format, [*chosen, *lists], others)


def head_of(path: Path) -> bytes:
    """The beginning of a file, without a byte order mark; of XML in UTF-16 as UTF-8."""
    with path.open("rb") as file:
        head = file.read(_HEAD).removeprefix(b"\xef\xbb\xbf").lstrip()
    if head.startswith(_UTF16):  # expat reads XML in it, and JSON is refused in words
        head = head.decode("utf-16", "ignore").encode("utf-8", "ignore").lstrip()
    return head


def _is_yolo(files: Sequence[Named]) -> bool:
    names = [posixpath.basename(name).lower() for name, _ in files]
    if "classes.txt" in names and any("/labels/" in f"/{name}" for name, _ in files):
        return True
    yaml = (path for name, path in files if name.lower().endswith((".yaml", ".yml")))
    return any(re.search(rb"^\s*[\"']?names[\"']?\s*:", head_of(p), re.MULTILINE) for p in yaml)


def _format_of(name: str, path: Path, *, single: bool = True) -> Format:
    head = head_of(path)
    if head.startswith(b"<"):
        root = _ROOT.search(head)
        return "voc" if root is not None and root[1] == b"annotation" else "cvat"
    if head.startswith(b"["):
        return "label-studio"
    if _is_labelme(path, head):
        return "labelme"
    if _COLLECTION.search(head) or name.lower().endswith(".geojson"):
        return "geojson"
    if _CATEGORIES_BY_KIND.search(head):
        return "datumaro"
    return "coco" if single or _is_coco(path) else "unknown"


def _is_coco(path: Path) -> bool:
    wanted = {"images", "annotations"}
    try:
        with path.open("rb") as file:
            for piece in pieces(file, lambda _: True):
                wanted.discard(piece.key)
                if not wanted:
                    return True
    except Unreadable:  # is said where it is read, if what came before looks like it
        return len(wanted) < 2
    return False


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
