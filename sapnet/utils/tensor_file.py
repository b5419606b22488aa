"""Whether a file of tensors is what it claims to be, before torch reads it.

torch's `weights_only` builds no foreign objects, but it believes the sizes that a file claims: a
few bytes can stand for gigabytes. Imports no torch and runs nothing that is in the file.
"""

import errno
import io
import json
import pickle
import pickletools
import struct
import zipfile
from math import prod
from pathlib import Path
from typing import IO, Any, NamedTuple

from sapnet.utils.restricted_pickle import LEGACY_HEADER, Shape, ShapeUnpickler

MAX_BYTES = 2 << 30
"""Of a checkpoint: eight times the largest SOLOv2 here."""
MAX_TENSORS = 20_000
_MAX_PICKLE = 8 << 20  # bytes: names, shapes and settings; the values lie elsewhere
_MAX_STEPS = 200_000  # of a pickle
_MAX_DIRECTORY = 8 << 20  # bytes of a zip's directory, and of the header of safetensors
_MAGIC = 0x1950A86A20F9469CFC6C  # the first pickle of files of torch before 1.6
_MAX_SIDES = 8  # of a tensor
_ZIP_TAIL = 22 + 20 + 56 + (1 << 16)  # the last records of a zip, with the longest comment
_ITEM_BYTES = {
    "DoubleStorage": 8,
    "FloatStorage": 4,
    "HalfStorage": 2,
    "BFloat16Storage": 2,
    "LongStorage": 8,
    "IntStorage": 4,
    "ShortStorage": 2,
    "CharStorage": 1,
    "ByteStorage": 1,
    "BoolStorage": 1,
}
_HINT = 'save the weights alone, torch.save({"state_dict": …}, file)'


class Storage(NamedTuple):
    """The values of tensors: how many, and the bytes that each takes."""

    numel: int
    item_bytes: int


def check(path: Path, max_bytes: int = MAX_BYTES) -> None:
    """Refuse a file that is neither of torch nor safetensors, or holds less than it claims.

    Args:
        path: of a checkpoint: a zip of torch, a file of torch before 1.6, or safetensors.
        max_bytes: that it may have.

    Raises:
        OSError: it cannot be read.
        ValueError: it is damaged, cut off, too large, or more than tensors and plain values; the
            text says why, without the path.
    """
    size = path.stat().st_size
    if size > max_bytes:
        raise ValueError(f"it has {size:,} bytes, and at most {max_bytes:,} are taken")
    with path.open("rb") as file:
        head = file.read(9)
        file.seek(0)
        try:
            if head[:2] == b"PK":
                _check_zip(file, size)
            elif head[8:] == b"{":
                _check_safetensors(file, size)
            elif head[:1] == pickle.PROTO:
                _check_legacy(file, size)
            else:
                raise ValueError("it is a file neither of torch nor of safetensors")
        except ValueError:
            raise
        except Exception as error:  # damaged files raise what they like
            if isinstance(error, OSError) and error.errno != errno.EINVAL:  # no place to seek to
                raise
            raise ValueError(f"it is damaged ({type(error).__name__}: {error})") from error


def _check_zip(file: IO[bytes], size: int) -> None:
    if _directory_bytes(file, size) > _MAX_DIRECTORY:
        raise ValueError(f"its directory has more than {_MAX_DIRECTORY:,} bytes")
    with zipfile.ZipFile(file) as archive:
        infos = archive.infolist()
        sizes = {info.filename: info.file_size for info in infos}
        if any(info.compress_type != zipfile.ZIP_STORED for info in infos):
            raise ValueError("it is compressed, which torch does not do: a zip bomb?")
        names = [name for name in sizes if name.endswith("/data.pkl")]
        if sum(info.file_size for info in infos) > size or len(names) != 1:
            raise ValueError("torch did not write it, or it is cut off")
        if sizes[names[0]] > _MAX_PICKLE:
            raise ValueError(f"its data.pkl has more than {_MAX_PICKLE:,} bytes")
        storages = _read_pickle(io.BytesIO(archive.read(names[0]))).storages
    folder = names[0].removesuffix("data.pkl")
    for key, storage in storages.items():
        if sizes.get(f"{folder}data/{key}", -1) < storage.numel * storage.item_bytes:
            raise ValueError(f"the values of tensor {key} are not all there: is it cut off?")


def _directory_bytes(file: IO[bytes], size: int) -> int:
    """The bytes of a zip's directory, by its last records; the more where these differ."""
    file.seek(max(0, size - _ZIP_TAIL))
    tail = file.read()
    file.seek(0)
    end = tail.rfind(b"PK\x05\x06")
    if end < 0 or len(tail) < end + 16:
        raise ValueError("it is a zip that is cut off: its directory is missing")
    (directory,) = struct.unpack_from("<12xI", tail, end)
    large = end - 20 - 56  # where the record of a zip64 lies
    if large >= 0 and tail[large : large + 4] == b"PK\x06\x06":
        (directory64,) = struct.unpack_from("<40xQ", tail, large)
        return max(directory64, 0 if directory == 0xFFFFFFFF else directory)
    return int(directory)


def _check_legacy(file: IO[bytes], size: int) -> None:
    pickles = io.BytesIO(file.read(_MAX_PICKLE))
    for number in range(LEGACY_HEADER):
        if _read_pickle(pickles).document != _MAGIC and number == 0:
            raise ValueError("it is a pickle that torch did not write")
    storages = _read_pickle(pickles).storages
    keys = _read_pickle(pickles).document
    if not isinstance(keys, list) or sorted(map(str, keys)) != sorted(storages):
        raise ValueError("its tensors and their values do not belong together")
    values = sum(8 + s.numel * s.item_bytes for s in storages.values())
    if pickles.tell() + values > size:
        missing = pickles.tell() + values - size
        raise ValueError(f"{missing:,} bytes of it are missing: is it cut off?")


class _Pickle(NamedTuple):
    document: Any
    storages: dict[str, Storage]


def _read_pickle(file: io.BytesIO) -> _Pickle:
    """The next pickle, with shapes in place of tensors, and the storages that these lie in."""
    start = file.tell()
    _check_steps(file)
    file.seek(start)
    unpickler = _Unpickler(file)
    return _Pickle(unpickler.load(), unpickler.storages)


def _check_steps(file: io.BytesIO) -> None:
    """Refuse a pickle that would take much memory or time to be read."""
    try:
        for count, (step, argument, _) in enumerate(pickletools.genops(file)):
            number = argument if isinstance(argument, int) else 0
            memo = step.name in ("PUT", "BINPUT", "LONG_BINPUT")
            if count >= _MAX_STEPS or (memo and number >= _MAX_STEPS):
                raise ValueError(f"its pickle has more than {_MAX_STEPS:,} steps")
            if abs(number) >= 1 << 63 and number != _MAGIC:
                raise ValueError("its pickle holds numbers that no tensor has")
    except ValueError as error:
        if str(error).startswith("its pickle"):
            raise
        raise ValueError(f"its pickle is damaged or cut off ({error})") from error


class _Unpickler(ShapeUnpickler):
    """Builds what a state dict and its settings are made of, and refuses all else by name."""

    def __init__(self, file: IO[bytes]) -> None:
        super().__init__(file)
        self.storages: dict[str, Storage] = {}
        self.tensors = 0

    def find_class(self, module: str, name: str) -> Any:
        if module == "torch" and name in _ITEM_BYTES:
            return _ITEM_BYTES[name]
        match module, name:
            case "torch._utils", "_rebuild_tensor_v2":
                return self._shape
            case ("torch._utils", "_rebuild_parameter") | ("collections", "OrderedDict"):
                return super().find_class(module, name)
        what = f"{module}.{name}"[:120]
        raise ValueError(f"it names {what!r}, and only tensors and plain values are read: {_HINT}")

    def persistent_load(self, storage: Any) -> Storage:
        """A storage, of which torch writes ("storage", type, key, device, numel, …)."""
        kind, item_bytes, key, _, numel, *views = storage
        if kind != "storage" or not isinstance(item_bytes, int) or any(views):
            raise ValueError("its tensors lie in storages that no state dict has")
        if not isinstance(numel, int) or numel < 0:
            raise ValueError(f"a tensor of it claims {numel!r} values")
        return self.storages.setdefault(str(key), Storage(numel, item_bytes))

    def _shape(self, storage: Any, offset: Any, size: Any, stride: Any, *_rest: Any) -> Shape:
        self.tensors += 1
        sides = (*size, *stride, offset)
        if self.tensors > MAX_TENSORS:
            raise ValueError(f"it has more than {MAX_TENSORS:,} tensors")
        if not isinstance(storage, Storage) or not all(isinstance(n, int) for n in sides):
            raise ValueError("a tensor of it has no values")
        last = offset + sum((n - 1) * step for n, step in zip(size, stride, strict=True))
        if len(size) > _MAX_SIDES or min(sides) < 0:
            raise ValueError("a tensor of it claims a shape that no tensor has")
        if prod(size) > storage.numel or (prod(size) and last >= storage.numel):
            raise ValueError(f"a tensor of it claims the shape {tuple(size)}, and has fewer values")
        return tuple(size)


def _check_safetensors(file: IO[bytes], size: int) -> None:
    (length,) = struct.unpack("<Q", file.read(8))
    if length > min(_MAX_DIRECTORY, size - 8):
        raise ValueError(f"its header claims {length:,} bytes: it is damaged or cut off")
    try:
        header = json.loads(file.read(length))
    except (ValueError, RecursionError) as error:
        raise ValueError(f"its header is no JSON ({error})") from error
    header.pop("__metadata__", None)
    if len(header) > MAX_TENSORS:
        raise ValueError(f"it has more than {MAX_TENSORS:,} tensors")
    ends = [entry["data_offsets"][1] for entry in header.values()]
    if 8 + length + max(ends, default=0) > size:
        raise ValueError("its tensors go on beyond its end: is it cut off?")
