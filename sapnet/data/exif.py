"""The EXIF orientation in a file of a picture: read it, and take it out without new encoding.

Read as Pillow does, which many tools are built on: the tag 0x0112 of JPEG, PNG, WebP and TIFF, else
`tiff:Orientation` of XMP. No other bytes than those of the tag (and PNG's checksum over it) change
where it is taken out, so the pixels and the length of the file stay. Never raises for what a file
holds; pixels are not looked at.
"""

import re
import zlib
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Literal

from sapnet.data.orientation import AS_STORED

_TAG, _XMP_TAG = 0x0112, 700
_SHORT, _LONG = 3, 4
_PREFIX = b"Exif\0\0"
_JPEG_XMP = b"http://ns.adobe.com/xap/1.0/\0"
_PNG_XMP, _PNG_RAW = b"XML:com.adobe.xmp", b"Raw profile type exif"
_SAID = re.compile(rb"(tiff:Orientation(?:\s*=\s*[\"']|>)\s*)(\d)")
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
    """A place that may name an orientation. offset: of data in the file. chunk: where a PNG's chunk
    begins and its bytes, from its kind on, without the checksum."""

    kind: Literal["exif", "xmp"]
    offset: int
    data: bytes
    chunk: tuple[int, bytes] | None = None
    packed: bool = False


def orientation_of(source: Path | BinaryIO) -> int:
    """1 to 8; 1 where the file names none, or none that there is. An unreadable path raises
    OSError."""
    with _opened(source) as file:
        blocks = list(_blocks(file))
        told = [value for b in blocks if b.kind == "exif" for _, _, value in _entries(b)]
        if told:
            return told[-1] if told[-1] in _VALUES else AS_STORED
        for block in blocks:
            if block.kind == "xmp" and (found := _SAID.search(block.data)):
                value = int(found.group(2))
                return value if value in _VALUES else AS_STORED
    return AS_STORED


def upright_patches(source: Path | BinaryIO) -> list[Patch]:
    """What to change so that every reader shows the pixels as they are stored. Nothing where it
    shows them so already."""
    with _opened(source) as file:
        return [patch for block in _blocks(file) for patch in _patches(block)]


def _patches(block: _Block) -> Iterator[Patch]:
    if block.kind == "exif":
        new = [(at, entry) for at, entry, value in _entries(block) if value != AS_STORED]
    else:
        new = [(m.start(2), b"1") for m in _SAID.finditer(block.data) if m.group(2) != b"1"]
    if not new:
        return
    if block.chunk is None:
        yield from (Patch(block.offset + at, data) for at, data in new)
        return
    at, body = block.chunk
    changed = bytearray(body)
    if block.packed:  # its text cannot be changed in place: nobody knows it by another keyword
        changed[4] ^= 0x20
    for place, data in new if not block.packed else ():
        start = block.offset - at + place
        changed[start : start + len(data)] = data
    yield Patch(at, bytes(changed) + zlib.crc32(changed).to_bytes(4, "big"))


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
    at = 2
    for _ in range(_MOST):
        file.seek(at)
        head = file.read(4)
        if len(head) < 4 or head[0] != 0xFF or head[1] in (0xD9, 0xDA):
            return
        if head[1] == 0xFF:  # fill
            at += 1
        elif head[1] == 0x01 or 0xD0 <= head[1] <= 0xD8:  # without a length
            at += 2
        else:
            length = int.from_bytes(head[2:], "big")
            data = file.read(max(length - 2, 0)) if head[1] == 0xE1 else b""
            if data.startswith(b"Exif\0"):
                yield _Block("exif", at + 4, data)
            elif data.startswith(_JPEG_XMP):
                yield _Block("xmp", at + 4, data)
            at += 2 + max(length, 2)


def _of_png(file: BinaryIO) -> Iterator[_Block]:
    at = 8
    for _ in range(_MOST):
        file.seek(at)
        head = file.read(8)
        length, kind = int.from_bytes(head[:4], "big"), head[4:]
        if len(head) < 8 or kind == b"IEND":
            return
        if kind in (b"eXIf", b"iTXt", b"zTXt", b"tEXt") and length <= _LARGEST:
            body = kind + file.read(length)
            if kind == b"eXIf":
                yield _Block("exif", at + 8, body[4:], (at + 4, body))
            else:
                yield from _of_text(at + 4, body)
        at += 12 + length


def _of_text(at: int, body: bytes) -> Iterator[_Block]:
    """Of a PNG's text chunk: XMP, and EXIF in hex as ImageMagick writes it."""
    keyword, _, rest = body[4:].partition(b"\0")
    if keyword == _PNG_XMP and body.startswith(b"iTXt") and len(rest) > 2:
        text = rest[2:].split(b"\0", 2)[-1]
        if rest[0]:
            yield _Block("xmp", 0, _unpacked(text), (at, body), packed=True)
        else:
            yield _Block("xmp", at + len(body) - len(text), text, (at, body))
    elif keyword == _PNG_RAW:
        text = rest if body.startswith(b"tEXt") else _unpacked(rest[1:])
        with suppress(ValueError):
            data = bytes.fromhex(b"".join(text.split(b"\n")[3:]).decode("ascii"))
            yield _Block("exif", 0, data, (at, body), packed=True)


def _unpacked(data: bytes) -> bytes:
    try:
        return zlib.decompressobj().decompress(data, _LARGEST)
    except zlib.error:
        return b""


def _of_webp(file: BinaryIO) -> Iterator[_Block]:
    at = 12
    for _ in range(_MOST):
        file.seek(at)
        head = file.read(8)
        if len(head) < 8:
            return
        length = int.from_bytes(head[4:], "little")
        if head[:4] in (b"EXIF", b"XMP ") and length <= _LARGEST:
            yield _Block("exif" if head[:4] == b"EXIF" else "xmp", at + 8, file.read(length))
        at += 8 + length + length % 2


def _of_tiff(file: BinaryIO) -> Iterator[_Block]:
    """The first directory, as a block of its own with a header before it."""
    file.seek(0)
    head = file.read(16)
    order, big = _ORDERS[head[:2]], b"+" in head[2:4]
    width = 8 if big else 4
    at = int.from_bytes(head[8:16] if big else head[4:8], order)
    count_size, entry_size = (8, 20) if big else (2, 12)
    file.seek(at)
    count = min(int.from_bytes(file.read(count_size), order), 1 << 16)
    entries = file.read(count * entry_size)
    yield _Block("exif", at + count_size - (24 if big else 10), _headed(head, entries, big, order))
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
    """Of each orientation in the first directory: its place in the block, an entry that says 1 in
    its place, and its value; 0 where that is none."""
    data, skipped = block.data, 0
    while data.startswith(_PREFIX, skipped):
        skipped += len(_PREFIX)
    head = data[skipped : skipped + 16]
    order = _ORDERS.get(head[:2])
    if order is None or len(head) < 8:
        return
    big = b"+" in head[2:4]
    width, count_size = (8, 8) if big else (4, 2)
    at = skipped + int.from_bytes(head[8:16] if big else head[4:8], order)
    count = int.from_bytes(data[at : at + count_size], order)
    size, at = 4 + 2 * width, at + count_size
    for start in range(at, min(at + count * size, len(data) - size + 1), size):
        entry = data[start : start + size]
        if int.from_bytes(entry[:2], order) != _TAG:
            continue
        kind = int.from_bytes(entry[2:4], order)
        length = int.from_bytes(entry[4 : 4 + width], order)
        bytes_each = {_SHORT: 2, _LONG: 4}.get(kind, 0)
        usable = bytes_each and 1 <= length <= width // bytes_each
        first = entry[4 + width : 4 + width + bytes_each]
        value = int.from_bytes(first, order) if usable else 0
        said = (_TAG, 2), (_SHORT, 2), (1, width), (AS_STORED, 2)
        new = b"".join(number.to_bytes(n, order) for number, n in said)
        yield start, new.ljust(size, b"\0"), value
