"""Which images of a dataset are held out of training, to measure the model on. Imports no torch."""

import hashlib
import math
from collections.abc import Collection, Mapping
from pathlib import Path

from sapnet.types import Subset

_READ = 1 << 16  # bytes of each file that its key is made of, with its size


def hold_out(
    files: Mapping[int, Path],
    *,
    share: float,
    at_least: int,
    seed: int,
    groups: Mapping[int, str] | None = None,
) -> frozenset[int]:
    """Hold out a share of the images, by their content.

    Each image has a number in [0, 1), drawn by the seed and by what is in its file (or by its
    group's name). Those below the share are held out, so that images which are added later move no
    other one, and copies of an image stay together. Where these are fewer than `at_least`, the
    next ones join them; more than twice the share is never held out.

    Args:
        files: of the images, by id; one that cannot be read is not held out.
        share: in [0, 1); 0 holds out none.
        at_least: how many images.
        seed: of the run.
        groups: names by image id; images of one group are held out together.

    Returns:
        Ids of images.
    """
    if not share:
        return frozenset()
    parts: dict[float, list[int]] = {}
    for id_, path in files.items():
        group = (groups or {}).get(id_)
        try:
            key = _content(path) if group is None else group.encode()
        except OSError:
            continue
        digest = hashlib.sha256(b"%d " % seed + key).digest()
        parts.setdefault(int.from_bytes(digest[:6], "big") / 2**48, []).append(id_)
    most = max(math.ceil(2 * share * len(files)), at_least)
    chosen: list[int] = []
    for number, ids in sorted(parts.items()):
        if number >= share and len(chosen) >= at_least:
            break
        if len(chosen) + len(ids) <= most and len(chosen) + len(ids) < len(files):
            chosen += ids
    return frozenset(chosen)


def split_given(subsets: Mapping[int, Subset]) -> tuple[Collection[int], Collection[int]]:
    """Split as the user did.

    Returns:
        Ids of the images to validate on, and of all that are not to be trained on.
    """
    validated = frozenset(id_ for id_, subset in subsets.items() if subset == "val")
    return validated, validated | {id_ for id_, subset in subsets.items() if subset == "test"}


def _content(path: Path) -> bytes:
    with path.open("rb") as file:
        return b"%d %b" % (path.stat().st_size, file.read(_READ))
