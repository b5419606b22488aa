"""Archives of kinds that are not read, by content, so that a report can name them."""

from pathlib import Path

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


def kind_of(path: Path) -> str | None:
    """Return which kind of archive a file is that is not read; None for all others."""
    with path.open("rb") as file:
        head = file.read(8)
    return next((kind for start, kind in _HEADS if head.startswith(start)), None)
