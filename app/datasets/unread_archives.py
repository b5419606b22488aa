"""Archives of kinds that are not read, by content and by name, so that a report can name them."""

import re
from pathlib import Path, PurePosixPath

HINT = "pack the images anew as a plain zip, tar or tar.gz, or send them one by one"
_HEADS = (
    (b"\xfd7zXZ\0", "an xz archive"),
    (b"BZh", "a bzip2 archive"),
    (b"7z\xbc\xaf\x27\x1c", "a 7z archive"),
    (b"Rar!\x1a\x07", "a RAR archive"),
    (b"\x28\xb5\x2f\xfd", "a zstd archive"),
    (b"\x04\x22\x4d\x18", "an lz4 archive"),
    (b"\x5d\0\0", "an LZMA archive"),
    (b"\x1f\x9d", "a compress archive"),
    (b"MSCF", "a cabinet archive"),
)
_SUFFIXES = re.compile(
    r"\.(zip|tar|t?gz|t?xz|t?bz2?|tbz2|7z|rar|t?zst|lz4|lzma|z|cab|iso|dmg|part\d*)$", re.IGNORECASE
)


def kind_of(path: Path) -> str | None:
    """Return which kind of archive a file is that is not read; None for all others."""
    with path.open("rb") as file:
        head = file.read(8)
    return next((kind for start, kind in _HEADS if head.startswith(start)), None)


def is_named_so(name: str) -> bool:
    """Whether a file is named as an archive is."""
    return _SUFFIXES.search(PurePosixPath(name).name) is not None
