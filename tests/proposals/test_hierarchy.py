import numpy as np
import pytest
from pycocotools import mask as coco_mask

from sapnet.proposals import build_generator
from sapnet.proposals.bags import make_bags
from sapnet.proposals.hierarchy.generator import HierarchyGenerator
from sapnet.types import Bag, ByteArray, ImageInfo, PointAnnotation

from .conftest import info_of, iou, points

Blobs = tuple[ByteArray, list[np.ndarray], list[PointAnnotation]]


def bags_of(image: np.ndarray, at: list[PointAnnotation], **settings: object) -> list[Bag]:
    return make_bags(HierarchyGenerator(**settings), image, info_of(image), at)


def best(bag: Bag, truth: np.ndarray) -> float:
    return max(iou(coco_mask.decode(mask).astype(bool), truth) for mask in bag.masks)


def equal(one: list[Bag], two: list[Bag]) -> bool:
    return all(
        a.masks == b.masks and a.sources == b.sources and (a.confidence == b.confidence).all()
        for a, b in zip(one, two, strict=True)
    )


@pytest.mark.slow
def test_finds_blobs_and_splits_those_that_touch(blobs: Blobs) -> None:
    image, masks, at = blobs
    bags = bags_of(image, at)
    assert [bag.annotation_id for bag in bags] == [a.id for a in at]
    for bag, mask in zip(bags, masks, strict=True):
        assert best(bag, mask) > 0.85
        assert iou(coco_mask.decode(bag.masks[0]).astype(bool), mask) > 0.7
        assert 2 <= len(bag) <= 16


def test_the_same_again_is_the_same(blobs: Blobs) -> None:
    image, _, at = blobs
    assert equal(bags_of(image, at), bags_of(image, at))


def test_confidence_is_a_number_from_0_to_1_that_falls(blobs: Blobs) -> None:
    image, _, at = blobs
    for raw in HierarchyGenerator().propose(image, info_of(image), at):
        assert raw.confidence.dtype == np.float32
        assert (np.diff(raw.confidence) <= 0).all()
        assert raw.confidence.min() >= 0
        assert raw.confidence.max() <= 1
        assert raw.masks.shape == (len(raw.confidence), 96, 128)
        assert {source.split("-")[0] for source in raw.sources} == {"hierarchy"}


def test_a_point_more_in_another_chunk_changes_nothing_else(
    blobs: Blobs, monkeypatch: pytest.MonkeyPatch
) -> None:
    image, _, at = blobs
    together = bags_of(image, at)
    monkeypatch.setattr("sapnet.proposals.hierarchy.generator._CHUNK", 3)
    assert [b.masks for b in bags_of(image, at)] == [b.masks for b in together]


def test_a_large_image_is_worked_on_small_and_answered_at_its_size(blobs: Blobs) -> None:
    image, masks, at = blobs
    large = image.repeat(3, axis=0).repeat(3, axis=1)
    places = points(*[(3 * a.x, 3 * a.y) for a in at])
    for bag, mask in zip(bags_of(large, places, max_side=128), masks, strict=True):
        assert bag.masks[0]["size"] == [288, 384]
        assert best(bag, mask.repeat(3, axis=0).repeat(3, axis=1)) > 0.8


@pytest.mark.parametrize("size", [(1, 1), (1, 9), (9, 1), (2, 2), (3, 700)])
@pytest.mark.parametrize("noisy", [False, True])
def test_the_smallest_images(size: tuple[int, int], noisy: bool) -> None:
    rng = np.random.default_rng(0)
    image = (rng.integers(0, 256, (*size, 3)) if noisy else np.zeros((*size, 3))).astype(np.uint8)
    corner = (float(size[1]), float(size[0]))
    bags = bags_of(image, points((0.5, 0.5), (0.5, 0.5), corner))
    assert len(bags) == 3
    for bag in bags:
        assert all(coco_mask.area(list(bag.masks)) > 0)


def test_a_flat_image_gives_every_point_something() -> None:
    image = np.full((40, 60, 3), 128, np.uint8)
    bags = bags_of(image, points((10, 10), (50, 30)))
    assert all(len(bag) >= 1 for bag in bags)


@pytest.mark.slow
def test_noise_keeps_the_tables_small() -> None:
    image = np.random.default_rng(0).integers(0, 256, (400, 400, 3)).astype(np.uint8)
    assert len(bags_of(image, points((200, 200)))) == 1


@pytest.mark.slow
def test_three_hundred_points_some_of_them_identical() -> None:
    rng = np.random.default_rng(1)
    image = rng.integers(0, 256, (60, 80, 3)).astype(np.uint8)
    places = rng.uniform(0, (80, 60), (300, 2))
    places[100:110] = places[100]
    bags = bags_of(image, points(*places.tolist()))
    assert len(bags) == 300
    assert [bag.annotation_id for bag in bags] == list(range(100, 400))


def test_no_annotation_no_work() -> None:
    image = np.zeros((5, 5, 3), np.uint8)
    assert list(HierarchyGenerator().propose(image, ImageInfo(1, "a", 5, 5), [])) == []


def test_the_fingerprint_follows_the_settings() -> None:
    first = build_generator({"kind": "hierarchy"}).fingerprint()
    assert len(first) == 64
    assert build_generator({"kind": "hierarchy"}).fingerprint() == first
    assert build_generator({"kind": "hierarchy", "max_side": 320}).fingerprint() != first
    assert build_generator({"kind": "hierarchy", "most": 8}).fingerprint() != first
    assert build_generator({"kind": "hierarchy", "most": 16}).fingerprint() == first
