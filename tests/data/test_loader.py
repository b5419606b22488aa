"""Images and bags as batches: sizes, flips, padding, order; against plain arrays."""

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from pycocotools import mask as coco_mask

from sapnet.config.schema import DataConfig, MilConfig
from sapnet.data.masks import mask_iou, tight_boxes
from sapnet.data.sampler import Sampler
from sapnet.data.samples import (
    IMAGE_MEAN,
    IMAGE_STD,
    input_size,
    load_sample,
    make_record,
    pad,
    to_tensor,
)
from sapnet.labelers.sapnet.bag_features import BagCollator, bag_features
from sapnet.types import Bag, ImageInfo, PointAnnotation, ProposalScores


def encode(mask):
    rle = coco_mask.encode(np.asfortranarray(mask, dtype=np.uint8))
    return {"size": [int(side) for side in rle["size"]], "counts": rle["counts"].decode()}


def bag_of(annotation_id, masks, confidence):
    rles = tuple(encode(mask) for mask in masks)
    sources = ("test",) * len(masks)
    return Bag(
        annotation_id, tight_boxes(rles), rles, np.float32(confidence), sources, mask_iou(rles)
    )


def blocks(rng, size, points):
    """A bag of rectangles for each point; some hold other points."""
    bags = []
    for n, (x, y) in enumerate(points):
        masks = []
        for _ in range(int(rng.integers(1, 6))):
            mask = np.zeros(size, bool)
            left, top = max(int(x) - rng.integers(0, 20), 0), max(int(y) - rng.integers(0, 20), 0)
            mask[top : int(y) + rng.integers(1, 20), left : int(x) + rng.integers(1, 20)] = True
            masks.append(mask)
        bags.append((masks, bag_of(n, masks, rng.random(len(masks)))))
    return bags


def world(tmp_path: Path, seed=0, size=(40, 60), count=8):
    rng = np.random.default_rng(seed)
    path = tmp_path / "image.png"
    Image.fromarray(rng.integers(0, 256, (*size, 3), dtype=np.uint8)).save(path)
    points = [
        (int(rng.integers(size[1])) + 0.5, int(rng.integers(size[0])) + 0.5) for _ in range(count)
    ]
    annotations = [
        PointAnnotation(n, 1, int(rng.choice([4, 9])), x, y) for n, (x, y) in enumerate(points)
    ]
    bags = blocks(rng, size, points)
    info = ImageInfo(1, path.name, size[1], size[0])
    record = make_record(info, path, annotations, [b for _, b in bags], {4: 0, 9: 1})
    return record, [masks for masks, _ in bags]


@pytest.mark.parametrize("seed", range(4))
def test_record_against_pixels(tmp_path, seed):
    """Distance (Eq. 2), containment, medoid and size rank of each proposal, counted by hand."""
    exponent = 0.5
    record, masks = world(tmp_path, seed)
    found = bag_features(record, MilConfig(distance_exponent=exponent))
    group = record.annotations
    near = [min(math.dist((a.x, a.y), (b.x, b.y)) for b in group if b is not a) for a in group]
    spacing = sum(near) / len(near) or 1.0
    for n, a in enumerate(group):
        assert record.labels[n] == {4: 0, 9: 1}[a.category_id]
        others = [b for b in group if b is not a and b.category_id == a.category_id]
        areas = [int(m.sum()) for m in masks[n]]
        for m, mask in enumerate(masks[n]):
            held = [b for b in others if mask[int(b.y), int(b.x)]]
            weight = sum(max(math.dist((a.x, a.y), (b.x, b.y)) / spacing, 0.01) for b in held)
            score = (1 / (1 + math.exp(-1 / weight))) ** exponent if weight else 1.0
            assert found.distance[n][m] == pytest.approx(score, rel=1e-5)
            assert bool(found.contains_other_point[n][m]) is bool(held)
            ious = [(mask & o).sum() / (mask | o).sum() for i, o in enumerate(masks[n]) if i != m]
            assert found.medoid[n][m] == pytest.approx(sum(ious) / max(len(ious), 1), abs=1e-6)
            larger = sum(area > areas[m] for area in areas)
            assert larger <= found.size_rank[n][m] < larger + areas.count(areas[m])
        assert sorted(found.size_rank[n]) == list(range(len(masks[n])))


@pytest.mark.parametrize("change", ["mirrored", "doubled", "shuffled"])
def test_statistics_survive(tmp_path, change):
    """What the bags alone tell does not depend on mirroring, size, or order of arrival."""
    record, masks = world(tmp_path, 5)
    width = record.info.width
    annotations, bags, orders = [], [], []
    for n, a in enumerate(record.annotations):
        bag_masks, x, y = masks[n], a.x, a.y
        order = np.arange(len(bag_masks))
        if change == "mirrored":
            bag_masks, x = [m[:, ::-1] for m in bag_masks], width - a.x
        elif change == "doubled":
            bag_masks, x, y = [np.kron(m, np.ones((2, 2), bool)) for m in bag_masks], 2 * x, 2 * y
        else:
            order = np.random.default_rng(n).permutation(len(bag_masks))
            bag_masks = [bag_masks[i] for i in order]
        annotations.append(PointAnnotation(a.id, 1, a.category_id, x, y))
        bags.append(bag_of(a.id, bag_masks, record.bags[n].confidence[order]))
        orders.append(order)
    info = ImageInfo(1, "x", *bags[0].masks[0]["size"][::-1])
    other = make_record(info, record.path, annotations, bags, {4: 0, 9: 1})
    got, before = bag_features(other, MilConfig()), bag_features(record, MilConfig())
    for n, order in enumerate(orders):
        np.testing.assert_array_equal(
            got.contains_other_point[n], before.contains_other_point[n][order]
        )
        np.testing.assert_allclose(got.distance[n], before.distance[n][order], rtol=1e-6)
        np.testing.assert_array_equal(got.medoid[n], before.medoid[n][order])
        if change == "shuffled":
            np.testing.assert_array_equal(got.size_rank[n], before.size_rank[n][order])


@pytest.mark.parametrize(
    ("size", "short", "longest", "expected"),
    [
        ((480, 640), 800, 1333, (800, 1067)),
        ((480, 1280), 800, 1333, (500, 1333)),
        ((640, 480), 64, 96, (85, 64)),
        ((1, 1), 64, 96, (64, 64)),
        ((1, 5000), 64, 96, (1, 96)),
    ],
)
def test_input_size(size, short, longest, expected):
    assert input_size(size, short, longest) == expected


def test_to_tensor_keeps_pixels_where_nothing_is_resized():
    image = np.random.default_rng(0).integers(0, 256, (5, 7, 3), dtype=np.uint8)
    got = to_tensor(image, (5, 7)).permute(1, 2, 0).numpy()
    np.testing.assert_allclose(got, (image / 255 - IMAGE_MEAN) / IMAGE_STD, atol=1e-5)
    grey = to_tensor(np.full((30, 20, 3), 128, np.uint8), (11, 9))
    assert grey.std(dim=(1, 2)).max() < 1e-5


@pytest.mark.parametrize("flip", [False, True])
def test_boxes_and_masks_follow_the_image(tmp_path, flip):
    """Each mask at the input's size lies in its own box, and shows what the image shows there."""
    record, masks = world(tmp_path, 2)
    sample = load_sample(record, DataConfig(short_sides=(80,), max_long_side=500), flip=flip)
    plain = load_sample(record, DataConfig(short_sides=(80,), max_long_side=500))
    assert sample.size == (80, 120)
    assert torch.equal(sample.image, plain.image.flip(2) if flip else plain.image)
    for n, bag in enumerate(record.bags):
        boxes = sample.boxes(bag)
        assert boxes.dtype == np.float32
        for m, mask in enumerate(masks[n]):
            seen = mask[:, ::-1] if flip else mask
            rows, columns = np.nonzero(seen)
            expected = [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
            np.testing.assert_allclose(boxes[m], 2 * np.array(expected), atol=1e-3)
            doubled = np.kron(seen, np.ones((2, 2), bool))
            cells = doubled.reshape(20, 4, 30, 4).mean(axis=(1, 3))
            wanted = cells >= min(0.5, cells.max())
            np.testing.assert_array_equal(sample.mask(bag.masks[m], 4).numpy(), wanted)


def test_a_speck_is_not_lost():
    mask = np.zeros((64, 64), bool)
    mask[33, 17] = True
    info = ImageInfo(1, "x", 64, 64)
    record = make_record(info, Path("x"), [], [], {})
    from sapnet.data.samples import Sample

    sample = Sample(record, torch.zeros(3, 64, 64), (1.0, 1.0), False)
    grid = sample.mask(encode(mask), 4)
    assert grid.nonzero().tolist() == [[8, 4]]


def test_short_side_is_the_largest_unless_given(tmp_path):
    record, _ = world(tmp_path)
    config = DataConfig(short_sides=(32, 64), max_long_side=500)
    assert load_sample(record, config).size[0] == 64
    assert load_sample(record, config, short_side=32).size[0] == 32


def test_pad_and_collate(tmp_path):
    records = [world(tmp_path, s, size)[0] for s, size in enumerate([(40, 60), (60, 40)])]
    empty = make_record(records[0].info, records[0].path, [], [], {})
    samples = [
        load_sample(r, DataConfig(short_sides=(70,), max_long_side=500))
        for r in (records[0], empty, records[1])
    ]
    images = pad(samples)
    assert images.shape == (3, 3, 128, 128)
    for image, sample in zip(images, samples, strict=True):
        h, w = sample.size
        assert torch.equal(image[:, :h, :w], sample.image)
        assert not image[:, h:].any()
        assert not image[:, :, w:].any()
    collate = BagCollator(MilConfig())
    bags = collate(samples)
    longest = max(len(b) for r in records for b in r.bags)
    assert bags.boxes.shape == (16, longest, 4)
    assert bags.image.tolist() == [0] * 8 + [2] * 8
    row = 0
    for sample in samples:
        for n, bag in enumerate(sample.record.bags):
            own = slice(0, len(bag))
            assert bags.valid[row].tolist() == [True] * len(bag) + [False] * (longest - len(bag))
            np.testing.assert_array_equal(bags.boxes[row, own].numpy(), sample.boxes(bag))
            assert not bags.boxes[row, len(bag) :].any()
            assert bags.labels[row] == sample.record.labels[n]
            pairs = {
                "distance": collate.features(sample.record).distance[n],
                "contains_other_point": collate.features(sample.record).contains_other_point[n],
                "medoid": collate.features(sample.record).medoid[n],
                "size_rank": collate.features(sample.record).size_rank[n],
                "confidence": bag.confidence,
            }
            for name, expected in pairs.items():
                np.testing.assert_array_equal(getattr(bags, name)[row, own].numpy(), expected)
            row += 1


def test_judgements_travel_with_their_bags(tmp_path):
    """Where no teacher was asked they carry what changes nothing: contrast 0, overlap 1."""
    rng = np.random.default_rng(0)
    record = world(tmp_path, 0)[0]
    sample = load_sample(record, DataConfig(short_sides=(70,), max_long_side=500))
    proposal_scores = {
        bag.annotation_id: ProposalScores(
            -rng.random(len(bag)).astype(np.float32), rng.random(len(bag)).astype(np.float32)
        )
        for bag in record.bags
    }
    bags = BagCollator(MilConfig())([sample])
    assert bags.overlap.dtype == bags.contrast.dtype == torch.float32
    assert not bags.contrast.any()
    assert (bags.overlap == 1).all()
    bags = BagCollator(MilConfig(), proposal_scores)([sample])
    for row, annotation in enumerate(record.annotations):
        scores = proposal_scores[annotation.id]
        length = len(scores.overlap)
        np.testing.assert_array_equal(bags.contrast[row, :length].numpy(), scores.contrast)
        np.testing.assert_array_equal(bags.overlap[row, :length].numpy(), scores.overlap)
        assert not bags.contrast[row, length:].any()
        assert (bags.overlap[row, length:] == 1).all()


def test_a_batch_without_a_point(tmp_path):
    record, _ = world(tmp_path, count=0)
    sample = load_sample(record, DataConfig(short_sides=(64,), max_long_side=96))
    bags = BagCollator(MilConfig())([sample])
    assert len(bags) == 0
    assert bags.boxes.shape == (0, 1, 4)
    assert bags.rois().shape == (0, 5)


@pytest.mark.parametrize(("count", "size"), [(7, 3), (6, 3), (1, 4), (3, 3), (5, 1)])
def test_every_image_once_an_epoch(count, size):
    sampler = Sampler(count=count, batch_size=size, seed=3)
    for epoch in range(3):
        first = epoch * sampler.steps_per_epoch
        steps = [sampler.batch(s) for s in range(first, first + sampler.steps_per_epoch)]
        assert all(len(step) == len(set(step)) == min(size, count) for step in steps)
        drawn = [i for step in steps for i in step]
        assert sorted(drawn[:count]) == list(range(count))
        assert drawn[count:] == drawn[: len(drawn) - count]  # the last batch is filled up


@pytest.mark.parametrize("count", [20, 21, 3])
@pytest.mark.parametrize("upright", [0.5, 0.2, 0, 1])
def test_batches_are_of_one_orientation(count, upright):
    """Every image at least once an epoch all the same; both kinds come in any order."""
    stands = [(7 * n) % count < upright * count for n in range(count)]
    sampler = Sampler(count=count, batch_size=4, seed=3, upright=stands)
    kinds = []
    for epoch in range(8):
        first = epoch * sampler.steps_per_epoch
        steps = [sampler.batch(first + part) for part in range(sampler.steps_per_epoch)]
        assert {i for step in steps for i in step} == set(range(count))
        assert all(len(set(step)) == len(step) == min(4, count) for step in steps)
        assert sum(len({stands[i] for i in step}) == 2 for step in steps) <= 1
        kinds.append(tuple(sum(stands[i] for i in step) for step in steps))
    assert len(set(kinds)) > 1 or upright in (0, 1) or count == 3


def test_order_is_a_function_of_seed_and_step():
    def orders(seed):
        sampler = Sampler(count=20, batch_size=4, seed=seed)
        return [sampler.batch(step) for step in range(10)]

    assert orders(1) == orders(1)
    assert orders(1) != orders(2)
    assert orders(1)[:5] != orders(1)[5:]  # the next epoch has an order of its own
    backwards = Sampler(count=20, batch_size=4, seed=1)
    assert [backwards.batch(step) for step in reversed(range(10))] == orders(1)[::-1]


def test_generators_of_steps_differ_and_repeat():
    def first(seed, step):
        generator = Sampler(count=4, batch_size=2, seed=seed).generator(step)
        return float(torch.rand((), generator=generator))

    values = {(seed, step): first(seed, step) for seed in range(3) for step in range(5)}
    assert len(set(values.values())) == 15
    assert all(first(*key) == value for key, value in values.items())
