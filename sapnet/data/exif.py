"""The EXIF orientation in an image file: read it, and take it out without new encoding.

Read as Pillow does, which many tools are built on: the tag 0x0112 of JPEG, PNG, WebP and TIFF, else
`tiff:Orientation` of XMP. No other bytes than those of the tag (and PNG's checksum over it) change
where it is taken out, so the pixels and the length of the file stay. Never raises for what a file
holds; pixels are not looked at. Imports the standard library alone.
"""

import io
import re
import zlib
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Literal

AS_STORED = 1

_TAG, _XMP_TAG = 0x0112, 700
_SHORT, _LONG = 3, 4
_PREFIX = b"Exif\0\0"
_JPEG_XMP = b"http://ns.adobe.com/xap/1.0/\0"
_PNG_XMP, _PNG_RAW = b"XML:com.adobe.xmp", b"Raw profile type exif"
_ORIENTATION_XMP = re.compile(rb"(tiff:Orientation(?:\s*=\s*[\"']|>)\s*)(\d)")
_LARGEST = 16 << 20  # bytes of a block that are looked at
_MOST = 1_000_000  # segments or chunks, before a file is given up
_ORDERS: dict[bytes, Literal["little", "big"]] = {b"II": "little", b"MM": "big"}
_VALUES = {*range(1, 9)}


@dataclass(frozen=True, slots=True)
class Patch:
    """Bytes to be written over those at `offset`."""

    offset: int
    data: bytes


@dataclass(frozen=True, slots=True)
class _Block:
    """A part of the file that may name an orientation.

    Attributes:
        offset: of `data` in the file, in bytes.
        chunk: of a PNG: where the chunk begins, and its bytes from its kind on, without checksum.
        packed: whether `data` was decoded from the chunk, and is not in the file as it stands.
    """

    kind: Literal["exif", "xmp"]
    offset: int
    data: bytes
    chunk: tuple[int, bytes] | None = None
    packed: bool = False


def orientation_of(source: Path | BinaryIO) -> int:
    """The file's EXIF orientation.

    Returns:
        1 to 8; 1 where the file names none or one out of range.

    Raises:
        OSError: the path cannot be read.
    """
    with _opened(source) as file:
        blocks = list(_blocks(file))
        values = [value for b in blocks if b.kind == "exif" for _, _, value in _entries(b)]
        if values:
            return values[-1] if values[-1] in _VALUES else AS_STORED
        for block in blocks:
            if block.kind == "xmp" and (match := _ORIENTATION_XMP.search(block.data)):
                value = int(match.group(2))
                return value if value in _VALUES else AS_STORED
    return AS_STORED


def upright_patches(source: Path | BinaryIO) -> list[Patch]:
    """Patches after which every reader shows the pixels as they are stored.

    Empty where readers show them so already.
    """
    with _opened(source) as file:
        return [patch for block in _blocks(file) for patch in _patches(block)]


def as_stored(data: bytes) -> bytes:
    """The bytes of a file that every reader shows as its pixels are stored."""
    changed = bytearray(data)
    for patch in upright_patches(io.BytesIO(data)):
        changed[patch.offset : patch.offset + len(patch.data)] = patch.data
    return bytes(changed)


def _patches(block: _Block) -> Iterator[Patch]:
    if block.kind == "exif":
        new = [(place, entry) for place, entry, value in _entries(block) if value != AS_STORED]
    else:
        new = [
            (m.start(2), b"1") for m in _ORIENTATION_XMP.finditer(block.data) if m.group(2) != b"1"
        ]
    if not new:
        return
    if block.chunk is None:
        yield from (Patch(block.offset + place, data) for place, data in new)
        return
    offset, body = block.chunk
    changed = bytearray(body)
    if block.packed:  # text that cannot be changed in place: with another keyword readers skip it
        changed[4] ^= 0x20
    for place, data in new if not block.packed else ():
        start = block.offset - offset + place
        changed[start : start + len(data)] = data
    yield Patch(offset, bytes(changed) + zlib.crc32(changed).to_bytes(4, "big"))


@contextmanager
def _opened(source: Path | BinaryIO) -> Iterator[BinaryIO]:
    """A file of the caller's is left at the place where it was."""
    if isinstance(source, Path):
        with source.open("rb") as file:
            yield file
        return
    place = source.tell()
    try:
        source.seek(0)
        yield source
    finally:
        source.seek(place)


def _blocks(file: BinaryIO) -> Iterator[_Block]:
    head = file.read(12)
    if head.startswith(b"\xff\xd8"):
        yield from _of_jpeg(file)
    elif head.startswith(b"\x89PNG\r\n\x1a\n"):
        yield from _of_png(file)
    elif head.startswith(b"RIFF") and head[8:] == b"WEBP":
        yield from _of_webp(file)
    elif head[:2] in _ORDERS and head[2:4].strip(b"\0") in (b"*", b"+"):
        yield from _of_tiff(file)


def _of_jpeg(file: BinaryIO) -> Iterator[_Block]:
    """Its APP1 segments; those before the pixels, where all of them are."""
    position = 2
    for _ in range(_MOST):
        file.seek(position)
        head = file.read(4)
        if len(head) < 4 or head[0] != 0xFF or head[1] in (0xD9, 0xDA):
            return
        if head[1] == 0xFF:  # fill
            position += 1
        elif head[1] == 0x01 or 0xD0 <= head[1] <= 0xD8:  # without a length
            position += 2
        else:
            length = int.from_bytes(head[2:], "big")
            data = file.read(max(length - 2, 0)) if head[1] == 0xE1 else b""
            if data.startswith(b"Exif\0"):
                yield _Block("exif", position + 4, data)
            elif data.startswith(_JPEG_XMP):
                yield _Block("xmp", position + 4, data)
            position += 2 + max(length, 2)


def _of_png(file: BinaryIO) -> Iterator[_Block]:
    position = 8
    for _ in range(_MOST):
        file.seek(position)
        head = file.read(8)
        length, kind = int.from_bytes(head[:4], "big"), head[4:]
        if len(head) < 8 or kind == b"IEND":
            return
        if kind in (b"eXIf", b"iTXt", b"zTXt", b"tEXt") and length <= _LARGEST:
            body = kind + file.read(length)
            if kind == b"eXIf":
                yield _Block("exif", position + 8, body[4:], (position + 4, body))
            else:
                yield from _of_text(position + 4, body)
        position += 12 + length


def _of_text(offset: int, body: bytes) -> Iterator[_Block]:
    """Of a PNG's text chunk: XMP, and EXIF in hex as ImageMagick writes it."""
    keyword, _, rest = body[4:].partition(b"\0")
    if keyword == _PNG_XMP and body.startswith(b"iTXt") and len(rest) > 2:
        text = rest[2:].split(b"\0", 2)[-1]
        if rest[0]:
            yield _Block("xmp", 0, _unpacked(text), (offset, body), packed=True)
        else:
            yield _Block("xmp", offset + len(body) - len(text), text, (offset, body))
    elif keyword == _PNG_RAW:
        text = rest if body.startswith(b"tEXt") else _unpacked(rest[1:])
        with suppress(ValueError):
            data = bytes.fromhex(b"".join(text.split(b"\n")[3:]).decode("ascii"))
            yield _Block("exif", 0, data, (offset, body), packed=True)


def _unpacked(data: bytes) -> bytes:
    try:
        return zlib.decompressobj().decompress(data, _LARGEST)
    except zlib.error:
        return b""


def _of_webp(file: BinaryIO) -> Iterator[_Block]:
    position = 12
    for _ in range(_MOST):
        file.seek(position)
        head = file.read(8)
        if len(head) < 8:
            return
        length = int.from_bytes(head[4:], "little")
        if head[:4] in (b"EXIF", b"XMP ") and length <= _LARGEST:
            yield _Block("exif" if head[:4] == b"EXIF" else "xmp", position + 8, file.read(length))
        position += 8 + length + length % 2


def _of_tiff(file: BinaryIO) -> Iterator[_Block]:
    """The first directory, as a block of its own with a header before it."""
    file.seek(0)
    head = file.read(16)
    order, big = _ORDERS[head[:2]], b"+" in head[2:4]
    width = 8 if big else 4
    position = int.from_bytes(head[8:16] if big else head[4:8], order)
    count_size, entry_size = (8, 20) if big else (2, 12)
    file.seek(position)
    count = min(int.from_bytes(file.read(count_size), order), 1 << 16)
    entries = file.read(count * entry_size)
    yield _Block(
        "exif", position + count_size - (24 if big else 10), _headed(head, entries, big, order)
    )
    for start in range(0, len(entries), entry_size):
        entry = entries[start : start + entry_size]
        if int.from_bytes(entry[:2], order) == _XMP_TAG and len(entry) == entry_size:
            length = int.from_bytes(entry[4 : 4 + width], order)
            if width < length <= _LARGEST:
                place = int.from_bytes(entry[4 + width :], order)
                file.seek(place)
                yield _Block("xmp", place, file.read(length))


def _headed(head: bytes, entries: bytes, big: bool, order: Literal["little", "big"]) -> bytes:
    """The directory of a TIFF as `_entries` reads it, right after a header."""
    if big:
        count = (len(entries) // 20).to_bytes(8, order)
        return head[:8] + (16).to_bytes(8, order) + count + entries
    return head[:4] + (8).to_bytes(4, order) + (len(entries) // 12).to_bytes(2, order) + entries


def _entries(block: _Block) -> Iterator[tuple[int, bytes, int]]:
    """Orientations in the first directory.

    Yields:
        Of each: its offset in the block, the bytes of an entry that says 1, and its value; 0 where
        the value is unusable.
    """
    data, skipped = block.data, 0
    while data.startswith(_PREFIX, skipped):
        skipped += len(_PREFIX)
    head = data[skipped : skipped + 16]
    order = _ORDERS.get(head[:2])
    if order is None or len(head) < 8:
        return
    big = b"+" in head[2:4]
    width, count_size = (8, 8) if big else (4, 2)
    position = skipped + int.from_bytes(head[8:16] if big else head[4:8], order)
    count = int.from_bytes(data[position : position + count_size], order)
    size, position = 4 + 2 * width, position + count_size
    for start in range(position, min(position + count * size, len(data) - size + 1), size):
        entry = data[start : start + size]
        if int.from_bytes(entry[:2], order) != _TAG:
            continue
        kind = int.from_bytes(entry[2:4], order)
        length = int.from_bytes(entry[4 : 4 + width], order)
        bytes_each = {_SHORT: 2, _LONG: 4}.get(kind, 0)
        usable = bytes_each and 1 <= length <= width // bytes_each
        first = entry[4 + width : 4 + width + bytes_each]
        value = int.from_bytes(first, order) if usable else 0
        fields = (_TAG, 2), (_SHORT, 2), (1, width), (AS_STORED, 2)
        new = b"".join(number.to_bytes(n, order) for number, n in fields)
        yield start, new.ljust(size, b"\0"), value
