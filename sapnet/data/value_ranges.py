"""One range of values for all images of a dataset that have more than 8 bits a pixel.

So what is brighter in one image than in another stays so (docs/decisions/0031).
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from sapnet.data.images import ImageProblem, value_sample
from sapnet.data.pixels import FloatValues, Ranges, range_of

IMAGES = 256  # that are looked at, evenly chosen
VALUES = 1 << 22  # that percentiles are taken of, of all of them together


def dataset_ranges(paths: Sequence[Path]) -> Ranges:
    """The range of values of each kind of pixels, over the images.

    An image that cannot be read is passed over.

    Returns:
        From the 0.5th to the 99.5th percentile; empty where no image has more than 8 bits a pixel.
    """
    count = min(len(paths), IMAGES)
    chosen = [paths[index * len(paths) // count] for index in range(count)]
    samples: dict[str, list[FloatValues]] = {}
    for path in chosen:
        try:
            sample = value_sample(path, VALUES // count)
        except ImageProblem:
            continue
        if sample is not None:
            kind, values = sample
            samples.setdefault(kind, []).append(values)
    return {kind: range_of(np.sort(np.concatenate(parts))) for kind, parts in samples.items()}
