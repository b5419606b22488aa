"""Which file SAM's weights are in: named by settings, given, or downloaded once. Imports no torch.

The environment names one file (SAPNET_SAM_CHECKPOINT), several (SAPNET_SAM_CHECKPOINTS), or both.
"""

import hashlib
import json
import os
import urllib.error
import urllib.request
from collections.abc import Mapping
from pathlib import Path

from sapnet.errors import InvalidConfig, WeightsUnavailable
from sapnet.proposals.sam.architecture import read_architecture

CHECKPOINT_VARIABLE = "SAPNET_SAM_CHECKPOINT"
CHECKPOINTS_VARIABLE = "SAPNET_SAM_CHECKPOINTS"
DEFAULT = "default"
"""The name of SAPNET_SAM_CHECKPOINT's file among the others."""
_URL = "https://dl.fbaipublicfiles.com/segment_anything/"
# Meta names each file by the first digits of its sha256
_FILES = {
    "vit_b": ("sam_vit_b_01ec64.pth", "01ec64"),
    "vit_l": ("sam_vit_l_0b3195.pth", "0b3195"),
    "vit_h": ("sam_vit_h_4b8939.pth", "4b8939"),
}


def named_checkpoints(
    default: str | os.PathLike[str] | None, named: Mapping[str, str | os.PathLike[str]]
) -> dict[str, Path]:
    """Paths by name, that of requests which name none first."""
    first = {DEFAULT: default} if default else {}
    return {name: Path(path).expanduser() for name, path in {**first, **named}.items()}


def environment_checkpoints() -> dict[str, Path]:
    """Those that the environment names.

    Raises:
        InvalidConfig: SAPNET_SAM_CHECKPOINTS is no JSON object of paths.
    """
    text = os.environ.get(CHECKPOINTS_VARIABLE) or "{}"
    try:
        named = json.loads(text)
        if not isinstance(named, dict) or not all(isinstance(p, str) for p in named.values()):
            raise ValueError("names and paths are wanted")
    except ValueError as error:
        raise InvalidConfig(
            f'{CHECKPOINTS_VARIABLE} is no JSON such as {{"cells": "/models/cells.pth"}}: {error}'
        ) from error
    return named_checkpoints(os.environ.get(CHECKPOINT_VARIABLE), named)


def choose(
    named: Mapping[str, Path], checkpoint: str | None = None, model_type: str | None = None
) -> str | None:
    """Name of the checkpoint that is meant; None where none is named, and none is known.

    A `model_type` alone means the checkpoint of that name, else the first, whose type is still to
    be checked.

    Raises:
        ValueError: it is not one of those known.
    """
    if checkpoint is not None and checkpoint not in named:
        names = ", ".join(named) or f"none, {CHECKPOINTS_VARIABLE} names them"
        raise ValueError(f"there is no SAM checkpoint {checkpoint!r}; known: {names}")
    if checkpoint is None and model_type in named:
        return model_type
    return checkpoint if checkpoint is not None else next(iter(named), None)


def check_type(path: Path, shown: str, model_type: str | None) -> None:
    """Refuse a `model_type` that the checkpoint's shapes contradict.

    Args:
        path: of the file.
        shown: the file, for people.
        model_type: what was asked for; None is whatever it is.

    Raises:
        WeightsUnavailable: it cannot be read, or is no SAM.
        ValueError: it is of another type.
    """
    try:
        actual = read_architecture(path).model_type
    except (OSError, ValueError) as error:
        raise unreadable(shown, error) from error
    if model_type is not None and model_type != actual:
        raise ValueError(f"model_type is {model_type!r}, and {shown} is {actual}: leave it out")


def unreadable(shown: str, error: OSError | ValueError) -> WeightsUnavailable:
    """What to raise where a file, as people know it, holds no SAM."""
    why = error.strerror if isinstance(error, OSError) else error
    return WeightsUnavailable(f"{shown} is no checkpoint of SAM: {why}")


def find_checkpoint(
    model_type: str | None = None,
    checkpoint: str | os.PathLike[str] | None = None,
    cache_dir: str | os.PathLike[str] | None = None,
) -> Path:
    """The named or given file, else the environment's, else the cached or downloaded one.

    Args:
        model_type: vit_b, vit_l or vit_h, which is downloaded where no file is named; None is
            vit_b then.
        checkpoint: a name that the environment knows, or a path.
        cache_dir: where downloads are kept.

    Raises:
        WeightsUnavailable: there is none; with the ways to get one.
        ValueError: there is no such type.
        InvalidConfig: see `environment_checkpoints`.
    """
    if model_type is not None and model_type not in _FILES:
        raise ValueError(f"model_type {model_type!r} is not one of {', '.join(_FILES)}")
    named, given = environment_checkpoints(), checkpoint and str(checkpoint)
    if given and given not in named:
        path = Path(given).expanduser()
    elif name := choose(named, given or None, model_type):
        path = named[name]
    else:
        file, prefix = _FILES[model_type or "vit_b"]
        path = Path(cache_dir or default_cache_dir()) / file
        if not path.is_file():
            _download(_URL + file, path, prefix, _ways(model_type))
    if not path.is_file():
        names = f" (named ones: {', '.join(named)})" if named else ""
        raise WeightsUnavailable(
            f"there is no SAM checkpoint at {path}{names}; {_ways(model_type)}"
        )
    return path


def default_cache_dir() -> Path:
    """Where downloads and kept embeddings are."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "sapnet"


def _ways(model_type: str | None) -> str:
    name = _FILES[model_type or "vit_b"][0]
    return (
        f"download {_URL}{name} and set {CHECKPOINT_VARIABLE} to its path (or give `checkpoint`), "
        'or ask for the proposals {"kind": "hierarchy"}, which need no weights'
    )


def _download(url: str, path: Path, prefix: str, ways: str) -> None:
    """Fetch to a temporary name, check the sha256, then rename."""
    partial = path.with_name(f"{path.name}.{os.getpid()}.part")
    digest = hashlib.sha256()
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with urllib.request.urlopen(url, timeout=30) as answer, open(partial, "wb") as file:
            while block := answer.read(1 << 20):
                digest.update(block)
                file.write(block)
        if not digest.hexdigest().startswith(prefix):
            raise WeightsUnavailable(
                f"{url} came with sha256 {digest.hexdigest()}, not {prefix}…; {ways}"
            )
        partial.rename(path)
    except (OSError, urllib.error.URLError) as error:
        raise WeightsUnavailable(f"could not download {url}: {error}; {ways}") from error
    finally:
        partial.unlink(missing_ok=True)
