"""Which subset of a dataset a name means: train, val or test, as folders and files call them."""

import re
from collections.abc import Iterable, Mapping
from pathlib import PurePosixPath
from typing import NamedTuple, TypeVar

from sapnet.types import Subset

MAX_GROUP = 200
"""Characters of the name of a group of images."""
SUBSETS: tuple[Subset, ...] = ("train", "val", "test")
_NAMES: dict[str, Subset] = {
    "train": "train",
    "training": "train",
    "val": "val",
    "valid": "val",
    "validation": "val",
    "dev": "val",
    "test": "test",
    "testing": "test",
}
_WORD = re.compile(r"[a-z]+")
K = TypeVar("K")


class Split(NamedTuple):
    """Where the owner of a dataset has put an image: see `sapnet.types.ImageInfo`."""

    subset: Subset | None = None
    group: str | None = None


def subset_named(name: str) -> Subset | None:
    """The subset that a name is, such as "valid" or "Train"; None where it is none."""
    return _NAMES.get(name.strip().casefold())


def subset_of_path(path: str) -> Subset | None:
    """The subset that a path speaks of, such as instances_val2017.json or valid/a.json.

    The file's own name counts before its folders, and of these the innermost; a name that speaks of
    several says nothing.
    """
    for part in reversed(PurePosixPath(path.replace("\\", "/").casefold()).parts):
        named = {_NAMES[word] for word in _WORD.findall(part) if word in _NAMES}
        if len(named) == 1:
            return named.pop()
    return None


def by_subset(file: tuple[str, object]) -> tuple[int, str]:
    """A key to sort named files by: those of train first."""
    subset = subset_of_path(file[0])
    return (0 if subset is None else SUBSETS.index(subset)), file[0]


def told_apart(subsets: Mapping[K, Subset | None]) -> dict[K, Subset]:
    """Subsets that names of files and folders tell of, where they tell at least two apart.

    A single file called train.json says nothing of how its owner splits a dataset.
    """
    usable = {key: subset for key, subset in subsets.items() if subset is not None}
    return usable if len(set(usable.values())) > 1 else {}


def strictest(subsets: Iterable[Subset]) -> Subset:
    """Of several subsets that an image is in: never train on what is measured."""
    return max(subsets, key=SUBSETS.index)
