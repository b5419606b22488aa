"""Bags on disk, once per (image content, points, generator): many images a file, append only.

A shard is a row of records, each `magic, key, length, crc32` and a msgpack payload. Writers take
turns under a file lock; readers need none: they read whole records with `pread`, and a record is
checked against its crc. A writer that is killed leaves at most one torn record at a shard's end,
which the next writer cuts off. Records are never changed, so that any number of jobs and data
loader processes share one store.
"""

import fcntl
import hashlib
import os
import struct
import threading
import zlib
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import msgspec
import numpy as np

from sapnet.types import Bag, PointAnnotation, Rle
from sapnet.utils.files import atomic_write

_MAGIC = b"SNB1"
_HEADER = struct.Struct("<4s32sQI")  # magic, key, payload bytes, crc32 of key and payload


class _Record(msgspec.Struct, array_like=True, frozen=True):
    """One bag as it lies on disk; arrays are little-endian float32 bytes."""

    annotation_id: int
    size: tuple[int, int]
    counts: list[str]
    boxes: bytes
    confidence: bytes
    sources: list[str]
    overlaps: bytes


_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(list[_Record])


def key_of(
    image_sha: str,
    annotations: Sequence[PointAnnotation],
    fingerprint: str,
    max_proposals: int = 16,
) -> str:
    """The key of one image's bags, 64 hex digits.

    The points' ids and places count, in order, and their boxes where there are some; their classes
    do not, since no generator looks at them.

    Args:
        image_sha: sha256 hex of the image file's content.
        fingerprint: of the generator.
    """
    points: list[tuple[object, ...]] = [
        (a.id, float(a.x), float(a.y), *((a.box, a.pointed) if a.box else ())) for a in annotations
    ]
    parts = (image_sha, fingerprint, max_proposals, points)
    return hashlib.sha256(_encoder.encode(parts)).hexdigest()


class ProposalStore:
    """`get` and `put` of the bags of one image by `key_of`; safe between threads and processes."""

    def __init__(self, root: str | os.PathLike[str], *, shard_bytes: int = 256 << 20) -> None:
        """root: a folder, made if it is not there. A shard takes no record past shard_bytes."""
        self.root = Path(root)
        self.root.mkdir(parents=True, exist_ok=True)
        self.shard_bytes = shard_bytes
        self._index: dict[str, tuple[Path, int]] = {}  # key -> shard, offset of its record
        self._looking = threading.Lock()  # a slow thread must not set _read_to back
        self._read_to: dict[Path, int] = {}  # shard -> end of the last whole record seen
        self._refresh()

    def __len__(self) -> int:
        self._refresh()
        return len(self._index)

    def __contains__(self, key: str) -> bool:
        return self.get(key) is not None

    def get(self, key: str) -> list[Bag] | None:
        """The bags stored under a key, or None where there are none (or they are damaged)."""
        if key not in self._index:
            self._refresh()
        place = self._index.get(key)
        payload = _read_payload(*place) if place else None
        return None if payload is None else [_unpack(r) for r in _decoder.decode(payload)]

    def put(self, key: str, bags: Sequence[Bag]) -> None:
        """Append the bags of one image. A key that is already stored whole is left as it is."""
        payload = _encoder.encode([_pack(bag) for bag in bags])
        raw_key = bytes.fromhex(key)
        header = _HEADER.pack(
            _MAGIC, raw_key, len(payload), zlib.crc32(payload, zlib.crc32(raw_key))
        )
        with self._writing():
            if self.get(key) is not None:
                return
            self._append(header + payload)

    def export(self, keys: Iterable[str], path: Path) -> None:
        """Write the records of some keys as a file of their own, for the `merge` of another store.

        Raises:
            KeyError: a key is not stored, or its record is damaged.
        """
        with atomic_write(path) as file:
            for key in dict.fromkeys(keys):
                if key not in self._index:
                    self._refresh()
                record = _read_record(*self._index[key])
                if record is None:
                    raise KeyError(key)
                file.write(record)

    def merge(self, path: Path) -> int:
        """Add the records of a file that `export` has written; those that are stored stay.

        A record that is damaged is passed over.

        Returns:
            How many were added.
        """
        self._refresh()
        offsets = {key: start for key, start, _ in _records(path, 0) if key not in self._index}
        if not offsets:
            return 0
        added = 0
        with self._writing():
            for key, offset in offsets.items():
                record = _read_record(path, offset) if key not in self._index else None
                if record is not None:
                    self._append(record)
                    added += 1
        return added

    def _append(self, record: bytes) -> None:
        """Write a whole record behind the last one. To be called under the lock."""
        shard = self._shard_to_write()
        end = self._read_to.get(shard, 0)
        with open(shard, "r+b" if shard.exists() else "w+b") as file:
            file.truncate(end)  # whatever lies behind is a killed writer's
            file.seek(end)
            file.write(record)
        self._refresh()

    def _shard_to_write(self) -> Path:
        shards = self._shards()
        if shards and self._read_to.get(shards[-1], 0) < self.shard_bytes:
            return shards[-1]
        return self.root / f"shard-{len(shards):05d}.bags"

    def _shards(self) -> list[Path]:
        return sorted(self.root.glob("shard-*.bags"))

    def _refresh(self) -> None:
        """Take up the records that were added since the last look, by any process."""
        with self._looking:
            for shard in self._shards():
                end = self._read_to.get(shard, 0)
                if shard.stat().st_size <= end:
                    continue
                for key, offset, behind in _records(shard, end):
                    self._index[key] = (shard, offset)
                    self._read_to[shard] = behind

    @contextmanager
    def _writing(self) -> Iterator[None]:
        with open(self.root / "lock", "ab") as file:
            fcntl.flock(file, fcntl.LOCK_EX)  # let go when the file closes, or the process dies
            self._refresh()
            yield


def _records(shard: Path, start: int) -> Iterator[tuple[str, int, int]]:
    """(key, offset, end) of each whole record behind `start`.

    Only headers are read, but for the last record, which is checked against its crc.
    """
    with open(shard, "rb") as file:
        size = os.fstat(file.fileno()).st_size
        while start + _HEADER.size <= size:
            file.seek(start)
            magic, key, length, _ = _HEADER.unpack(file.read(_HEADER.size))
            end = start + _HEADER.size + length
            if magic != _MAGIC or end > size:
                return
            if end == size and _read_payload(shard, start) is None:
                return
            yield key.hex(), start, end
            start = end


def _read_payload(shard: Path, offset: int) -> bytes | None:
    """The payload of a record, None where it does not fit its crc."""
    record = _read_record(shard, offset)
    return None if record is None else record[_HEADER.size :]


def _read_record(shard: Path, offset: int) -> bytes | None:
    """A record with its header, None where it does not fit its crc."""
    descriptor = os.open(shard, os.O_RDONLY)
    try:
        header = os.pread(descriptor, _HEADER.size, offset)
        _, key, length, crc = _HEADER.unpack(header)
        payload = os.pread(descriptor, length, offset + _HEADER.size)
    finally:
        os.close(descriptor)
    return header + payload if zlib.crc32(payload, zlib.crc32(key)) == crc else None


def _pack(bag: Bag) -> _Record:
    height, width = bag.masks[0]["size"]
    return _Record(
        annotation_id=bag.annotation_id,
        size=(height, width),
        counts=[mask["counts"] for mask in bag.masks],
        boxes=bag.boxes.astype("<f4").tobytes(),
        confidence=bag.confidence.astype("<f4").tobytes(),
        sources=list(bag.sources),
        overlaps=bag.overlaps.astype("<f4").tobytes(),
    )


def _unpack(record: _Record) -> Bag:
    count = len(record.counts)
    return Bag(
        annotation_id=record.annotation_id,
        boxes=_floats(record.boxes, count, 4),
        masks=tuple(Rle(size=list(record.size), counts=counts) for counts in record.counts),
        confidence=_floats(record.confidence, count),
        sources=tuple(record.sources),
        overlaps=_floats(record.overlaps, count, count),
    )


def _floats(data: bytes, *shape: int) -> np.ndarray:
    return np.frombuffer(data, "<f4").astype(np.float32).reshape(shape)
