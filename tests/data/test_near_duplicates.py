"""Copies of images are found among others by their descriptors."""

import io

import numpy as np
import pytest
from PIL import Image

from sapnet.data.descriptor import COUNT, SIDE, describe, descriptor_of, layouts
from sapnet.data.images import ImageProblem
from sapnet.data.near_duplicates import near_duplicates


def scene(seed: int, side: int = 120) -> Image.Image:
    """Something with large shapes, another one for each seed."""
    rng = np.random.default_rng(seed)
    small = Image.fromarray(rng.integers(0, 256, (6, 6, 3), np.uint8))
    return small.resize((side, side), Image.Resampling.BICUBIC)


def sent(image: Image.Image, kind: str = "PNG", **options: int) -> io.BytesIO:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    buffer.seek(0)
    return buffer


def groups_of(files: list[io.BytesIO]) -> list[list[int]]:
    made = [describe(file) for file in files]
    features = np.frombuffer(b"".join(d.features for d in made), np.uint8).reshape(-1, COUNT)
    hashes = np.array([d.hash for d in made], np.uint64)
    return [group.tolist() for group in near_duplicates(hashes, layouts(features))]


def test_copies_of_another_size_and_quality_are_found() -> None:
    files = [sent(scene(seed)) for seed in range(12)]
    files += [sent(scene(3).resize((70, 70))), sent(scene(3), "JPEG", quality=50)]
    files += [sent(scene(8)), sent(Image.new("RGB", (50, 40), "black"))]
    assert groups_of(files) == [[3, 12, 13], [8, 14]]


def test_images_of_one_colour_differ_by_it() -> None:
    colours = [(0, 0, 0), (250, 250, 250), (2, 2, 2), (120, 120, 120)]
    assert groups_of([sent(Image.new("RGB", (40, 30), c)) for c in colours]) == [[0, 2]]


def test_hashes_are_compared_as_all_pairs_would_be() -> None:
    rng = np.random.default_rng(0)
    hashes = rng.integers(0, 2**64, 60, dtype=np.uint64)
    for place in range(30, 60):  # each like one of the first, in none to nine bits
        flipped = rng.choice(64, place % 10, replace=False).astype(np.uint64)
        hashes[place] = hashes[place - 30]
        for bit in flipped:
            hashes[place] ^= np.uint64(1) << bit
    grey = np.full((60, 64), 90, np.uint8)
    found = {tuple(group.tolist()) for group in near_duplicates(hashes, grey, max_bits=7)}
    distance = np.bitwise_count(hashes[:, None] ^ hashes)
    assert found == {(n, n + 30) for n in range(30) if distance[n, n + 30] <= 7}
    with pytest.raises(ValueError, match="max_bits is 8"):
        near_duplicates(hashes, grey, max_bits=8)


def test_none_and_one() -> None:
    empty = np.zeros(0, np.uint64)
    assert near_duplicates(empty, np.zeros((0, 64), np.uint8)) == []
    assert near_duplicates(np.zeros(1, np.uint64), np.zeros((1, 64), np.uint8)) == []
    assert len(descriptor_of(np.zeros((SIDE, SIDE, 3), np.uint8)).features) == COUNT
    with pytest.raises(ImageProblem):
        describe(io.BytesIO(b"no image"))
