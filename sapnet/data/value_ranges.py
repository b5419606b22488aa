"""One range of values for all images of a dataset that have more than 8 bits a pixel, so that what
is brighter in one than in another stays so (docs/decisions/0031)."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from sapnet.data.images import ImageProblem, value_sample
from sapnet.data.pixels import FloatValues, Ranges, range_of

IMAGES = 256  # that are looked at, evenly chosen
VALUES = 1 << 22  # that percentiles are taken of, of all of them together


def dataset_ranges(paths: Sequence[Path]) -> Ranges:
    """Of each kind of pixels that there is, from the 0.5th to the 99.5th percentile over the
    images; empty where none has more than 8 bits. An image that cannot be read is passed over."""
    count = min(len(paths), IMAGES)
    chosen = [paths[index * len(paths) // count] for index in range(count)]
    samples: dict[str, list[FloatValues]] = {}
    for path in chosen:
        try:
            found = value_sample(path, VALUES // count)
        except ImageProblem:
            continue
        if found is not None:
            kind, values = found
            samples.setdefault(kind, []).append(values)
    return {kind: range_of(np.sort(np.concatenate(parts))) for kind, parts in samples.items()}
