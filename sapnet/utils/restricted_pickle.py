"""Reads pickles of torch without running what they name, and without torch where shapes are enough.

Training checkpoints (micro-sam's, for one) hold whatever their trainer was made of beside the
weights. Tensors and containers are read, all else becomes an `Opaque`. As `pickle_module` of
`torch.load` this module gives the tensors themselves.
"""

import pickle
import zipfile
from pathlib import Path
from typing import IO, Any

Shape = tuple[int, ...]

_BUILT = {
    ("collections", "OrderedDict"),
    ("torch._utils", "_rebuild_tensor_v2"),
    ("torch._utils", "_rebuild_parameter"),
}
"""The names that a state dict needs; storages are torch's own concern."""
LEGACY_HEADER = 3
"""Pickles before the document in files of torch before 1.6: magic number, version, system."""


class Opaque:
    """In place of an object that is not needed: takes every state and call, and does nothing."""

    def __new__(cls, *_args: Any, **_kwargs: Any) -> "Opaque":
        """Made of whatever the object's class was called with."""
        return super().__new__(cls)

    def __call__(self, *_args: Any, **_kwargs: Any) -> "Opaque":
        """Stands for the function that it would be, and for its result."""
        return self

    def __setstate__(self, _state: Any) -> None: ...

    def __setitem__(self, _key: Any, _value: Any) -> None: ...

    def append(self, _item: Any) -> None:
        """Takes an item, as `extend` and `add` do."""

    extend = add = append


class Unpickler(pickle.Unpickler):
    """Builds containers and tensors alone."""

    def find_class(self, module: str, name: str) -> Any:
        """The class or function if it is allowed, else Opaque."""
        return super().find_class(module, name) if (module, name) in _BUILT else Opaque


def load(file: IO[bytes], **settings: Any) -> Any:
    """The next pickle of a file."""
    return Unpickler(file, **settings).load()


def load_shapes(path: Path) -> Any:
    """The document that `torch.save` wrote, with the shape in place of each tensor.

    Reads no weights.

    Raises:
        OSError: the file cannot be read.
        ValueError: torch wrote no such file.
    """
    try:
        if not zipfile.is_zipfile(path):
            with path.open("rb") as file:
                for _ in range(LEGACY_HEADER):
                    load(file)
                return ShapeUnpickler(file).load()
        with zipfile.ZipFile(path) as archive:
            names = [name for name in archive.namelist() if name.endswith("/data.pkl")]
            if len(names) != 1:
                raise ValueError("torch did not write it")
            with archive.open(names[0]) as file:
                return ShapeUnpickler(file).load()
    except OSError:
        raise
    except Exception as error:  # damaged pickles raise what they like
        raise ValueError(f"torch did not write it, or it is damaged ({error})") from error


class ShapeUnpickler(Unpickler):
    """Builds containers, and the shape in place of each tensor."""

    def find_class(self, module: str, name: str) -> Any:
        """Rebuild shapes in place of tensors."""
        match name:
            case "_rebuild_tensor_v2":
                return _shape_of_tensor
            case "_rebuild_parameter":
                return _shape_of_parameter
            case _:
                return super().find_class(module, name)

    def persistent_load(self, storage: Any) -> Any:
        """Nothing: the values of a tensor are not read."""


def _shape_of_tensor(_storage: None, _offset: int, size: Shape, *_rest: Any) -> Shape:
    return tuple(size)


def _shape_of_parameter(shape: Shape, *_rest: Any) -> Shape:
    return shape
