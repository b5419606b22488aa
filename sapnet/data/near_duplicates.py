"""Groups of images that look the same, by their descriptors (`sapnet.data.descriptor`).

Hashes that differ in few bits agree in most of any four parts of 16 bits, so that only hashes of
nearly equal parts are compared (multi-index hashing: Norouzi et al., CVPR 2012). No torch.
"""

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

MAX_BITS = 7
"""In how many of 64 bits the hashes of copies may differ: those of different photographs,
micrographs and drawn scenes differ in 16 and more."""
FEW_BITS = 3
"""The same for `MANY` images and more, of which fewer pairs are compared."""
MANY = 30_000
MAX_LEVELS = 20.0
"""By how much grey levels of 8 x 8 parts may differ, on average."""
_PARTS, _WIDTH = 4, 16
_CHUNK = 1 << 20  # pairs that are compared together
Indices = npt.NDArray[np.int64]


def near_duplicates(
    hashes: npt.NDArray[np.uint64],
    layouts: npt.NDArray[np.uint8],
    max_bits: int | None = None,
    max_levels: float = MAX_LEVELS,
) -> list[Indices]:
    """Groups of images of which each looks like another one of its group.

    Args:
        hashes: (N,) of 64 bits.
        layouts: (N, 64) grey levels of parts.
        max_bits: below 8: two hashes then agree in one of four parts but for one bit. Default:
            `MAX_BITS`, or `FEW_BITS` of many.

    Returns:
        Sorted places of the images of each group of two and more, by the first of them.
    """
    if max_bits is None:
        max_bits = MAX_BITS if len(hashes) < MANY else FEW_BITS
    if max_bits >= 2 * _PARTS:
        raise ValueError(f"max_bits is {max_bits}, not below {2 * _PARTS}")
    if not len(hashes):
        return []
    keys = np.concatenate([hashes[:, None].view(np.uint8), layouts], axis=1)
    _, first, same = np.unique(keys, axis=0, return_index=True, return_inverse=True)
    groups = _joined(hashes[first], layouts[first], max_bits, max_levels)[same.reshape(-1)]
    order = np.argsort(groups, kind="stable")
    cuts = np.flatnonzero(np.diff(groups[order])) + 1
    several = [group for group in np.split(order, cuts) if len(group) > 1]
    return sorted(several, key=lambda group: int(group[0]))


def _joined(
    hashes: npt.NDArray[np.uint64],
    layouts: npt.NDArray[np.uint8],
    max_bits: int,
    max_levels: float,
) -> Indices:
    """Which group each is of."""
    from scipy.sparse import coo_array  # takes a while, and few need it
    from scipy.sparse.csgraph import connected_components

    groups, means = np.arange(len(hashes)), layouts.mean(axis=1)
    for one, other in _candidates(hashes, max_bits):
        apart = groups[one] != groups[other]
        one, other = one[apart], other[apart]
        near = np.bitwise_count(hashes[one] ^ hashes[other]) <= max_bits
        near &= np.abs(means[one] - means[other]) <= max_levels  # which costs less than all 64
        one, other = one[near], other[near]
        levels = np.abs(layouts[one].astype(np.int16) - layouts[other]).mean(axis=1)
        alike = levels <= max_levels
        one, other = one[alike], other[alike]
        if len(one):
            rows = np.concatenate([one, np.arange(len(groups))])
            columns = np.concatenate([other, groups])
            links = coo_array((np.ones(len(rows), bool), (rows, columns)), (len(groups),) * 2)
            _, labels = connected_components(links, directed=False)
            _, place = np.unique(labels, return_index=True)
            groups = place[labels]  # a group goes by the first of it
    return groups


def _candidates(hashes: npt.NDArray[np.uint64], max_bits: int) -> Iterator[tuple[Indices, Indices]]:
    """Yield pairs of places whose hashes agree in a part, but for one bit where that is needed."""
    flips = [0] if max_bits < _PARTS else [0, *(1 << bit for bit in range(_WIDTH))]
    for part in range(_PARTS):
        keys = ((hashes >> np.uint64(part * _WIDTH)) & np.uint64(0xFFFF)).astype(np.int64)
        order = np.argsort(keys, kind="stable")
        ranked = keys[order]
        for flip in flips:
            wanted = keys ^ flip
            start = np.searchsorted(ranked, wanted, "left")
            counts = np.searchsorted(ranked, wanted, "right") - start
            for one, place in _expanded(start, counts):
                other = order[place]
                once = one < other
                yield one[once], other[once]


def _expanded(start: Indices, counts: Indices) -> Iterator[tuple[Indices, Indices]]:
    """Yield (i, start[i] + 0, 1, … counts[i] - 1) of each i, about `_CHUNK` pairs at a time."""
    ends = np.cumsum(counts)
    begin = 0
    while begin < len(counts):
        before = int(ends[begin - 1]) if begin else 0
        end = max(begin + 1, int(np.searchsorted(ends, before + _CHUNK, "right")))
        some = counts[begin:end]
        one = np.repeat(np.arange(begin, end), some)
        offsets = np.arange(int(some.sum())) - np.repeat(np.cumsum(some) - some, some)
        yield one, start[one] + offsets
        begin = end
