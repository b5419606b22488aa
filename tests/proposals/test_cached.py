"""Bags of a run: made once, and read from the store when they are asked for."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from threading import Barrier

import numpy as np
import pytest
from PIL import Image

from sapnet.errors import ATTEMPT_FAILED
from sapnet.proposals.cached import CachedProposals, ProposalsLost, StoredBags
from sapnet.proposals.store import ProposalStore
from sapnet.training import dataset as training
from sapnet.training.dataset import TrainingSet, image_infos
from sapnet.types import (
    Bag,
    ByteArray,
    Category,
    ImageInfo,
    PointAnnotation,
    PointSet,
    RawProposals,
)

from .conftest import disc

SIZE = (30, 40)


class Discs:
    """Three discs around each point; counts the images that it was asked about."""

    name, calibrated = "discs", True

    def __init__(self) -> None:
        self.asked: list[int] = []

    def fingerprint(self) -> str:
        return "discs"

    def propose(
        self, image: ByteArray, info: ImageInfo, annotations: Sequence[PointAnnotation]
    ) -> Iterator[RawProposals]:
        self.asked.append(info.id)
        for a in annotations:
            masks = np.array([disc(SIZE, a.x, a.y, r) for r in (3, 5, 8)])
            yield RawProposals(masks, np.float32([0.2, 0.9, 0.5]), ("a", "b", "c"))


@pytest.fixture
def points() -> PointSet:
    """Four images of two objects, ids with gaps; the third image has none."""
    images = [ImageInfo(i, f"{i}.png", SIZE[1], SIZE[0]) for i in (3, 5, 8, 9)]
    objects = [
        PointAnnotation(10 * info.id + n, info.id, 1, 12.0 + 9 * n, 14.0)
        for info in images
        for n in range(2)
        if info.id != 8
    ]
    return PointSet(tuple(images), tuple(objects), (Category(1, "cell"),))


@pytest.fixture
def paths(points: PointSet, tmp_path: Path) -> dict[int, Path]:
    found = {info.id: tmp_path / info.file_name for info in points.images}
    for id_, path in found.items():
        Image.fromarray(np.full((*SIZE, 3), id_, np.uint8)).save(path)
    return found


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The keys whose bags were read from the store."""
    seen: list[str] = []
    get = ProposalStore.get

    def counted(self: ProposalStore, key: str) -> list[Bag] | None:
        seen.append(key)
        return get(self, key)

    monkeypatch.setattr(ProposalStore, "get", counted)
    return seen


def stored(folder: Path, points: PointSet, paths: dict[int, Path]) -> StoredBags:
    cache = CachedProposals(folder, Discs(), paths, 16)
    keys = {info.id: cache.make(info, annotations) for info, annotations in points}
    return StoredBags(cache, points, keys)


def same(one: Bag, two: Bag) -> bool:
    return one.annotation_id == two.annotation_id and one.masks == two.masks


def test_bags_by_image_and_by_annotation(
    tmp_path: Path, points: PointSet, paths: dict[int, Path]
) -> None:
    bags = stored(tmp_path / "store", points, paths)
    assert list(bags) == [3, 5, 8, 9]
    assert bags[8] == []
    assert [bag.annotation_id for bag in bags[5]] == [50, 51]
    assert bags.sizes(5) == tuple(len(bag) for bag in bags[5])
    by_annotation = bags.by_annotation()
    assert list(by_annotation) == [30, 31, 50, 51, 90, 91]
    assert len(by_annotation) == 6
    assert same(by_annotation[91], bags[9][1])
    assert same(by_annotation[30], bags[3][0])


def test_a_training_set_reads_the_bags_of_the_images_it_is_asked_for(
    tmp_path: Path, points: PointSet, paths: dict[int, Path], reads: list[str]
) -> None:
    bags = stored(tmp_path / "store", points, paths)
    reads.clear()
    records = TrainingSet(points, paths, bags)
    assert [info.id for info in image_infos(records)] == [3, 5, 8, 9]
    assert reads == [], "orientations need no bag"
    assert records[1].info.id == 5
    assert records[-3] is records[1]
    assert len(reads) == 1
    with pytest.raises(IndexError):
        _ = records[4]


def test_records_beyond_those_kept_are_read_anew(
    tmp_path: Path,
    points: PointSet,
    paths: dict[int, Path],
    reads: list[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(training, "KEPT", 2)
    records = TrainingSet(points, paths, stored(tmp_path / "store", points, paths))
    before = [bag for record in records for bag in record.bags]
    reads.clear()
    after = [bag for record in records for bag in record.bags]
    assert len(reads) == 4
    assert len(after) == 6
    assert all(same(one, two) for one, two in zip(before, after, strict=True))


def test_bags_that_are_gone_from_the_store_are_made_by_the_next_attempt(
    tmp_path: Path, points: PointSet, paths: dict[int, Path]
) -> None:
    bags = stored(tmp_path / "store", points, paths)
    shard = next((tmp_path / "store").glob("*.bags"))
    content = bytearray(shard.read_bytes())
    content[60] ^= 0xFF  # in the first record
    shard.write_bytes(content)
    with pytest.raises(ProposalsLost) as lost:
        _ = bags[3]
    assert lost.value.reason == ATTEMPT_FAILED
    assert len(stored(tmp_path / "store", points, paths)[3]) == 2


class Together(Discs):
    """Answers once three images are in its hands."""

    images_at_once = 3

    def __init__(self, broken: int) -> None:
        super().__init__()
        self._broken, self._three = broken, Barrier(3, timeout=60)

    def propose(
        self, image: ByteArray, info: ImageInfo, annotations: Sequence[PointAnnotation]
    ) -> Iterator[RawProposals]:
        self._three.wait()
        if info.id == self._broken:
            raise ValueError("no masks here")
        yield from super().propose(image, info, annotations)


def test_a_generator_may_have_several_images_in_hand(
    points: PointSet, paths: dict[int, Path], tmp_path: Path
) -> None:
    """They come in order, and a failure is that of its own image."""
    wanted = [image for image in points if image[1]]
    maker = CachedProposals(tmp_path / "store", Together(broken=5), paths, 16)
    seen = []
    for info, make in maker.make_all(wanted):
        if info.id == 5:
            with pytest.raises(ValueError, match="no masks here"):
                make()
        else:
            seen.append((info.id, len(maker.read(make(), points.annotations_of[info.id]))))
    assert seen == [(3, 2), (9, 2)]


def test_images_that_nobody_waits_for_are_not_begun(
    points: PointSet, paths: dict[int, Path], tmp_path: Path
) -> None:
    """A run that is stopped does not make the proposals of those that it had ahead."""
    generator = Discs()
    generator.images_at_once = 2  # type: ignore[attr-defined]
    made = CachedProposals(tmp_path / "store", generator, paths, 16).make_all(points)
    next(made)[1]()
    made.close()
    assert 9 not in generator.asked
