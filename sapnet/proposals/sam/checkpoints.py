"""The places of the weights of SAM and SAM 2: named by settings, given, or downloaded once.

The environment names one (SAPNET_SAM_CHECKPOINT), several (SAPNET_SAM_CHECKPOINTS), or both: files
for SAM, folders for SAM 2. Imports no torch.
"""

import json
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Literal

from sapnet.errors import InvalidConfig, WeightsUnavailable
from sapnet.proposals.sam.architecture import EFFICIENT_TYPES, read_architecture
from sapnet.proposals.sam.sam2_config import CONFIG, WEIGHTS, read_sam2_type
from sapnet.proposals.sam.sam2_config import MODEL_TYPES as SAM2_TYPES
from sapnet.utils.download import default_cache_dir, download

CHECKPOINT_VARIABLE = "SAPNET_SAM_CHECKPOINT"
CHECKPOINTS_VARIABLE = "SAPNET_SAM_CHECKPOINTS"
DEFAULT = "default"
"""The name of SAPNET_SAM_CHECKPOINT's file among the others."""
Family = Literal["sam", "sam2"]
"""As kinds of proposals name them."""
_TITLES = {"sam": "SAM", "sam2": "SAM 2"}
_URL = "https://dl.fbaipublicfiles.com/segment_anything/"
# Meta names each file by the first digits of its sha256
_FILES = {
    "vit_b": ("sam_vit_b_01ec64.pth", "01ec64"),
    "vit_l": ("sam_vit_l_0b3195.pth", "0b3195"),
    "vit_h": ("sam_vit_h_4b8939.pth", "4b8939"),
}
_EFFICIENT_URL = (
    "https://huggingface.co/mit-han-lab/efficientvit-sam/resolve/main/efficientvit_sam_{}.pt"
)
_SAM2 = "facebook/sam2.1-hiera-"  # names of models for `transformers`, but for the type


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
    named: Mapping[str, Path],
    checkpoint: str | None = None,
    model_type: str | None = None,
    family: Family = "sam",
) -> str | None:
    """Name of the checkpoint that is meant; None where none is named, and none is there.

    A `model_type` alone means the checkpoint of that name, else the first of the family, whose type
    is still to be checked.

    Raises:
        ValueError: there is none of this name.
    """
    if checkpoint is not None and checkpoint not in named:
        names = ", ".join(named) or f"none, {CHECKPOINTS_VARIABLE} names them"
        raise ValueError(f"there is no SAM checkpoint {checkpoint!r}; known: {names}")
    if checkpoint is None and model_type in named:
        return model_type
    fitting = (name for name, path in named.items() if path.is_dir() == (family == "sam2"))
    return checkpoint if checkpoint is not None else next(fitting, None)


def type_of(path: Path) -> tuple[Family, str]:
    """The family of a checkpoint and its type; a folder is a SAM 2.

    Raises:
        OSError: it cannot be read.
        ValueError: it is none; the text says why, without the path.
    """
    if path.is_dir():
        return "sam2", read_sam2_type(path)
    return "sam", read_architecture(path).model_type


def check_type(path: Path, shown: str, model_type: str | None, family: Family = "sam") -> None:
    """Refuse a checkpoint of another family, or whose sizes contradict `model_type`.

    Args:
        path: of the checkpoint.
        shown: the checkpoint, for people.
        model_type: what was asked for; None is whatever it is.
        family: the kind of proposals.

    Raises:
        WeightsUnavailable: it cannot be read, or holds none of the two.
        ValueError: it is of another type.
    """
    try:
        actual_family, actual = type_of(path)
    except (OSError, ValueError) as error:
        raise unreadable(shown, error, "sam2" if path.is_dir() else "sam") from error
    if actual_family != family:
        title = _TITLES[actual_family]
        raise ValueError(f"{shown} is a {title}: ask for the kind {actual_family!r}")
    if model_type is not None and model_type != actual:
        raise ValueError(f"model_type is {model_type!r}, and {shown} is {actual}: leave it out")


def unreadable(
    shown: str, error: OSError | ValueError, family: Family = "sam"
) -> WeightsUnavailable:
    """The error for a checkpoint, as people know it, that holds no SAM."""
    why = str(error)
    if isinstance(error, OSError) and error.strerror:
        why = f"{Path(error.filename).name}: {error.strerror}" if error.filename else error.strerror
    return WeightsUnavailable(f"{shown} is no checkpoint of {_TITLES[family]}: {why}")


def find_checkpoint(
    model_type: str | None = None,
    checkpoint: str | os.PathLike[str] | None = None,
    cache_dir: str | os.PathLike[str] | None = None,
) -> Path:
    """SAM's named or given file, else the environment's, else the cached or downloaded one.

    Args:
        model_type: vit_b, vit_l or vit_h, which is downloaded where no file is named, or one of
            EfficientViT-SAM's, whose file has to be there; None is vit_b where no file is named.
        checkpoint: a name that the environment knows, or a path.
        cache_dir: where downloads are kept.

    Raises:
        WeightsUnavailable: there is none; with the ways to get one.
        ValueError: there is no such type.
        InvalidConfig: see `environment_checkpoints`.
    """
    _check_known(model_type, [*_FILES, *EFFICIENT_TYPES.values()])
    path = _given("sam", model_type, checkpoint)
    if path is None:
        if model_type not in (None, *_FILES):
            raise WeightsUnavailable(f"no file of {model_type} is named; {ways('sam', model_type)}")
        file, prefix = _FILES[model_type or "vit_b"]
        path = Path(cache_dir or default_cache_dir()) / file
        if not path.is_file():
            download(_URL + file, path, prefix, ways("sam", model_type))
    return path


def find_sam2(
    model_type: str | None = None, checkpoint: str | os.PathLike[str] | None = None
) -> Path | str:
    """SAM 2's named or given folder, else the environment's, else a model for `transformers`.

    Args:
        model_type: tiny, small, base-plus or large, which `transformers` downloads where no folder
            is named; None is small then.
        checkpoint: a name that the environment knows, or a path.

    Raises:
        WeightsUnavailable: it is not there; with the ways to get one.
        ValueError: there is no such type.
        InvalidConfig: see `environment_checkpoints`.
    """
    _check_known(model_type, SAM2_TYPES.values())
    return _given("sam2", model_type, checkpoint) or f"{_SAM2}{model_type or 'small'}"


def _check_known(model_type: str | None, types: Iterable[str]) -> None:
    if model_type is not None and model_type not in types:
        raise ValueError(f"model_type {model_type!r} is not one of {', '.join(types)}")


def _given(
    family: Family, model_type: str | None, checkpoint: str | os.PathLike[str] | None
) -> Path | None:
    """The path that is named or given, and is there; None where there is neither."""
    named, given = environment_checkpoints(), checkpoint and str(checkpoint)
    if given and given not in named:
        path = Path(given).expanduser()
    elif name := choose(named, given or None, model_type, family):
        path = named[name]
    else:
        return None
    if not path.exists():
        names = f" (named ones: {', '.join(named)})" if named else ""
        where = f"there is no {_TITLES[family]} checkpoint at {path}{names}"
        raise WeightsUnavailable(f"{where}; {ways(family, model_type)}")
    return path


def ways(family: Family, model_type: str | None = None) -> str:
    """The ways to get weights, or to go without, for people who lack them."""
    if family == "sam2":
        how = f"name a folder with {CONFIG} and {WEIGHTS} in {CHECKPOINTS_VARIABLE}"
    else:
        url = _EFFICIENT_URL.format(str(model_type).rpartition("_")[2])
        if model_type in (None, *_FILES):
            url = _URL + _FILES[model_type or "vit_b"][0]
        how = f"download {url} and set {CHECKPOINT_VARIABLE} to its path"
    return (
        f"{how} (or give `checkpoint`), "
        'or ask for the proposals {"kind": "hierarchy"}, which need no weights'
    )
